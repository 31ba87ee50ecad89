-- The messages between the old system and the queue, in SQLite.

-- name: spool_add
-- One message.
INSERT INTO spool (order_group, place, run_at, old_id, job) VALUES (?, ?, ?, ?, ?);

-- name: spool_create
-- Messages between being read and being inserted, in the order in which they are inserted. `job` NULL: one that was not sent.
CREATE TABLE spool (
    order_group TEXT NOT NULL, place REAL NOT NULL, run_at TEXT NOT NULL, old_id TEXT NOT NULL, job BLOB
);

-- name: spool_read
-- First those of no order group, as they are due; then one group after the other. Numbers that are ids sort as numbers.
SELECT order_group, job FROM spool ORDER BY order_group, place, run_at, length(old_id), old_id;
