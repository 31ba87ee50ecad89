-- One message.
INSERT INTO spool (order_group, place, run_at, old_id, job) VALUES (?, ?, ?, ?, ?)
