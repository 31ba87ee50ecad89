-- One at a time makes the tables. Held until the end of the transaction, so that it also holds through PgBouncer; of a table,
-- because only its owner can take it.
LOCK TABLE shardd_setup IN ACCESS EXCLUSIVE MODE
