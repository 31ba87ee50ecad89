-- Reading the old system in MySQL or MariaDB.

-- name: mysql_columns
-- The columns of a table or view of this database, with their types; no row: it does not exist.
SELECT column_name, data_type FROM information_schema.columns
 WHERE table_schema = database() AND table_name = %s
 ORDER BY ordinal_position;

-- name: mysql_rows
-- Its rows; names are quoted by the caller.
SELECT {columns} FROM {table};

-- name: mysql_session
-- Write TIMESTAMP columns in UTC.
SET SESSION time_zone = '+00:00';

-- name: mysql_snapshot
-- One read-only snapshot of all tables.
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;
