-- Sorting of messages in a temporary SQLite database.

-- name: spool_add
-- One message.
INSERT INTO spool (order_group, place, run_at, old_id, job) VALUES (?, ?, ?, ?, ?);

-- name: spool_create
-- The messages; `job` is NULL for one that was not sent.
CREATE TABLE spool (
    order_group TEXT NOT NULL, place REAL NOT NULL, run_at TEXT NOT NULL, old_id TEXT NOT NULL, job BLOB
);

-- name: spool_read
-- First the messages without an order group, by time; then group by group. Numeric ids sort as numbers.
SELECT order_group, job FROM spool ORDER BY order_group, place, run_at, length(old_id), old_id;
