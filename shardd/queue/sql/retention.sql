-- Deleting what is older than configured. All times are ages in seconds, by the database's clock.

-- name: forget_month
-- Deletes the oldest month that is entirely older than `finished`. Returns its name, about how many jobs were deleted, and how many stay.
SELECT month, jobs, kept FROM shardd.forget_month(now() - make_interval(secs => %(finished)s));

-- name: forget_strays
-- Deletes up to `most` finished jobs of months without a partition of their own, from a time without a supervisor. Returns how many.
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
-- Looks at up to `most` dedupe keys older than `dedupe_keys`, after (after_at, after_key, after_producer), and deletes those whose job is
-- deleted. Months are deleted as a whole, so keys of the month that `finished` falls into are skipped. A key that a producer uses again in
-- an open transaction stays until the next time. Returns how many were looked at and deleted, and where to continue.
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
SELECT (SELECT count(*) FROM old) AS examined, (SELECT count(*) FROM gone) AS deleted, o.created_at AS after_at, o.key AS after_key,
       o.producer AS after_producer
  FROM old o ORDER BY o.created_at DESC, o.key DESC, o.producer DESC LIMIT 1;

-- name: forget_revocations
-- Deletes up to `most` rows about the revocations of jobs that are deleted. Returns how many.
WITH gone AS (
    DELETE FROM shardd.revocations
     WHERE ctid = ANY (array(
         SELECT r.ctid FROM shardd.revocations r
          WHERE NOT EXISTS (SELECT FROM shardd.archive a WHERE a.id = r.revokes)
            AND NOT EXISTS (SELECT FROM shardd.jobs j WHERE j.id IN (r.revokes, r.job_id))
          LIMIT %(most)s FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: forget_accounts
-- Deletes what accounts devices had, where another one followed more than `finished` seconds and a month ago: by then no job is kept that
-- the earlier one sent, but for doubts. Returns how many.
WITH gone AS (
    DELETE FROM shardd.device_accounts a
     WHERE EXISTS (SELECT FROM shardd.device_accounts later
                    WHERE later.device_id = a.device_id AND later.since > a.since
                      AND later.since < now() - make_interval(secs => %(finished)s) - interval '31 days')
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: forget_contacts
-- Deletes up to `most` contacts that a device group has not written to for `contacts` seconds. Returns how many.
WITH gone AS (
    DELETE FROM shardd.contacts
     WHERE ctid = ANY (array(
         SELECT ctid FROM shardd.contacts WHERE last_at < now() - make_interval(secs => %(contacts)s) LIMIT %(most)s))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: forget_order_groups
-- Deletes up to `most` order groups without live jobs; the row is created again when it is needed. The row of a group that a transaction
-- is adding to is locked, and stays. Returns how many.
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
-- Deletes the counts of devices and campaigns for days older than `days`: no limit and no warm-up looks back that far; and what lanes
-- waited for until then. Returns how many.
WITH devices AS (
    DELETE FROM shardd.device_days WHERE day < current_date - %(days)s::integer RETURNING 1
), campaigns AS (
    DELETE FROM shardd.campaign_days WHERE day < current_date - %(days)s::integer RETURNING 1
), waits AS (
    DELETE FROM shardd.lane_waits WHERE until < current_date - %(days)s::integer RETURNING 1
)
SELECT (SELECT count(*) FROM devices) + (SELECT count(*) FROM campaigns) + (SELECT count(*) FROM waits);

-- name: forget_messages
-- Deletes up to `most` incoming messages that are older than `inbox` seconds or have `messages` newer ones. Returns how many.
WITH gone AS (
    DELETE FROM shardd.messages
     WHERE ctid = ANY (array(
         SELECT first.ctid
           FROM (SELECT m.ctid, m.id, m.received_at FROM shardd.messages m ORDER BY m.id LIMIT %(most)s) first
          WHERE first.received_at < now() - make_interval(secs => %(inbox)s)
             OR first.id <= (SELECT max(m.id) FROM shardd.messages m) - %(messages)s))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: forget_nodes
-- Deletes nodes that were silent for `finished` seconds, hold no lease, and have neither jobs in flight nor in doubt: their state folders
-- may come back until then. Returns how many.
WITH gone AS (
    DELETE FROM shardd.nodes n
     WHERE greatest(n.seen_at, n.started_at, n.cordoned_at) < now() - make_interval(secs => %(finished)s)
       AND NOT EXISTS (SELECT FROM shardd.leases l WHERE l.node_id = n.id)
       AND NOT EXISTS (SELECT FROM shardd.jobs j JOIN shardd.epochs e ON e.epoch = j.claimed_epoch
                        WHERE e.node = n.name OR e.incarnation = n.incarnation)
       AND NOT EXISTS (SELECT FROM shardd.archive a JOIN shardd.epochs e ON e.epoch = a.claimed_epoch
                        WHERE a.state = 'in_doubt' AND (e.node = n.name OR e.incarnation = n.incarnation))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: forget_epochs
-- Deletes up to `most` epochs whose shard was taken again more than `finished` seconds and a month ago, by when no job that ended under
-- them is kept. The last of each shard stays, and so does every epoch that still decides something: of a lease, of a job in flight, and of
-- one in doubt, which a journal can settle only if its epoch names the incarnation. Nothing is claimed under an epoch that was superseded,
-- and none is issued again. Returns how many.
WITH gone AS (
    DELETE FROM shardd.epochs
     WHERE epoch = ANY (array(
         SELECT e.epoch
           FROM (SELECT epoch, lead(started_at) OVER (PARTITION BY shard ORDER BY epoch) AS superseded_at FROM shardd.epochs) e
          WHERE e.superseded_at < now() - make_interval(secs => %(finished)s) - interval '31 days'
            AND NOT EXISTS (SELECT FROM shardd.leases l WHERE l.epoch = e.epoch)
            AND NOT EXISTS (SELECT FROM shardd.jobs j WHERE j.claimed_epoch = e.epoch)
            AND NOT EXISTS (SELECT FROM shardd.archive a WHERE a.claimed_epoch = e.epoch AND a.state = 'in_doubt')
          LIMIT %(most)s))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: forget_acts
-- Deletes up to `most` acts of the audit log that are older than `acts` seconds. Returns how many.
WITH gone AS (
    DELETE FROM shardd.acts
     WHERE id = ANY (array(
         SELECT first.id FROM (SELECT id, at FROM shardd.acts ORDER BY id LIMIT %(most)s) first
          WHERE first.at < now() - make_interval(secs => %(acts)s)))
    RETURNING 1
)
SELECT count(*) FROM gone;
