-- The columns of a table or view of this database, with their types; no row: there is none.
SELECT column_name, data_type FROM information_schema.columns
 WHERE table_schema = database() AND table_name = %s
 ORDER BY ordinal_position
