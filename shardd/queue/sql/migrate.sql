-- The record of applied migrations.

-- name: lock_migrations
-- One migrates at a time; held to the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('shardd.migrations', 0));

-- name: limit_waiting
-- How long to wait for the lock, and for tables that others use.
SELECT set_config('lock_timeout', %(timeout)s, true);

-- name: create_migrations
-- The schema and the record itself. Simple protocol: two statements.
CREATE SCHEMA IF NOT EXISTS shardd;
CREATE TABLE IF NOT EXISTS shardd.migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: has_migrations
-- Whether the record exists.
SELECT to_regclass('shardd.migrations') IS NOT NULL;

-- name: applied_migrations
-- What was applied, in order.
SELECT version, name, sha256, applied_at FROM shardd.migrations ORDER BY version;

-- name: record_migration
-- Says that a migration was applied.
INSERT INTO shardd.migrations (version, name, sha256) VALUES (%(version)s, %(name)s, %(sha256)s);

-- name: producer_role
-- Whether the group role of the producers exists, and whether we may create it.
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shardd_producer'), rolsuper OR rolcreaterole
  FROM pg_roles WHERE rolname = current_user;

-- name: create_producer_role
-- The group of those who insert jobs.
CREATE ROLE shardd_producer NOLOGIN;

-- name: describe_server
-- What `shardd db status` shows of the database.
SELECT current_setting('server_version') AS version, current_database() AS database, current_user AS role,
       pg_size_pretty(pg_database_size(current_database())) AS size,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       pg_is_in_recovery() AS read_only;
