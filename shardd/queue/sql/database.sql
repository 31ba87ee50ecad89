-- What every connection to the database needs.

-- name: prepare_connection
-- Settings of a new connection, in one round trip. They are set here and not in the connection string because PgBouncer
-- refuses options there. Plans are generic because the router's statements carry arrays whose sizes differ at each call.
-- A server that acknowledges commits before they are durable could forget a claim whose message has left: not for us.
SELECT set_config('statement_timeout', %(statement_timeout)s, false),
       set_config('idle_in_transaction_session_timeout', %(idle_timeout)s, false),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('jit', 'off', false),
       set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') = 'off' THEN 'on'
                                             ELSE current_setting('synchronous_commit') END, false),
       set_config('timezone', 'UTC', false);

-- name: is_answering
-- The cheapest question that proves a server at the other end.
SELECT 1;

-- name: listen
-- {channel} is filled in as an identifier.
LISTEN {channel};

-- name: connection_limit
-- How many connections the server allows to all its clients.
SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer;

-- name: plan_for_values
-- For this transaction: plans are made for the values at hand, so that a filter that is NULL costs nothing and a state that
-- finished jobs cannot have keeps the archive out.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);
