-- Opt-outs as the daemon needs them: hearing of them, and a last look before a job leaves.

-- name: hear_opt_out
-- One person's opt-out by message, under each address by which that person is known, the best one first. With `confirm`, the first
-- time is answered through the device that heard it, in the same transaction. Returns how many addresses are new.
WITH heard AS (
    INSERT INTO shardd.opt_outs (recipient, source, device_id, words, said_at)
    SELECT recipient, 'message', %(device_id)s, %(words)s, to_timestamp(%(said_at)s)
      FROM unnest(%(recipients)s::text[]) recipient
    ON CONFLICT (address) DO NOTHING
    RETURNING address
), answer AS (
    INSERT INTO shardd.jobs (device_id, recipient, body, class, confirms, dedupe_key)
    SELECT d.id, first.recipient, %(confirm)s, 'reply', true, 'opt-out:' || shardd.address_of(first.recipient)
      FROM shardd.devices d CROSS JOIN (SELECT (%(recipients)s::text[])[1] AS recipient) first
     WHERE d.id = %(device_id)s AND d.removed_at IS NULL AND %(confirm)s::text IS NOT NULL
       AND (SELECT count(*) FROM heard) = cardinality(%(recipients)s::text[])
)
SELECT count(*) FROM heard;

-- name: unwanted_jobs
-- Which of these jobs go to somebody who wants no such message, by addresses that are better known than the row's own.
SELECT j.id
  FROM unnest(%(ids)s::bigint[], %(addresses)s::text[]) AS e(id, address)
  JOIN shardd.jobs j ON j.id = e.id
 WHERE shardd.opted_out(e.address, j.class, j.confirms);

-- name: configure_opt_outs
-- Tells the triggers what the config says of opt-outs.
INSERT INTO shardd.settings AS s (name, value)
VALUES ('opt_outs.exempt', to_jsonb(%(exempt)s::text[])), ('opt_outs.country_codes', to_jsonb(%(country_codes)s::text[]))
ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value WHERE s.value <> EXCLUDED.value;
