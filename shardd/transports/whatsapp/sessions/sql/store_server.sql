-- What is asked of the server of the session store, to reach it through a PgBouncer.

-- name: pooled_settings
-- The settings that this connection's DSN asks for, such as the search path, and of the wanted ones those that are set `always` or
-- that a new session would have otherwise.
SELECT s.name, coalesce(w.value, s.setting) AS value
  FROM pg_catalog.pg_settings s
  LEFT JOIN ROWS FROM (unnest(%(names)s::text[]), unnest(%(values)s::text[]), unnest(%(always)s::boolean[])) AS w (name, value, always)
         ON w.name = s.name
 WHERE CASE WHEN w.name IS NULL
            THEN s.source = 'client' AND s.context IN ('user', 'superuser')
                 AND s.name NOT IN ('application_name', 'client_encoding')
            ELSE w.always OR s.reset_val IS DISTINCT FROM w.value END
 ORDER BY s.name;

-- name: connection_budget
-- How many connections this login may have, less those that others have: the least of what the server, the role and the database
-- allow (the limits of role and database do not hold for superusers). Connections whose application has one of `names` are our own.
-- NULL fields of sessions belong to processes of the server.
SELECT least(
         current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
           - coalesce(current_setting('reserved_connections', true)::integer, 0) - count(o.pid),
         CASE WHEN r.rolconnlimit >= 0 AND NOT r.rolsuper
              THEN r.rolconnlimit - count(o.pid) FILTER (WHERE o.usesysid = r.oid) END,
         CASE WHEN d.datconnlimit >= 0 AND NOT r.rolsuper
              THEN d.datconnlimit - count(o.pid) FILTER (WHERE o.datid = d.oid) END)::integer AS free
  FROM pg_roles r
  JOIN pg_database d ON d.datname = current_database()
  LEFT JOIN pg_stat_get_activity(NULL) o
         ON o.usesysid IS NOT NULL AND o.datid IS NOT NULL AND o.application_name <> ALL (%(names)s::text[])
 WHERE r.rolname = current_user
 GROUP BY r.rolconnlimit, r.rolsuper, r.oid, d.datconnlimit, d.oid;
