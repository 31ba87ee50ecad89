-- What every connection to the database needs, once it is made (`shardd/postgres/session.sql`).

-- name: connection_limit
-- How many connections the server allows to all its clients.
SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer;

-- name: plan_for_values
-- For this transaction: plans are made for the values at hand, so that a filter that is NULL costs nothing and a state that
-- finished jobs cannot have keeps the archive out.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);
