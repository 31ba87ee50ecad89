-- Creating the session store, once, before any worker starts.

-- name: search_path
-- The search path of this connection, and its first schema that exists.
SELECT current_setting('search_path') AS search_path, current_schema() AS current_schema;

-- name: create_schema
-- The store's own schema. No other role gets anything on it: its tables hold the keys of every account.
CREATE SCHEMA {schema};

-- name: close_schema
-- In case default privileges opened it.
REVOKE ALL ON SCHEMA {schema} FROM PUBLIC;

-- name: create_lock
-- Locked while the store's tables are created; it has no rows.
CREATE TABLE IF NOT EXISTS shardd_setup ();

-- name: lock_store
-- One creator at a time. Held until the end of the transaction, so that it works through PgBouncer; a table's lock, because only
-- its owner can take it.
LOCK TABLE shardd_setup IN ACCESS EXCLUSIVE MODE;

-- name: has_tables
-- Whether the library's tables are on the search path of this connection.
SELECT to_regclass('whatsmeow_device') IS NOT NULL AS found;
