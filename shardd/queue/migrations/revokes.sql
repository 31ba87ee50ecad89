-- Applied at the end of every migration run, with or without a role for producers: what everybody (PUBLIC) could do is taken away, and
-- `grants.sql` gives producers what they need. PostgreSQL lets everybody execute a new function and use a new type: a function that
-- runs as its owner would, as the trigger of a temporary table of somebody's, work for that somebody. Firing a trigger needs no right.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc p
                WHERE p.pronamespace = 'shardd'::regnamespace
                  AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0) LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', one.name);
    END LOOP;
    -- Those of tables, too: a column of such a type would keep the table from being changed or dropped.
    FOR one IN SELECT t.oid::regtype AS name FROM pg_type t
                WHERE t.typnamespace = 'shardd'::regnamespace AND t.typcategory <> 'A'
                  AND EXISTS (SELECT FROM aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) a WHERE a.grantee = 0) LOOP
        EXECUTE format('REVOKE ALL ON TYPE %s FROM PUBLIC', one.name);
    END LOOP;

    -- In a database of its own: no role may create objects, not even its own, that statements of others could find. As a superuser
    -- shardd would do that to a database that may be somebody else's.
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        RETURN;
    END IF;
    FOR one IN SELECT n.oid::regnamespace AS name FROM pg_namespace n
                WHERE pg_has_role(n.nspowner, 'USAGE')
                  AND EXISTS (SELECT FROM aclexplode(n.nspacl) a WHERE a.grantee = 0 AND a.privilege_type = 'CREATE') LOOP
        EXECUTE format('REVOKE CREATE ON SCHEMA %s FROM PUBLIC', one.name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_database d CROSS JOIN aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                WHERE d.datname = current_database() AND pg_has_role(d.datdba, 'USAGE') AND a.grantee = 0
                  AND a.privilege_type IN ('CREATE', 'TEMPORARY')) THEN
        EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
    -- What is made later starts closed. (It must be said for the whole database: rights that hold for a schema can only add to it.)
    IF EXISTS (SELECT FROM pg_database d WHERE d.datname = current_database() AND pg_has_role(d.datdba, 'USAGE')) THEN
        ALTER DEFAULT PRIVILEGES REVOKE ALL ON ROUTINES FROM PUBLIC;
        ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM PUBLIC;
    END IF;
END $$;
