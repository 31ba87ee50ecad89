-- Messages between being read and being inserted, in the order in which they are inserted. `job` NULL: one that was not sent.
CREATE TABLE spool (
    order_group TEXT NOT NULL, place REAL NOT NULL, run_at TEXT NOT NULL, old_id TEXT NOT NULL, job BLOB
)
