-- What is asked of the server itself: how statements are planned, and the resources that all its sessions share and any of them can
-- use up, whatever its rights: connections, the lock table and the notification queue.

-- name: plan_for_values
-- For this transaction: statements are planned for their parameters, so that a filter that is NULL costs nothing, and a state that
-- finished jobs cannot have excludes the archive.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);

-- name: lock_use
-- How many locks fit into the server's lock table at least (PostgreSQL's documentation, max_locks_per_transaction; a little more memory
-- is shared with other tables), how many it contains, and the process with the most of them, and their number; no pid: prepared
-- transactions. Nothing while the table is less than `share` full. Needs no lock itself, as reading a shared catalogue would.
SELECT t.room, t.locks, t.pid, t.held
  FROM (SELECT current_setting('max_locks_per_transaction')::integer
               * (current_setting('max_connections')::integer + current_setting('max_prepared_transactions')::integer
                  + coalesce(current_setting('autovacuum_worker_slots', true), current_setting('autovacuum_max_workers'))::integer + 1
                  + current_setting('max_worker_processes')::integer + current_setting('max_wal_senders')::integer) AS room,
               (sum(count(*)) OVER ())::integer AS locks, l.pid, count(*)::integer AS held
          FROM pg_locks l WHERE NOT l.fastpath GROUP BY l.pid ORDER BY held DESC LIMIT 1) t
 WHERE t.locks >= %(share)s * t.room;

-- name: list_sessions
-- Every session: its process, and the oids of its role and its database. The view pg_stat_activity has the names, but needs locks for
-- them; this needs none once the connection has done it before.
SELECT a.pid, a.usesysid AS role, a.datid AS database FROM pg_stat_get_activity(NULL) a WHERE a.usesysid IS NOT NULL AND a.datid IS NOT NULL;

-- name: list_names
-- The names of all roles and databases of the server, by oid.
SELECT 'role' AS kind, oid, rolname::text AS name FROM pg_roles UNION ALL SELECT 'database', oid, datname::text FROM pg_database;

-- name: connection_room
-- How many connections all users without special rights may have together.
SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
       - coalesce(current_setting('reserved_connections', true)::integer, 0);

-- name: notification_use
-- How full the queue of notifications is: 0 to 1.
SELECT pg_notification_queue_usage();

-- name: probe_notification_queue
-- A notification on a channel without listeners. When the queue is more than half full, the server warns the notifier, every five seconds at most, and names the session that
-- has not read for the longest time.
SELECT pg_notify('shardd_nobody', '');

-- name: list_standbys
-- The standbys that are connected, and for how many seconds each has lacked something on its disk. `mode` is NULL for a user without the
-- rights of pg_monitor. A base backup is none. Needs no locks, as the view pg_stat_replication would.
SELECT a.application_name AS name, w.sync_state AS mode, coalesce(extract(epoch FROM w.flush_lag), 0)::float8 AS lag
  FROM pg_stat_get_wal_senders() w JOIN pg_stat_get_activity(NULL) a USING (pid)
 WHERE w.state IS DISTINCT FROM 'backup' ORDER BY a.application_name;

-- name: replication_settings
-- `waits`: for how many seconds the oldest commit of this user has waited for a synchronous standby; NULL: none does.
SELECT current_setting('synchronous_standby_names') AS names, current_setting('synchronous_commit') AS commit,
       (SELECT extract(epoch FROM max(clock_timestamp() - query_start))::float8
          FROM pg_stat_get_activity(NULL) WHERE wait_event_type = 'IPC' AND wait_event = 'SyncRep') AS waits;
