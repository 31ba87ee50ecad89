-- First those of no order group, as they are due; then one group after the other. Numbers that are ids sort as numbers.
SELECT order_group, job FROM spool ORDER BY order_group, place, run_at, length(old_id), old_id
