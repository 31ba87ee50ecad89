-- Forgetting what is older than the config wants it kept. All times are ages in seconds, by the database's clock.

-- name: forget_month
-- The oldest month that is older than `finished` as a whole: its name, about how many jobs were forgotten, and how many stay.
SELECT month, jobs, kept FROM shardd.forget_month(now() - make_interval(secs => %(finished)s));

-- name: forget_strays
-- Up to `most` finished jobs of a time that had no month of its own: nothing prepared the archive then. Returns how many.
WITH gone AS (
    DELETE FROM shardd.archive_other
     WHERE ctid = ANY (array(
         SELECT a.ctid FROM shardd.archive_other a
          WHERE a.settled_at < now() - make_interval(secs => %(finished)s) AND a.state <> 'in_doubt'
            AND NOT (a.order_group IS NOT NULL AND a.state <> 'sent'
                     AND EXISTS (SELECT FROM shardd.jobs j WHERE j.producer = a.producer AND j.order_group = a.order_group AND j.held))
          LIMIT %(most)s))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: forget_dedupe_keys
-- Looks at up to `most` dedupe keys older than `dedupe_keys`, from (after_at, after_key, after_producer) on, and forgets those whose job is forgotten.
-- A month is forgotten as a whole, so no key of the month that `finished` falls into is worth a look. One that a producer uses again
-- in a transaction that is still open stays until the next time. Returns how many were looked at
-- and forgotten, and where to go on.
WITH old AS MATERIALIZED (
    SELECT key, producer, job_id, created_at FROM shardd.dedupe_keys
     WHERE created_at < least(now() - make_interval(secs => %(dedupe_keys)s),
                              date_trunc('month', now() - make_interval(secs => %(finished)s)))
       AND (created_at, key, producer) > (%(after_at)s::timestamptz, %(after_key)s::text, %(after_producer)s::text)
     ORDER BY created_at, key, producer LIMIT %(most)s
), gone AS (
    DELETE FROM shardd.dedupe_keys
     WHERE ctid = ANY (array(
         SELECT k.ctid FROM shardd.dedupe_keys k JOIN old ON k.key = old.key AND k.producer = old.producer
          WHERE NOT EXISTS (SELECT FROM shardd.jobs j WHERE j.id = old.job_id)
            AND NOT EXISTS (SELECT FROM shardd.archive a WHERE a.id = old.job_id)
            FOR UPDATE OF k SKIP LOCKED))
    RETURNING 1
)
SELECT (SELECT count(*) FROM old), (SELECT count(*) FROM gone), o.created_at, o.key, o.producer
  FROM old o ORDER BY o.created_at DESC, o.key DESC, o.producer DESC LIMIT 1;

-- name: forget_contacts
-- Up to `most` recipients that a device group has not written to for `contacts`. Returns how many.
WITH gone AS (
    DELETE FROM shardd.contacts
     WHERE ctid = ANY (array(
         SELECT ctid FROM shardd.contacts WHERE last_at < now() - make_interval(secs => %(contacts)s) LIMIT %(most)s))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: forget_order_groups
-- Up to `most` order groups of which no job is left that waits or is on its way: the row is made again when it is needed. Who adds
-- to a group just now holds its row, and it stays. Returns how many.
WITH gone AS (
    DELETE FROM shardd.order_groups
     WHERE ctid = ANY (array(
         SELECT g.ctid FROM shardd.order_groups g
          WHERE NOT EXISTS (SELECT FROM shardd.jobs j WHERE j.order_group = g.name AND j.producer = g.producer)
          LIMIT %(most)s FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: forget_days
-- What devices and campaigns sent on days older than `days`: no limit and no warm-up looks back so far.
WITH devices AS (
    DELETE FROM shardd.device_days WHERE day < current_date - %(days)s::integer RETURNING 1
), campaigns AS (
    DELETE FROM shardd.campaign_days WHERE day < current_date - %(days)s::integer RETURNING 1
)
SELECT (SELECT count(*) FROM devices) + (SELECT count(*) FROM campaigns);
