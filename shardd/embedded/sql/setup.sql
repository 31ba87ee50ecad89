-- What the superuser of the embedded database runs at every start; each statement changes nothing that is already as it should be.

-- name: create_roles
-- shardd: the daemon's role; owns its database, may not create roles, is not a superuser.
-- shardd_producer: the group of those who insert jobs. producer: a role of that group to log in with.
-- shardd_inbox: the group of those who read all incoming messages. inbox: a role of both groups to log in with.
-- shardd is a member of the first group, to act for tokens that send (`shardd token`).
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shardd') THEN
        CREATE ROLE shardd LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shardd_producer') THEN
        CREATE ROLE shardd_producer NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'producer') THEN
        -- Producers leave connections for the daemon, and none of their statements can fill the disk.
        CREATE ROLE producer LOGIN CONNECTION LIMIT 100 IN ROLE shardd_producer;
        ALTER ROLE producer SET temp_file_limit = '1GB';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shardd_inbox') THEN
        CREATE ROLE shardd_inbox NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'inbox') THEN
        CREATE ROLE inbox LOGIN CONNECTION LIMIT 100 IN ROLE shardd_producer, shardd_inbox;
        ALTER ROLE inbox SET temp_file_limit = '1GB';
    END IF;
    IF NOT pg_has_role('shardd', 'shardd_producer', 'MEMBER') THEN
        EXECUTE 'GRANT shardd_producer TO shardd'
                || CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN ' WITH INHERIT FALSE' ELSE '' END;
    END IF;
END
$$;

-- name: create_database
-- By itself, because it cannot run in a transaction. Raises duplicate_database.
CREATE DATABASE shardd OWNER shardd ENCODING 'UTF8' TEMPLATE template0;

-- name: restrict_public
-- In the database shardd. Revokes what PostgreSQL grants to everyone who can connect and what would let any login stop the node:
-- advisory locks, which fill the lock table that all sessions of the server share; large objects, which fill the disk; and logical
-- messages, which keep the disk busy. Programs need none of them, nor do psql and pg_dump; shardd takes an advisory lock before it
-- notifies. The other databases of the server are closed to all but the superuser.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc p
                WHERE p.pronamespace = 'pg_catalog'::regnamespace
                  AND (p.proname ~ '^pg_(try_)?advisory_(xact_)?lock(_shared)?$'
                       OR p.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite', 'lo_truncate', 'lo_truncate64',
                                        'pg_logical_emit_message'))
                  AND (NOT has_function_privilege('shardd', p.oid, 'EXECUTE')
                       OR EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)) LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', one.name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO shardd', one.name);
    END LOOP;
    FOR one IN SELECT d.datname AS name FROM pg_database d CROSS JOIN aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                WHERE d.datname IN ('postgres', 'template1') AND a.grantee = 0 GROUP BY d.datname LOOP
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', one.name);
    END LOOP;
END
$$;
