-- One at a time makes the tables. Held until the end of the transaction, so that it also holds through PgBouncer.
SELECT pg_advisory_xact_lock(hashtext('shardd session store'))
