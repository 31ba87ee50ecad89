-- Reading the old system in MySQL or MariaDB.

-- name: mysql_columns
-- The columns of a table or view of this database, with their types; no row: there is none.
SELECT column_name, data_type FROM information_schema.columns
 WHERE table_schema = database() AND table_name = %s
 ORDER BY ordinal_position;

-- name: mysql_rows
-- Its rows; names are quoted by the caller.
SELECT {columns} FROM {table};

-- name: mysql_session
-- Moments (TIMESTAMP) are written in UTC.
SET SESSION time_zone = '+00:00';

-- name: mysql_snapshot
-- All tables as they are at this moment; changes nothing.
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;
