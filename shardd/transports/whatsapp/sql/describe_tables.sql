-- The library's tables where this connection looks for them: their columns in order, and the one that names the session
-- (NULL for tables that belong to none). The sessions' own table comes first, since others refer to it.
SELECT table_name,
       max(column_name) FILTER (WHERE column_name IN ('jid', 'our_jid')) AS session_column,
       array_agg(column_name::text ORDER BY ordinal_position) AS columns
FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name LIKE 'whatsmeow\_%'
GROUP BY table_name
ORDER BY table_name <> 'whatsmeow_device', table_name
