-- The columns of a table or view, where this connection looks for it; no row: there is none.
SELECT attname::text FROM pg_catalog.pg_attribute
 WHERE attrelid = pg_catalog.to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped
 ORDER BY attnum
