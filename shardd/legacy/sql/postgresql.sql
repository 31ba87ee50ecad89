-- Reading the old system in PostgreSQL.

-- name: postgresql_columns
-- The columns of a table or view in the search path; no row: it does not exist.
SELECT attname::text FROM pg_catalog.pg_attribute
 WHERE attrelid = pg_catalog.to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped
 ORDER BY attnum;

-- name: postgresql_rows
-- Its rows; every column is cast to text.
SELECT {columns} FROM {table};

-- name: postgresql_session
-- Write times in ISO style in UTC, whatever the settings of the role or the database.
SELECT set_config('TimeZone', 'UTC', false), set_config('DateStyle', 'ISO', false), set_config('bytea_output', 'hex', false);
