-- Forgetting a person: what is stored of them is erased, and pseudonyms of their addresses go on stopping messages. Everything here can be
-- repeated, and erases what came since.

-- Whether a short text has one of these addresses in it, or a long one has one of them as it is written here.
CREATE FUNCTION shardd.names_one_of(words text, addresses text[]) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN EXISTS (SELECT FROM unnest(addresses) address
                    WHERE strpos(words, split_part(address, '@', 1)) > 0
                       OR length(words) <= 200 AND strpos(regexp_replace(words, '[^0-9]', '', 'g'), split_part(address, '@', 1)) > 0);

-- What remains of a new job for a person who is forgotten: that there was one, of which device and campaign. Of the producer's keys, those
-- without the number in them.
CREATE FUNCTION shardd.without_person(job shardd.jobs) RETURNS shardd.jobs
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    addresses text[] := array[job.address, coalesce(job.number, job.address)];
BEGIN
    job.recipient := 'forgotten';
    job.address := 'forgotten';
    job.number := NULL;
    job.body := 'forgotten';
    job.variables := NULL;
    job.media := NULL;
    job.file_name := NULL;
    job.details := NULL;
    job.quote := NULL;
    job.metadata := NULL;
    job.reference := CASE WHEN NOT shardd.names_one_of(job.reference, addresses) THEN job.reference END;
    job.dedupe_key := CASE WHEN NOT shardd.names_one_of(job.dedupe_key, addresses) THEN job.dedupe_key END;
    job.order_group := CASE WHEN NOT shardd.names_one_of(job.order_group, addresses) THEN job.order_group END;
    RETURN job;
END $$;

-- From now on, nothing is sent to these addresses, and no more is known of them by the list, the map of addresses and the inbox. Jobs that
-- are in flight go on; jobs that wait end as opted_out. Returns all addresses that are known of these persons, and how many rows went.
CREATE FUNCTION shardd.forget(given text[], by_whom text, OUT addresses text[], OUT entries bigint, OUT messages bigint, OUT ended bigint)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    counted bigint;
    written bigint[];
    more    text[];
BEGIN
    INSERT INTO shardd.pseudonym_key (inside, outside)
    SELECT string_agg(block, '') FILTER (WHERE place <= 2), string_agg(block, '') FILTER (WHERE place > 2)
      FROM (SELECT place, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) AS block FROM generate_series(1, 4) place) random
    ON CONFLICT DO NOTHING;

    -- The inbox may know addresses that the map does not.
    addresses := shardd.all_addresses(given);
    LOOP
        SELECT array_agg(m.id), array_agg(m.person) || array_agg(m.lid) INTO written, more
          FROM (SELECT m.id, m.lid, coalesce((shardd.read_number(ltrim(m.number, '+'))).address, m.sender) AS person
                  FROM shardd.messages m) m
         WHERE m.lid = ANY (addresses) OR m.person = ANY (addresses);
        more := shardd.all_addresses(addresses || array_remove(array_remove(more, NULL), ''));
        EXIT WHEN more = addresses;
        addresses := more;
    END LOOP;
    -- The last one represents all whose rows are erased: they are not sent again.
    INSERT INTO shardd.forgotten (pseudonym, created_by)
    SELECT shardd.pseudonym(address), by_whom FROM unnest(addresses || array['forgotten']) address
    ON CONFLICT DO NOTHING;

    ended := (SELECT count(*) FROM shardd.end_jobs(
        array(SELECT j.id FROM shardd.jobs j WHERE j.address = ANY (addresses) AND j.claimed_epoch IS NULL),
        'opted_out', 'the recipient opted out', 'opted_out'));

    PERFORM set_config('shardd.maintains_opt_outs', 'yes', true);
    DELETE FROM shardd.opt_outs o WHERE o.address = ANY (addresses);
    GET DIAGNOSTICS entries = ROW_COUNT;
    DELETE FROM shardd.opt_out_log l WHERE l.address = ANY (addresses);
    GET DIAGNOSTICS counted = ROW_COUNT;
    entries := entries + counted;
    PERFORM set_config('shardd.maintains_opt_outs', '', true);
    DELETE FROM shardd.same_person s WHERE s.address = ANY (addresses) OR s.other = ANY (addresses);
    GET DIAGNOSTICS counted = ROW_COUNT;
    entries := entries + counted;
    DELETE FROM shardd.contacts c WHERE c.address = ANY (addresses);
    GET DIAGNOSTICS counted = ROW_COUNT;
    entries := entries + counted;
    DELETE FROM shardd.messages m WHERE m.id = ANY (written);
    GET DIAGNOSTICS messages = ROW_COUNT;
END $$;

-- Erases the persons with these addresses from events. `jobs`: those that were for them. The events stay, so that readers find what they
-- expect; what a webhook did not accept goes. Returns how many.
CREATE FUNCTION shardd.erase_events(addresses text[], jobs bigint[]) RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    erased bigint;
    failed bigint;
BEGIN
    PERFORM set_config('shardd.maintains_outbox', 'yes', true);
    UPDATE shardd.outbox o
       SET recipient = CASE WHEN o.job_id IS NOT NULL THEN 'forgotten' END, metadata = NULL, message_id = NULL,
           reference = CASE WHEN NOT shardd.names_one_of(o.reference, addresses) THEN o.reference END,
           error = CASE WHEN shardd.names_one_of(o.error, addresses) THEN 'forgotten' ELSE o.error END,
           detail = CASE WHEN o.job_id IS NULL THEN jsonb_build_object('device_id', o.device_id, 'forgotten', true) END
     WHERE CASE WHEN o.job_id IS NOT NULL THEN o.job_id = ANY (jobs) OR shardd.names_one_of(o.recipient, addresses)
                WHEN o.kind IN ('message.received', 'opt_out.taken_back') THEN shardd.names_one_of(o.detail::text, addresses) END;
    GET DIAGNOSTICS erased = ROW_COUNT;
    PERFORM set_config('shardd.maintains_outbox', '', true);
    DELETE FROM shardd.webhook_failures f
     WHERE shardd.names_one_of(f.body, addresses) OR (f.body::jsonb #>> '{data,job_id}')::bigint = ANY (jobs);
    GET DIAGNOSTICS failed = ROW_COUNT;
    RETURN erased + failed;
END $$;

-- Erases the persons with these addresses from finished jobs that were for them, and from what producers named after them. Message ids go,
-- too: those of the Cloud API have the number in them. Returns how many jobs.
CREATE FUNCTION shardd.erase_jobs(addresses text[], jobs bigint[]) RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH found AS MATERIALIZED (
        SELECT a.id, a.dedupe_key, a.order_group, a.producer FROM shardd.archive a WHERE a.id = ANY (jobs)
    ), keys AS (
        DELETE FROM shardd.dedupe_keys k USING found f
         WHERE k.key = f.dedupe_key AND k.producer = f.producer AND shardd.names_one_of(k.key, addresses)
    ), groups AS (
        DELETE FROM shardd.order_groups g USING found f
         WHERE g.name = f.order_group AND g.producer = f.producer AND shardd.names_one_of(g.name, addresses)
    ), scrubbed AS (
        UPDATE shardd.archive a
           SET recipient = 'forgotten', address = 'forgotten', number = NULL, body = 'forgotten', variables = NULL, media = NULL,
               file_name = NULL, details = NULL, quote = NULL, metadata = NULL, message_id = NULL, unreadable_why = NULL,
               reference = CASE WHEN NOT shardd.names_one_of(a.reference, addresses) THEN a.reference END,
               dedupe_key = CASE WHEN NOT shardd.names_one_of(a.dedupe_key, addresses) THEN a.dedupe_key END,
               order_group = CASE WHEN NOT shardd.names_one_of(a.order_group, addresses) THEN a.order_group END,
               error = CASE WHEN shardd.names_one_of(a.error, addresses) THEN 'forgotten' ELSE a.error END
          FROM found f WHERE a.id = f.id
        RETURNING 1
    )
    SELECT count(*) FROM scrubbed
$$;
