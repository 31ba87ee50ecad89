-- A database that was restored from a backup, before anything runs on it.

-- name: has_schema
-- Whether this database has a schema of shardd.
SELECT to_regnamespace('shardd') IS NOT NULL AS found;

-- name: close_database
-- Every transaction in this database that does not say otherwise only reads from now on: shardd waits until it is opened.
ALTER DATABASE {database} SET default_transaction_read_only = on;

-- name: this_moment
-- The server's time.
SELECT clock_timestamp();

-- name: earlier_sessions
-- Programs of shardd with a session in this database that began up to a moment. Of other roles' sessions the begin may be hidden.
SELECT DISTINCT application_name FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'shardd%%'
   AND (backend_start <= %(moment)s) IS NOT FALSE
 ORDER BY 1;

-- name: open_database
-- Undoes that.
ALTER DATABASE {database} RESET default_transaction_read_only;

-- name: disown_claims
-- Takes the claims of jobs in flight from every node: no journal can prove that such a job was not sent after the backup, so it becomes in
-- doubt. Returns the number of jobs in flight.
WITH leases AS (DELETE FROM shardd.leases), nodes AS (DELETE FROM shardd.nodes),
     claims AS (UPDATE shardd.epochs SET incarnation = gen_random_uuid(), drained_at = NULL)
SELECT count(*) FROM shardd.jobs WHERE claimed_epoch IS NOT NULL;

-- name: skip_ids
-- Ids that were given after the backup are not given again.
SELECT setval(c.oid, coalesce(pg_sequence_last_value(c.oid), 0) + %(skip)s)
  FROM pg_class c WHERE c.relkind = 'S' AND c.relnamespace = 'shardd'::regnamespace;
