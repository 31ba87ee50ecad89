-- A database that was restored from a backup, before anything runs on it.

-- name: has_schema
-- Whether this database has a schema of shardd.
SELECT to_regnamespace('shardd') IS NOT NULL AS found;

-- name: close_database
-- Every transaction in this database that does not say otherwise only reads from now on: shardd waits until it is opened.
ALTER DATABASE {database} SET default_transaction_read_only = on;

-- name: is_closed
-- Whether that was done before.
SELECT EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                WHERE d.datname = current_database() AND s.setrole = 0 AND 'default_transaction_read_only=on' = ANY (s.setconfig));

-- name: this_moment
-- The server's time.
SELECT clock_timestamp();

-- name: earlier_sessions
-- Programs with a name like `like`, but not `but`, that have another session in this database, which began up to a moment. Of other roles'
-- sessions the begin may be hidden.
SELECT DISTINCT application_name FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE %(like)s AND application_name <> %(but)s
   AND (backend_start <= %(moment)s) IS NOT FALSE
 ORDER BY 1;

-- name: open_database
-- Undoes that.
ALTER DATABASE {database} RESET default_transaction_read_only;

-- name: lease_holder
-- The node that had shards when the backup was made, and until when, at least; a supervisor that is stopped gives them back.
SELECT coalesce(n.name || ' on host ' || n.host, l.node_id), l.expires_at
  FROM shardd.leases l LEFT JOIN shardd.nodes n ON n.id = l.node_id ORDER BY l.expires_at DESC LIMIT 1;

-- name: earlier_run
-- The node of a state folder, if another run was its last one when the backup was made. No row: the same one, or there was no such node.
SELECT 1 FROM shardd.nodes WHERE id = %(id)s AND incarnation <> %(incarnation)s;

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
