-- The record of applied migrations.

-- name: begin_migrating
-- For this transaction: how long to wait for locks; and a safe search_path, whatever others have created in the schemas of the database,
-- because the references of a view or function are resolved when it is created.
SELECT set_config('lock_timeout', %(timeout)s, true), set_config('search_path', 'pg_catalog, pg_temp', true);

-- name: lock_migrations
-- Lets one migrate at a time, until the end of the transaction. A table lock, because only the owner can take it.
LOCK TABLE shardd.migrations IN SHARE ROW EXCLUSIVE MODE;

-- name: schema_owner
-- The owner of the schema, and whether that is us: the owner can replace everything in it. A producer is not us, although we may be a
-- member of its role, to act for its tokens.
SELECT n.nspowner::regrole::text AS owner,
       r.rolsuper OR n.nspowner = r.oid
       OR pg_has_role(n.nspowner, 'USAGE') AND NOT coalesce(pg_has_role(n.nspowner, to_regrole('shardd_producer'), 'MEMBER'), false)
       AS is_ours
  FROM pg_namespace n CROSS JOIN pg_roles r WHERE n.nspname = 'shardd' AND r.rolname = current_user;

-- name: wait_briefly
-- How long this transaction waits for a lock from here on, in milliseconds.
SELECT set_config('lock_timeout', %(timeout)s, true);

-- name: create_migrations
-- The schema and the record itself. Simple protocol: several statements.
CREATE SCHEMA IF NOT EXISTS shardd;
CREATE TABLE IF NOT EXISTS shardd.migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    release    text NOT NULL,        -- which applied it
    oldest_release text NOT NULL     -- which can run on the schema after it, without the file
);
-- Which releases have written definitions.sql and what goes with it. Only the newest of them does.
CREATE TABLE IF NOT EXISTS shardd.releases (
    release    text PRIMARY KEY,
    defined_at timestamptz NOT NULL DEFAULT now()
);

-- name: has_migrations
-- Whether the record exists.
SELECT to_regclass('shardd.migrations') IS NOT NULL;

-- name: applied_migrations
-- The applied migrations, in order.
SELECT version, name, sha256, applied_at, release, oldest_release FROM shardd.migrations ORDER BY version;

-- name: record_migration
-- Records that a migration was applied.
INSERT INTO shardd.migrations (version, name, sha256, release, oldest_release)
VALUES (%(version)s, %(name)s, %(sha256)s, %(release)s, %(oldest_release)s);

-- name: defining_releases
-- The releases that have written their functions and rights.
SELECT release FROM shardd.releases;

-- name: record_definitions
-- Records that a release has written its functions and rights.
INSERT INTO shardd.releases (release) VALUES (%(release)s) ON CONFLICT (release) DO UPDATE SET defined_at = now();

-- name: has_nodes
-- Whether nodes can have registered.
SELECT to_regclass('shardd.nodes') IS NOT NULL;

-- name: live_releases
-- The release of every node that runs. A newer release asks this before its migrations, so these columns stay as they are for ever.
SELECT name, host, version FROM shardd.nodes WHERE seen_at > now() - make_interval(secs => ttl) ORDER BY name, id;

-- name: producer_role
-- Whether the group role of the producers exists, and whether we may create it.
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shardd_producer') AS is_there,
       rolsuper OR rolcreaterole AS may_create
  FROM pg_roles WHERE rolname = current_user;

-- name: create_producer_role
-- The group role of the logins that insert jobs. We are a member, to act for tokens that send (`shardd token`); without its rights, from
-- PostgreSQL 16 on.
DO $$
BEGIN
    CREATE ROLE shardd_producer NOLOGIN;
    EXECUTE 'GRANT shardd_producer TO CURRENT_USER'
            || CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN ' WITH INHERIT FALSE, SET TRUE' ELSE '' END;
END $$;

-- name: inbox_role
-- Whether the group role of those who read the inbox exists, and whether we may create it.
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shardd_inbox') AS is_there,
       rolsuper OR rolcreaterole AS may_create
  FROM pg_roles WHERE rolname = current_user;

-- name: create_inbox_role
-- The group role of the logins that read all incoming messages.
CREATE ROLE shardd_inbox NOLOGIN;

-- name: describe_server
-- What `shardd db status` shows of the database.
SELECT current_setting('server_version') AS version, current_database() AS database, current_user AS role,
       pg_size_pretty(pg_database_size(current_database())) AS size,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       pg_is_in_recovery() AS read_only,
       current_setting('default_transaction_read_only') = 'on' AS closed;

-- name: open_rights
-- Rights of PUBLIC in this database through which one program could interfere with another: the right, and its object.
SELECT format('CREATE ON SCHEMA %s', n.oid::regnamespace)
  FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) a WHERE a.grantee = 0 AND a.privilege_type = 'CREATE'
UNION ALL
SELECT format('%s ON DATABASE %I', a.privilege_type, d.datname)
  FROM pg_database d CROSS JOIN aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
 WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type IN ('CREATE', 'TEMPORARY')
 ORDER BY 1;

-- name: open_means
-- What every login can create in this database (functions that PUBLIC may call), and so fill resources that all sessions share.
SELECT DISTINCT CASE WHEN starts_with(p.proname, 'lo_') THEN 'large objects' ELSE 'advisory locks' END
  FROM pg_proc p CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
 WHERE p.pronamespace = 'pg_catalog'::regnamespace AND a.grantee = 0
       AND (p.proname ~ '^pg_(try_)?advisory_(xact_)?lock' OR p.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea'))
 ORDER BY 1;
