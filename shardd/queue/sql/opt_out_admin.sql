-- The list of opt-outs as an operator sees it, through `shardd opt-out`.

-- name: add_opt_outs
-- Adds recipients to the list. Arrays, one element per recipient. Returns the addresses that are new.
INSERT INTO shardd.opt_outs (recipient, source, note, said_at, created_by)
SELECT e.recipient, %(source)s, e.note, e.said_at, %(created_by)s
  FROM unnest(%(recipients)s::text[], %(notes)s::text[], %(said_ats)s::timestamptz[]) AS e(recipient, note, said_at)
ON CONFLICT (address) DO NOTHING
RETURNING address;

-- name: list_opt_outs
-- Opt-outs, newest first; NULL filters pass everything.
SELECT address, recipient, source, device_id, words, note, said_at, created_by, created_at
  FROM shardd.opt_outs
 WHERE (%(source)s::text IS NULL OR source = %(source)s) AND (%(device_id)s::text IS NULL OR device_id = %(device_id)s)
 ORDER BY created_at DESC, address LIMIT %(most)s;

-- name: opt_outs_after
-- The opt-outs that follow an address, in the order of addresses.
SELECT address, recipient, source, device_id, words, note, said_at, created_by, created_at
  FROM shardd.opt_outs WHERE address > %(address)s ORDER BY address LIMIT %(most)s;

-- name: show_opt_out
-- The opt-out of an address, if there is one.
SELECT address, recipient, source, device_id, words, note, said_at, created_by, created_at
  FROM shardd.opt_outs WHERE address = %(address)s;

-- name: trail_of_opt_out
-- Each time that an address was heard to opt out, the first first.
SELECT again, source, device_id, words, said_at, created_by, created_at
  FROM shardd.opt_out_log WHERE address = %(address)s ORDER BY id;

-- name: jobs_stopped
-- Jobs to these addresses, which are spellings of one, that were not sent because of its opt-out, newest first.
SELECT id, device_id, campaign, class AS job_class, reference, created_at, settled_at
  FROM shardd.archive
 WHERE state = 'opted_out' AND shardd.address_of(recipient) = ANY (%(addresses)s::text[])
 ORDER BY id DESC LIMIT %(most)s;
