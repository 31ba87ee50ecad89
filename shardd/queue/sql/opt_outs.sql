-- Opt-outs: recording them, the check right before a job is sent, and for operators through `shardd opt-out`.

-- name: hear_opt_out
-- Records one person's opt-out by message, under each known address of that person, the best one first. With `confirm`, the first one is
-- answered through the device that received it, in the same transaction. A message that is in the inbox already was said when that one
-- was. Returns the number of new addresses.
WITH heard AS (
    INSERT INTO shardd.opt_outs (recipient, source, device_id, words, said_at)
    SELECT recipient, 'message', %(device_id)s, %(words)s,
           shardd.first_said(%(device_id)s, %(message_id)s, %(sender)s, to_timestamp(%(said_at)s))
      FROM unnest(%(recipients)s::text[]) recipient
    ON CONFLICT (address) DO NOTHING
    RETURNING address, recipient
), answer AS (
    INSERT INTO shardd.jobs (device_id, recipient, body, class, confirms, dedupe_key)
    SELECT d.id, first.recipient, %(confirm)s, 'reply', true, format('opt-out:%%s:%%s', first.address, %(said_at)s::text)
      FROM shardd.devices d JOIN heard first ON first.recipient = (%(recipients)s::text[])[1]
     WHERE d.id = %(device_id)s AND d.removed_at IS NULL AND %(confirm)s::text IS NOT NULL
       AND (SELECT count(*) FROM heard) = cardinality(%(recipients)s::text[])
)
SELECT count(*) FROM heard;

-- name: learn_addresses
-- Remembers which addresses are the same person's. Arrays, one element per pair. `moved`: the first of each is a number that the person has
-- no more. Of a person who was forgotten, the other address is
-- forgotten, too. In the order of the keys: two transactions that insert the same rows must not wait for each other.
WITH pairs AS MATERIALIZED (
    SELECT address, other, shardd.is_forgotten(address) AS first, shardd.is_forgotten(other) AS second
      FROM (SELECT DISTINCT address, other FROM unnest(%(addresses)s::text[], %(others)s::text[]) AS e(address, other)) e
     WHERE address <> other
), forgotten AS (
    INSERT INTO shardd.forgotten (pseudonym)
    SELECT DISTINCT shardd.pseudonym(CASE WHEN first THEN other ELSE address END) AS pseudonym FROM pairs WHERE first <> second
     ORDER BY pseudonym
    ON CONFLICT DO NOTHING
)
INSERT INTO shardd.same_person AS s (address, other, moved)
SELECT address, other, %(moved)s FROM pairs WHERE NOT first AND NOT second ORDER BY address, other
ON CONFLICT (address, other) DO UPDATE SET moved = true WHERE EXCLUDED.moved AND NOT s.moved;

-- name: opted_out_addresses
-- Those of these addresses that opted out.
SELECT e.address FROM unnest(%(addresses)s::text[]) AS e(address)
 WHERE EXISTS (SELECT FROM shardd.opt_outs o WHERE o.address = e.address) OR shardd.is_forgotten(e.address);

-- name: take_back_opt_outs
-- A person takes their opt-outs back by a message: see shardd.take_back. With `confirm`, they are answered through the device that received
-- it, in the same transaction. A message that is in the inbox already was said when that one was. Returns the addresses.
WITH taken AS MATERIALIZED (
    SELECT address
      FROM shardd.take_back(%(recipients)s::text[], %(device_id)s, %(words)s,
                            shardd.first_said(%(device_id)s, %(message_id)s, %(sender)s, to_timestamp(%(said_at)s))) address
), answer AS (
    INSERT INTO shardd.jobs (device_id, recipient, body, class)
    SELECT d.id, (%(recipients)s::text[])[1], %(confirm)s, 'reply'
      FROM shardd.devices d
     WHERE d.id = %(device_id)s AND d.removed_at IS NULL AND %(confirm)s::text IS NOT NULL AND EXISTS (SELECT FROM taken)
)
SELECT address FROM taken;

-- name: refresh_addresses
-- Brings addresses of an earlier table of numbers up to date, `most` rows of each table at a time; returns how many it looked at.
SELECT shardd.refresh_addresses(%(most)s);

-- name: spread_recent_opt_outs
-- Adds to the list what belongs to the last `most` opt-outs: an address may have been learned in a transaction of the same moment.
WITH recent AS MATERIALIZED (
    SELECT l.address FROM shardd.opt_out_log l ORDER BY l.id DESC LIMIT %(most)s
), pairs AS (
    SELECT r.address, p.other FROM recent r JOIN shardd.same_person p ON p.address = r.address
     UNION SELECT r.address, p.address FROM recent r JOIN shardd.same_person p ON p.other = r.address
)
SELECT shardd.spread_opt_outs(array_agg(address), array_agg(other)) FROM pairs
 WHERE NOT EXISTS (SELECT FROM shardd.opt_outs o WHERE o.address = pairs.other);

-- name: configure_opt_outs
-- Stores what triggers need of the config: the classes that an opt-out does not stop, and the calling codes of default regions by transport.
INSERT INTO shardd.settings AS s (name, value)
VALUES ('opt_outs.exempt', to_jsonb(%(exempt)s::text[])), ('default_codes', %(codes)s::jsonb)
ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value WHERE s.value <> EXCLUDED.value;

-- name: exempt_classes
-- The classes that an opt-out does not stop.
SELECT class FROM shardd.settings s CROSS JOIN jsonb_array_elements_text(s.value) class WHERE s.name = 'opt_outs.exempt' ORDER BY class;

-- name: add_opt_outs
-- Adds recipients to the list. Arrays, one element per recipient. Returns the addresses that are new.
INSERT INTO shardd.opt_outs (recipient, source, note, said_at, created_by)
SELECT e.recipient, %(source)s, e.note, e.said_at, %(created_by)s
  FROM unnest(%(recipients)s::text[], %(notes)s::text[], %(said_ats)s::timestamptz[]) AS e(recipient, note, said_at)
ON CONFLICT (address) DO NOTHING
RETURNING address;

-- name: list_opt_outs
-- Opt-outs, newest first; NULL filters pass everything. Of people who were forgotten, the first digits of a pseudonym are the address.
SELECT address, recipient, source, device_id, words, note, said_at, created_by, created_at
  FROM (SELECT address, recipient, source, device_id, words, note, said_at, created_by, created_at FROM shardd.opt_outs
         UNION ALL
        SELECT 'forgotten ' || left(encode(pseudonym, 'hex'), 12), 'forgotten', 'forgotten', NULL, NULL, NULL, NULL, created_by, created_at
          FROM shardd.forgotten WHERE pseudonym <> shardd.pseudonym('forgotten')) listed
 WHERE (%(source)s::text IS NULL OR source = %(source)s) AND (%(device_id)s::text IS NULL OR device_id = %(device_id)s)
 ORDER BY created_at DESC, address LIMIT %(most)s;

-- name: page_of_opt_outs
-- Opt-outs, newest first, below a number of the log; with that number. Those of people who were forgotten are not among them.
SELECT l.id AS number, o.address, o.recipient, o.source, o.device_id, o.words, o.note, o.said_at, o.created_by, o.created_at
  FROM shardd.opt_out_log l JOIN shardd.opt_outs o ON o.address = l.address
 WHERE l.kind = 'opted_out' AND NOT l.ended AND (%(before)s::bigint IS NULL OR l.id < %(before)s)
 ORDER BY l.id DESC LIMIT %(most)s;

-- name: opt_outs_after
-- The opt-outs after an address, in the order of addresses.
SELECT address, recipient, source, device_id, words, note, said_at, created_by, created_at
  FROM shardd.opt_outs WHERE address > %(address)s ORDER BY address LIMIT %(most)s;

-- name: show_opt_out
-- The opt-out of an address, if there is one.
SELECT address, recipient, source, device_id, words, note, said_at, created_by, created_at
  FROM shardd.opt_outs WHERE address = %(address)s;

-- name: opt_out_log
-- Each time that an address opted out, or took that back, oldest first.
SELECT kind, source, device_id, words, said_at, created_by, created_at
  FROM shardd.opt_out_log WHERE address = %(address)s ORDER BY id;

-- name: jobs_stopped
-- Jobs that were not sent because of an opt-out, newest first.
SELECT id, device_id, campaign, class AS job_class, reference, created_at, settled_at
  FROM shardd.archive
 WHERE state = 'opted_out' AND address = %(address)s
 ORDER BY id DESC LIMIT %(most)s;
