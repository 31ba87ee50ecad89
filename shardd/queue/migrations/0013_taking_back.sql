-- Taking opt-outs back: only by a message of the person, and all that stand for them at once.

-- The address of a person as WhatsApp or a platform names them, which is never refused.
CREATE FUNCTION shardd.heard_address(recipient text) RETURNS text LANGUAGE sql STABLE
    RETURN CASE WHEN recipient ~ '^\+[0-9]{1,40}$' THEN coalesce((shardd.read_number(substr(recipient, 2))).address, substr(recipient, 2))
                ELSE (shardd.resolve(recipient, array[''], 'opt_outs')).address END;

-- When a message was written. One that is in the inbox was written when it says there: the time of its repetition may be that of its arrival.
CREATE FUNCTION shardd.first_said(device_id text, message_id text, sender text, said_at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE
    RETURN least(said_at, (SELECT m.written_at FROM shardd.messages m WHERE m.device_id = first_said.device_id
                              AND m.message_id = first_said.message_id AND m.sender = first_said.sender));

-- These addresses, and all that are known to be of the same person.
CREATE FUNCTION shardd.all_addresses(addresses text[]) RETURNS text[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE person(address) AS (
        SELECT unnest(addresses)
        UNION
        SELECT e.address FROM person p
         CROSS JOIN LATERAL (SELECT s.other FROM shardd.same_person s WHERE s.address = p.address
                             UNION ALL SELECT s.address FROM shardd.same_person s WHERE s.other = p.address) AS e(address)
    )
    SELECT coalesce(array_agg(address ORDER BY address), '{}') FROM person
$$;

-- These addresses, from which somebody wrote, and those of which it is certain that they are the same person's. A number may be given to
-- somebody else, and a person may change theirs, so nothing is concluded from a number that a platform reported as changed, that has several
-- hidden ids, or whose hidden id was seen with another number later. A number under which WhatsApp's directory lists it is not another one.
CREATE FUNCTION shardd.own_addresses(heard text[]) RETURNS text[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE known AS MATERIALIZED (
        SELECT s.address, s.other, s.learned_at, s.moved, strpos(s.address, '@') > 0 AS hides, strpos(s.other, '@') > 0 AS other_hides
          FROM unnest(shardd.all_addresses(heard)) e(address) JOIN shardd.same_person s ON s.address = e.address
    ), numbers AS MATERIALIZED (
        SELECT e.number, e.hidden, max(e.at) AS at
          FROM (SELECT k.address, k.other, k.learned_at FROM known k WHERE NOT k.hides AND k.other_hides
                 UNION ALL SELECT k.other, k.address, k.learned_at FROM known k WHERE k.hides AND NOT k.other_hides
                 UNION ALL SELECT n, h, 'infinity' FROM unnest(heard) n CROSS JOIN unnest(heard) h
                            WHERE strpos(n, '@') = 0 AND strpos(h, '@') > 0) AS e(number, hidden, at)
         GROUP BY e.number, e.hidden
    ), uncertain AS MATERIALIZED (
        SELECT n.number FROM numbers n GROUP BY n.number, split_part(n.hidden, '@', 2), n.hidden LIKE '%.ENT.%' HAVING count(*) > 1
        UNION
        SELECT k.address FROM known k WHERE k.moved
        UNION
        SELECT n.number FROM numbers n JOIN numbers later ON later.hidden = n.hidden AND later.at > n.at
         WHERE NOT EXISTS (SELECT FROM known k WHERE NOT k.moved AND (n.number, later.number) IN ((k.address, k.other), (k.other, k.address)))
    ), person(address) AS (
        SELECT unnest(heard)
        UNION
        SELECT CASE WHEN k.address = p.address THEN k.other ELSE k.address END
          FROM person p JOIN known k ON p.address IN (k.address, k.other)
         WHERE NOT EXISTS (SELECT FROM uncertain u WHERE u.number IN (k.address, k.other))
    )
    SELECT coalesce(array_agg(address ORDER BY address), '{}') FROM person
$$;

-- Takes back the opt-outs of a person, who wrote so to a device: those under each address that is certainly theirs. All of them, or none if
-- the person opted out at the same time or later, whenever either message arrived. Returns the addresses whose opt-outs were taken back.
--
-- Of somebody who has not opted out it is logged, too, because an earlier opt-out may be heard later; once per address and day, so that
-- strangers cannot fill the log. The event shows what the device itself heard: neither the words, which are for readers of the inbox, nor
-- addresses that were learned elsewhere.
CREATE FUNCTION shardd.take_back(recipients text[], device_id text, words text, said_at timestamptz) RETURNS SETOF text
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    heard     text[] := array(SELECT shardd.heard_address(recipient) FROM unnest(recipients) recipient);
    addresses text[] := shardd.own_addresses(heard);
    pseudonyms bytea[] := array(SELECT shardd.pseudonym(address) FROM unnest(addresses) address);
    standing  text[];
    latest    timestamptz;
BEGIN
    SELECT array_agg(o.address ORDER BY o.address), max(o.heard_at) INTO standing, latest
      FROM (SELECT * FROM shardd.opt_outs WHERE address = ANY (addresses) ORDER BY address FOR UPDATE) o;
    -- Who was forgotten is known by what they wrote now.
    IF EXISTS (SELECT FROM shardd.forgotten f WHERE f.pseudonym = ANY (pseudonyms)) THEN
        SELECT addresses, greatest(latest, max(f.heard_at)) INTO standing, latest
          FROM (SELECT * FROM shardd.forgotten WHERE pseudonym = ANY (pseudonyms) ORDER BY pseudonym FOR UPDATE) f;
    END IF;
    IF latest >= take_back.said_at THEN
        RETURN;
    END IF;
    INSERT INTO shardd.opt_out_log (address, kind, source, device_id, words, said_at, created_by)
    SELECT address, 'taken_back', 'message', take_back.device_id, take_back.words, take_back.said_at, session_user
      FROM unnest(addresses) address
     WHERE standing IS NOT NULL
        OR NOT EXISTS (SELECT FROM shardd.opt_out_log l
                        WHERE l.address = address.address AND l.kind = 'taken_back'
                          AND (l.said_at >= take_back.said_at OR l.created_at > now() - interval '1 day'))
     ORDER BY address;
    IF standing IS NULL THEN
        RETURN;
    END IF;
    PERFORM set_config('shardd.maintains_opt_outs', 'yes', true);
    DELETE FROM shardd.opt_outs o WHERE o.address = ANY (standing);
    DELETE FROM shardd.forgotten f WHERE f.pseudonym = ANY (pseudonyms);
    UPDATE shardd.opt_out_log l SET ended = true WHERE l.address = ANY (standing) AND l.kind = 'opted_out' AND NOT l.ended;
    PERFORM set_config('shardd.maintains_opt_outs', '', true);
    IF shardd.events_enabled() THEN
        INSERT INTO shardd.outbox (kind, device_id, detail) VALUES ('opt_out.taken_back', take_back.device_id, jsonb_build_object(
            'recipient', recipients[1], 'device_id', take_back.device_id, 'said_at', shardd.iso_time(take_back.said_at),
            'addresses', (SELECT coalesce(jsonb_agg(address ORDER BY address), '[]') FROM unnest(standing) address
                           WHERE address = ANY (heard))));
        PERFORM shardd.announce_events();
    END IF;
    RETURN QUERY SELECT unnest(standing);
END $$;
