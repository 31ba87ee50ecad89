-- What a connection needs to know of its server, and its settings. Names are qualified and operators avoided: until the settings
-- are applied, an unqualified name may resolve to an object of another role.

-- name: describe_connection
-- The process of the backend, and what decides whether this connection can be used.
SELECT pg_catalog.pg_backend_pid(),
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('transaction_read_only'),
       pg_catalog.current_setting('session_replication_role');

-- name: identify_server
-- The identifier of the cluster, and its timeline in hexadecimal, which grows with each promotion. Works on a primary only.
SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()),
       pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8);

-- name: apply_settings
-- In one round trip, in this order. They are set here and not in the connection string because PgBouncer refuses options there.
-- A server that acknowledges commits before they are durable could lose a claim whose message was sent, so that is turned off.
-- `local`: until the end of this transaction only, because another client may use this server connection after it.
SELECT pg_catalog.set_config(setting.name, setting.value, %(local)s)
  FROM ROWS FROM (pg_catalog.unnest(%(names)s::pg_catalog.text[]), pg_catalog.unnest(%(values)s::pg_catalog.text[]))
    AS setting (name, value)
UNION ALL
SELECT pg_catalog.set_config('synchronous_commit', 'on', %(local)s)
 WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off';

-- name: describe_blockers
-- The sessions that keep the backend `pid` waiting for a lock, those first that do not wait themselves. A prepared transaction has no
-- session, and is 0 here. NULL means hidden from this login.
SELECT b.pid, a.datname, a.usename, a.application_name, pg_catalog.host(a.client_addr), a.state,
       EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.xact_start)::pg_catalog.float8
  FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(%(pid)s)) AS b (pid)
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) b.pid
 ORDER BY a.wait_event_type IS NOT DISTINCT FROM 'Lock', a.xact_start;

-- name: listen
-- Starts listening; {channel} is filled in as an identifier.
LISTEN {channel};

-- name: unlisten
-- Stops listening.
UNLISTEN {channel};

-- name: notify
-- Returns the process that notified.
SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_notify(%(channel)s, '');
