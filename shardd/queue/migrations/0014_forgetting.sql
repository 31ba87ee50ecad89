-- Forgetting a person: what is stored of them is erased, and pseudonyms of their addresses go on stopping messages. First the pseudonyms
-- are stored; then large tables are read in parts, each in a transaction of its own; last goes what connects the addresses of a person.
-- So it may be interrupted anywhere and repeated, which erases what is left and what came since.

-- The digits by which texts may name these persons: their addresses, the other forms of their numbers, and both with the 0 that is dialled
-- within a country. `local_codes`: calling codes of which numbers may lack the code (and the 0); NULL: all that remain long enough to be
-- recognised.
CREATE FUNCTION shardd.spellings(addresses text[], local_codes text[] DEFAULT '{}') RETURNS text[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH given AS (
        SELECT address FROM unnest(addresses) address
        UNION SELECT n.address FROM unnest(addresses) address CROSS JOIN LATERAL shardd.read_number(address) n WHERE n.address IS NOT NULL
    ), numbers AS (
        SELECT c.*, substr(g.address, length(c.code) + 1) AS local
          FROM given g JOIN shardd.country_codes c ON c.code IN (left(g.address, 1), left(g.address, 2), left(g.address, 3))
         WHERE g.address ~ '^[0-9]+$'
    ), forms AS (
        SELECT code, local FROM numbers
        UNION
        -- What read_number makes this address of, for all digits that it may have cut.
        SELECT code, other
          FROM numbers
         CROSS JOIN LATERAL generate_series(0, (10 ^ form_cut)::integer - 1) AS was
         CROSS JOIN LATERAL (SELECT left(local, form_at) || CASE WHEN form_cut > 0 THEN lpad(was::text, form_cut, '0') ELSE '' END
                                    || substr(local, form_at + length(form_add) + 1)) AS e(other)
         WHERE substr(local, form_at + 1, length(form_add)) = form_add AND other ~ form
        UNION
        -- Mobile numbers of Argentina as they are dialled there: 15 after the area code, which has two to four digits.
        SELECT code, substr(local, 2, area) || '15' || substr(local, 2 + area) FROM numbers CROSS JOIN generate_series(2, 4) area
         WHERE code = '54' AND local ~ '^9[0-9]{10}$'
    )
    SELECT coalesce(array_agg(DISTINCT spelling), '{}')
      FROM (SELECT split_part(address, '@', 1) FROM given
            UNION ALL SELECT code || local FROM forms
            UNION ALL SELECT code || '0' || local FROM forms
            UNION ALL SELECT local FROM forms WHERE CASE WHEN local_codes IS NULL THEN length(local) >= 6 ELSE code = ANY (local_codes) END
           ) AS e(spelling)
$$;

-- Whether a text has one of these spellings in it as it is written here; in a short one, whatever separates the digits.
CREATE FUNCTION shardd.names_one_of(words text, spellings text[]) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN EXISTS (SELECT FROM (SELECT CASE WHEN length(words) <= 200 THEN regexp_replace(words, '[^0-9]', '', 'g') END) AS e(digits)
                    CROSS JOIN unnest(spellings) spelling WHERE strpos(words, spelling) > 0 OR strpos(digits, spelling) > 0);

-- Whether a recipient, as it was written, is one of these spellings.
CREATE FUNCTION shardd.is_one_of(recipient text, spellings text[]) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN split_part(recipient, '@', 1) = ANY (spellings)
        OR ltrim(regexp_replace(regexp_replace(recipient, '([.:][0-9]+)*@.*$', ''), '[^0-9]', '', 'g'), '0') = ANY (spellings);

-- What remains of a new job for a person who is forgotten: that there was one, of which device and campaign. Of the producer's keys, those
-- without the number in them.
CREATE FUNCTION shardd.without_person(job shardd.jobs) RETURNS shardd.jobs
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    theirs text[] := shardd.spellings(array[job.address, coalesce(job.number, job.address)], NULL);
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
    job.reference := CASE WHEN NOT shardd.names_one_of(job.reference, theirs) THEN job.reference END;
    job.dedupe_key := CASE WHEN NOT shardd.names_one_of(job.dedupe_key, theirs) THEN job.dedupe_key END;
    job.order_group := CASE WHEN NOT shardd.names_one_of(job.order_group, theirs) THEN job.order_group END;
    RETURN job;
END $$;

-- People whose rows are being erased. A row is deleted with the last of them, so one that stays is the work of a command that was
-- interrupted: the next one continues it.
CREATE TABLE shardd.forgetting (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    addresses  text[] NOT NULL,            -- all that were known: some rows that connect them may be erased already
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    touched_at timestamptz NOT NULL DEFAULT now()  -- when a command last worked on it
);

-- Which of the next `most` messages after an id these persons wrote, and all their addresses there: the inbox may know addresses that the
-- map does not. `last`: where to continue; NULL: there are no more.
CREATE FUNCTION shardd.messages_of(addresses text[], after bigint, most integer,
                                   OUT ids bigint[], OUT theirs text[], OUT last bigint, OUT looked bigint)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH part AS MATERIALIZED (
        SELECT m.id, m.sender, m.number, m.lid FROM shardd.messages m WHERE m.id > after ORDER BY m.id LIMIT most
    ), found AS (
        SELECT p.id, p.lid, coalesce((shardd.read_number(ltrim(p.number, '+'))).address, p.sender) AS person
          FROM part p
         -- A number and its address end in the same digits: all others need not be read.
         WHERE p.lid = ANY (addresses) OR p.sender = ANY (addresses)
            OR right(p.number, 4) = ANY (array(SELECT right(address, 4) FROM unnest(addresses) address))
    ), written AS (
        SELECT * FROM found WHERE lid = ANY (addresses) OR person = ANY (addresses)
    )
    SELECT (SELECT coalesce(array_agg(id), '{}') FROM written),
           array(SELECT DISTINCT e.address FROM written w CROSS JOIN unnest(array[w.person, w.lid]) AS e(address) WHERE e.address <> ''),
           (SELECT max(id) FROM part), (SELECT count(*) FROM part)
$$;

-- Addresses of people whose erasure did not end, and who have not taken it back.
CREATE FUNCTION shardd.unfinished_addresses() RETURNS text[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(DISTINCT e.address), '{}') FROM shardd.forgetting f CROSS JOIN unnest(f.addresses) AS e(address)
     WHERE shardd.is_forgotten(e.address)
$$;

-- From now on, nothing is sent to these addresses, and nothing new is stored of them. `unfinished`: addresses of earlier runs, which this
-- one takes over. Returns the id of the run.
CREATE FUNCTION shardd.begin_forgetting(addresses text[], unfinished text[], by_whom text) RETURNS bigint
    LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO shardd.pseudonym_key (inside, outside)
    SELECT string_agg(block, '') FILTER (WHERE place <= 2), string_agg(block, '') FILTER (WHERE place > 2)
      FROM (SELECT place, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) AS block FROM generate_series(1, 4) place) random
    ON CONFLICT DO NOTHING;
    -- The last one represents all whose rows are erased: they are not sent again.
    INSERT INTO shardd.forgotten (pseudonym, created_by)
    SELECT shardd.pseudonym(address), by_whom FROM unnest(addresses || array['forgotten']) address ORDER BY 1
    ON CONFLICT DO NOTHING;
    DELETE FROM shardd.forgetting f WHERE f.addresses <@ (begin_forgetting.addresses || unfinished);
    INSERT INTO shardd.forgetting (addresses, created_by) VALUES (addresses || unfinished, by_whom) RETURNING id;
$$;

-- Erases the persons with these addresses from the next `most` events after a position. `jobs`: those that were for them. The events stay,
-- so that readers find what they expect. `last_xid` is NULL when there are no more.
CREATE FUNCTION shardd.erase_events(addresses text[], jobs bigint[], after_xid xid8, after_id bigint, most integer,
                                    OUT last_xid xid8, OUT last_id bigint, OUT looked bigint, OUT erased bigint)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    anywhere   text[] := shardd.spellings(addresses);
    recipients text[] := shardd.spellings(addresses, shardd.codes_of_opt_out());
    in_keys    text[] := shardd.spellings(addresses, NULL);
    -- What the functions may find: they are called for few rows, because a call costs more than everything else here.
    pattern       text := array_to_string(anywhere, '|');
    of_recipients text := array_to_string(recipients, '|');
BEGIN
    SELECT p.xid, p.id, p.looked INTO last_xid, last_id, looked
      FROM (SELECT e.xid, e.id, count(*) OVER () AS looked
              FROM (SELECT o.xid, o.id FROM shardd.outbox o WHERE (o.xid, o.id) > (after_xid, after_id) ORDER BY o.xid, o.id LIMIT most) e) p
     ORDER BY p.xid DESC, p.id DESC LIMIT 1;
    PERFORM set_config('shardd.maintains_outbox', 'yes', true);
    UPDATE shardd.outbox o
       SET recipient = CASE WHEN o.job_id IS NOT NULL THEN 'forgotten' END, metadata = NULL, message_id = NULL,
           reference = CASE WHEN NOT shardd.names_one_of(o.reference, in_keys) THEN o.reference END,
           error = CASE WHEN shardd.names_one_of(o.error, in_keys) THEN 'forgotten' ELSE o.error END,
           detail = CASE WHEN o.kind = 'device.state' THEN o.detail || '{"reason": "forgotten"}'
                         WHEN o.job_id IS NULL THEN jsonb_build_object('device_id', o.device_id, 'forgotten', true) END
     WHERE (o.xid, o.id) > (after_xid, after_id) AND (o.xid, o.id) <= (last_xid, last_id)
       AND CASE WHEN o.job_id IS NOT NULL
                THEN o.recipient IS DISTINCT FROM 'forgotten'
                     AND (o.job_id = ANY (jobs) OR (o.recipient ~ of_recipients OR o.recipient ~ '[0-9][^0-9]+[0-9]')
                                                   AND shardd.is_one_of(o.recipient, recipients))
                WHEN o.kind IN ('message.received', 'message.media', 'opt_out.taken_back')
                THEN (o.detail::text ~ pattern OR length(o.detail::text) <= 200) AND shardd.names_one_of(o.detail::text, anywhere)
                WHEN o.kind = 'device.state' THEN shardd.names_one_of(o.detail ->> 'reason', anywhere) END;
    GET DIAGNOSTICS erased = ROW_COUNT;
    PERFORM set_config('shardd.maintains_outbox', '', true);
END $$;

-- What the list, its log, the map of addresses, the contacts of device groups and the states of devices know of these persons; of who took it back meanwhile,
-- nothing is erased. The run ends. Returns how many rows.
CREATE FUNCTION shardd.finish_forgetting(run bigint, given text[]) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    addresses text[] := array(SELECT address FROM unnest(given) address WHERE shardd.is_forgotten(address));
    spellings text[] := shardd.spellings(addresses);
    entries   bigint := 0;
    counted   bigint;
BEGIN
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
    -- One probe of the index for each group and address.
    DELETE FROM shardd.contacts c USING shardd.device_groups g WHERE c.device_group = g.id AND c.address = ANY (addresses);
    GET DIAGNOSTICS counted = ROW_COUNT;
    entries := entries + counted;
    UPDATE shardd.devices d
       SET reason = CASE WHEN shardd.names_one_of(d.reason, spellings) THEN 'forgotten' ELSE d.reason END,
           backoff_reason = CASE WHEN shardd.names_one_of(d.backoff_reason, spellings) THEN 'forgotten' ELSE d.backoff_reason END,
           paused_why = CASE WHEN shardd.names_one_of(d.paused_why, spellings) THEN 'forgotten' ELSE d.paused_why END
     WHERE shardd.names_one_of(d.reason, spellings) OR shardd.names_one_of(d.backoff_reason, spellings)
        OR shardd.names_one_of(d.paused_why, spellings);
    GET DIAGNOSTICS counted = ROW_COUNT;
    DELETE FROM shardd.forgetting f WHERE f.id = run;
    RETURN entries + counted;
END $$;

-- Erases the persons with these addresses from finished jobs that were for them, and from what producers named after them. Message ids go,
-- too: those of the Cloud API have the number in them. Returns how many jobs.
CREATE FUNCTION shardd.erase_jobs(addresses text[], jobs bigint[]) RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH theirs AS MATERIALIZED (
        SELECT shardd.spellings(addresses, NULL) AS spellings
    ), found AS MATERIALIZED (
        SELECT a.id, a.dedupe_key, a.order_group, a.producer, t.spellings FROM shardd.archive a CROSS JOIN theirs t WHERE a.id = ANY (jobs)
    ), keys AS (
        DELETE FROM shardd.dedupe_keys k USING found f
         WHERE k.key = f.dedupe_key AND k.producer = f.producer AND shardd.names_one_of(k.key, f.spellings)
    ), groups AS (
        DELETE FROM shardd.order_groups g USING found f
         WHERE g.name = f.order_group AND g.producer = f.producer AND shardd.names_one_of(g.name, f.spellings)
    ), scrubbed AS (
        UPDATE shardd.archive a
           SET recipient = 'forgotten', address = 'forgotten', number = NULL, body = 'forgotten', variables = NULL, media = NULL,
               file_name = NULL, details = NULL, quote = NULL, metadata = NULL, message_id = NULL, unreadable_why = NULL,
               reference = CASE WHEN NOT shardd.names_one_of(a.reference, f.spellings) THEN a.reference END,
               dedupe_key = CASE WHEN NOT shardd.names_one_of(a.dedupe_key, f.spellings) THEN a.dedupe_key END,
               order_group = CASE WHEN NOT shardd.names_one_of(a.order_group, f.spellings) THEN a.order_group END,
               error = CASE WHEN shardd.names_one_of(a.error, f.spellings) THEN 'forgotten' ELSE a.error END
          FROM found f WHERE a.id = f.id
        RETURNING 1
    )
    SELECT count(*) FROM scrubbed
$$;

-- Erases what these persons wrote from the jobs that quote it, which are for a group; those that are not sent yet are sent without the
-- quote. Returns how many.
CREATE FUNCTION shardd.erase_quotes(addresses text[]) RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH senders AS MATERIALIZED (
        SELECT array_agg('+' || spelling) || addresses AS written FROM unnest(shardd.spellings(addresses)) spelling
    ), waiting AS (
        UPDATE shardd.jobs j SET quote = '{}' FROM senders s WHERE j.quote ->> 'sender' = ANY (s.written) AND j.quote IS NOT NULL RETURNING 1
    ), finished AS (
        UPDATE shardd.archive a SET quote = '{}' FROM senders s WHERE a.quote ->> 'sender' = ANY (s.written) AND a.quote IS NOT NULL RETURNING 1
    )
    SELECT (SELECT count(*) FROM waiting) + (SELECT count(*) FROM finished)
$$;
