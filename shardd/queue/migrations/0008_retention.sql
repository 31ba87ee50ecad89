-- Retention: finished jobs are kept for a configured time, then deleted a month at a time.

CREATE INDEX dedupe_keys_age ON shardd.dedupe_keys (created_at, key, producer);

-- Deletes the oldest month of the archive that ended before `before` and has something to delete; returns no row when there is none.
-- Some jobs stay however old they are: a job in doubt waits for an operator, and jobs of an order group wait behind its unsent job. A
-- month is dropped as a whole and those rows are written again, because deleting millions of rows would take hours of writing and leave
-- their space unused. It waits a second for its lock at most, because settlements wait behind it.
CREATE FUNCTION shardd.forget_month(before timestamptz) RETURNS TABLE (month text, jobs bigint, kept bigint)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stays CONSTANT text := 'a.order_group IS NOT NULL AND a.state NOT IN (''sent'', ''in_doubt'') AND EXISTS '
        '(SELECT FROM shardd.jobs j WHERE j.producer = a.producer AND j.order_group = a.order_group AND j.held)';
    old   record;
    found boolean;
BEGIN
    FOR old IN
        SELECT c.relname AS name, c.reltuples::bigint AS rows, to_date(right(c.relname, 7), 'YYYY_MM') AS first
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'shardd.archive'::regclass AND c.relname ~ '^archive_[0-9]{4}_[0-9]{2}$'
         ORDER BY c.relname
    LOOP
        EXIT WHEN (old.first + interval '1 month') AT TIME ZONE 'UTC' > before;
        EXECUTE format('SELECT EXISTS (SELECT FROM shardd.%I a WHERE a.state <> ''in_doubt'' AND NOT (%s))
                            OR NOT EXISTS (SELECT FROM shardd.%1$I)', old.name, stays) INTO found;
        CONTINUE WHEN NOT found;

        PERFORM set_config('lock_timeout', '1s', true);
        LOCK TABLE shardd.archive IN ACCESS EXCLUSIVE MODE;
        month := replace(right(old.name, 7), '_', '-');
        IF old.rows < 0 THEN
            EXECUTE format('SELECT count(*) FROM shardd.%I', old.name) INTO old.rows;
        END IF;
        CREATE TABLE shardd.archive_kept (LIKE shardd.archive INCLUDING ALL);
        REVOKE ALL ON TYPE shardd.archive_kept FROM PUBLIC;
        EXECUTE format('INSERT INTO shardd.archive_kept
                            SELECT * FROM shardd.%I a WHERE a.state = ''in_doubt''
                            UNION ALL SELECT * FROM shardd.%1$I a WHERE %s', old.name, stays);
        GET DIAGNOSTICS kept = ROW_COUNT;
        jobs := greatest(old.rows - kept, 0);
        EXECUTE format('ALTER TABLE shardd.archive DETACH PARTITION shardd.%I', old.name);
        EXECUTE format('DROP TABLE shardd.%I', old.name);
        IF kept = 0 THEN
            DROP TABLE shardd.archive_kept;
        ELSE
            EXECUTE format('ALTER TABLE shardd.archive_kept RENAME TO %I', old.name);
            EXECUTE format('ALTER TABLE shardd.archive ATTACH PARTITION shardd.%I FOR VALUES FROM (%L) TO (%L)', old.name,
                old.first || ' 00:00:00+00', (old.first + interval '1 month')::date || ' 00:00:00+00');
        END IF;
        RETURN NEXT;
        RETURN;
    END LOOP;
END $$;
