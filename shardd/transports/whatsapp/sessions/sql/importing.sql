-- Adopting the sessions of another whatsmeow store.

-- name: describe_tables
-- The library's tables where this connection looks for them: their columns in order, and the one that names the session
-- (NULL for tables that belong to none). The sessions' own table comes first, since others refer to it.
SELECT table_name,
       max(column_name) FILTER (WHERE column_name IN ('jid', 'our_jid')) AS session_column,
       array_agg(column_name::text ORDER BY ordinal_position) AS columns
FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name LIKE 'whatsmeow\_%'
GROUP BY table_name
ORDER BY table_name <> 'whatsmeow_device', table_name;

-- name: copy_sessions_out
-- Rows of one table that belong to these sessions.
COPY (SELECT {columns} FROM {table} WHERE {session_column} = ANY ({sessions})) TO STDOUT (FORMAT binary);

-- name: copy_rows_in
-- The same rows, into our table of that name.
COPY {table} ({columns}) FROM STDIN (FORMAT binary);

-- name: delete_rows
-- Rows of one table that belong to these sessions.
DELETE FROM {table} WHERE {session_column} = ANY ({sessions});

-- name: stage_numbers
-- Staging for the map of hidden ids, of which the target may have some already.
CREATE TEMPORARY TABLE imported_numbers (lid text, pn text) ON COMMIT DROP;

-- name: copy_numbers_out
-- The map of hidden ids to numbers, which is the same for every session.
COPY (SELECT lid, pn FROM whatsmeow_lid_map) TO STDOUT (FORMAT binary);

-- name: copy_numbers_in
-- Into the staging table.
COPY imported_numbers (lid, pn) FROM STDIN (FORMAT binary);

-- name: merge_numbers
-- Add the new ones.
INSERT INTO whatsmeow_lid_map (lid, pn) SELECT lid, pn FROM imported_numbers ON CONFLICT DO NOTHING;
