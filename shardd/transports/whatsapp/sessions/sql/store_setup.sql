-- Making the session store, once, before any worker starts.

-- name: search_path
-- Where unqualified names lead in this connection, and whether any schema on that path is there.
SELECT current_setting('search_path') AS search_path, current_schema() AS current_schema;

-- name: create_schema
-- The store's own schema. No other role gets anything on it: its tables hold the keys of every account.
CREATE SCHEMA IF NOT EXISTS {schema};

-- name: close_schema
-- In case somebody opened it.
REVOKE ALL ON SCHEMA {schema} FROM PUBLIC;

-- name: create_lock
-- What whoever makes the store's tables locks; it holds nothing.
CREATE TABLE IF NOT EXISTS shardd_setup ();

-- name: lock_store
-- One at a time makes the tables. Held until the end of the transaction, so that it also holds through PgBouncer; of a table,
-- because only its owner can take it.
LOCK TABLE shardd_setup IN ACCESS EXCLUSIVE MODE;

-- name: has_tables
-- Whether the library's tables stand where this connection looks for them.
SELECT to_regclass('whatsmeow_device') IS NOT NULL AS found;
