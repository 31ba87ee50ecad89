-- What an operator asks and does, through `shardd job` and `shardd device`.

-- name: plan_for_values
-- For this transaction: plans are made for the values at hand, so that a filter that is NULL costs nothing and a state that
-- finished jobs cannot have keeps the archive out.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);

-- name: list_jobs
-- Jobs, newest first; NULL filters pass everything.
SELECT o.id, o.state, o.device_id, d.transport, o.recipient, o.kind, o.reference, o.waits_for, o.failures, o.max_attempts,
       o.priority, o.run_at, o.due_at, o.created_at, o.settled_at, o.message_id, o.error, o.delivered_at, o.read_at
  FROM (SELECT * FROM shardd.outcomes
         WHERE (%(state)s::text IS NULL OR state = %(state)s)
           AND (%(device_id)s::text IS NULL OR device_id = %(device_id)s)
           AND (%(reference)s::text IS NULL OR reference = %(reference)s)
         ORDER BY id DESC LIMIT %(most)s) o
  LEFT JOIN shardd.devices d ON d.id = o.device_id
 ORDER BY o.id DESC;

-- name: show_job
-- One job, whole, with the node and shard of its last claim.
SELECT o.id, o.state, o.device_id, d.transport, o.recipient, o.kind, o.reference, o.waits_for, o.failures, o.max_attempts,
       o.priority, o.run_at, o.due_at, o.created_at, o.settled_at, o.message_id, o.error, o.delivered_at, o.read_at,
       w.body, w.media, w.file_name, w.mime_type, w.details, w.on_doubt, w.dedupe_key, o.attempt AS claims, w.claimed_at,
       e.node, e.shard
  FROM shardd.outcomes o
  CROSS JOIN LATERAL (
      SELECT body, media, file_name, mime_type, details, on_doubt, dedupe_key, claimed_at, claimed_epoch
        FROM shardd.jobs WHERE id = o.id
      UNION ALL
      SELECT body, media, file_name, mime_type, details, on_doubt, dedupe_key, claimed_at, claimed_epoch
        FROM shardd.archive WHERE id = o.id
  ) w
  LEFT JOIN shardd.epochs e ON e.epoch = w.claimed_epoch
  LEFT JOIN shardd.devices d ON d.id = o.device_id
 WHERE o.id = %(id)s;

-- name: weigh_jobs
-- What can be done with jobs: where each one is, and whether its device can still be used.
SELECT o.id, o.state, o.device_id, d.transport, d.id IS NULL OR d.removed_at IS NOT NULL AS orphaned
  FROM shardd.outcomes o LEFT JOIN shardd.devices d ON d.id = o.device_id
 WHERE o.id = ANY (%(ids)s::bigint[]);

-- name: weigh_finished_jobs
-- Like weigh_jobs, for finished jobs in a state, of one device or (NULL) of all.
SELECT a.id, a.state, a.device_id, d.transport, d.id IS NULL OR d.removed_at IS NOT NULL AS orphaned
  FROM shardd.archive a LEFT JOIN shardd.devices d ON d.id = a.device_id
 WHERE a.state = %(state)s AND (%(device_id)s::text IS NULL OR a.device_id = %(device_id)s)
 ORDER BY a.id;

-- name: weigh_live_jobs
-- Like weigh_jobs, for live jobs; NULL filters pass everything.
SELECT j.id, CASE WHEN j.claimed_epoch IS NOT NULL THEN 'sending' WHEN j.scheduled THEN 'scheduled' ELSE 'queued' END AS state,
       j.device_id, d.transport, d.id IS NULL OR d.removed_at IS NOT NULL AS orphaned
  FROM shardd.jobs j LEFT JOIN shardd.devices d ON d.id = j.device_id
 WHERE (%(device_ids)s::text[] IS NULL OR j.device_id = ANY (%(device_ids)s::text[]))
   AND (%(reference)s::text IS NULL OR j.reference = %(reference)s)
 ORDER BY j.id;

-- name: retry_jobs
-- Brings finished jobs back into the queue under their own ids, with all their attempts anew; a sent one stays sent.
WITH back AS (
    DELETE FROM shardd.archive WHERE id = ANY (%(ids)s::bigint[]) AND state IN ('failed', 'cancelled', 'in_doubt') RETURNING *
)
INSERT INTO shardd.jobs (id, device_id, recipient, kind, body, media, file_name, mime_type, details, priority, run_at,
                         max_attempts, on_doubt, dedupe_key, reference, created_at, attempt)
OVERRIDING SYSTEM VALUE
SELECT id, device_id, recipient, kind, body, media, file_name, mime_type, details, priority, run_at, max_attempts, on_doubt,
       dedupe_key, reference, created_at, attempt
  FROM back
RETURNING id;

-- name: cancel_jobs
-- Ends jobs that nobody has in hand.
WITH gone AS (
    DELETE FROM shardd.jobs WHERE id = ANY (%(ids)s::bigint[]) AND claimed_epoch IS NULL RETURNING *
)
INSERT INTO shardd.archive (id, device_id, recipient, kind, body, media, file_name, mime_type, details, priority, run_at,
                            max_attempts, on_doubt, dedupe_key, reference, created_at, attempt, failures, state, error)
SELECT id, device_id, recipient, kind, body, media, file_name, mime_type, details, priority, run_at, max_attempts, on_doubt,
       dedupe_key, reference, created_at, attempt, failures, 'cancelled', %(why)s
  FROM gone
RETURNING id;

-- name: hand_over_jobs
-- Gives jobs of one device that nobody has in hand to another one. What made them wait was the old device: of their waiting
-- times only the producer's is left. Returns the ids of those that moved.
UPDATE shardd.jobs
   SET device_id = %(new)s, scheduled = run_at > now(), due_at = CASE WHEN run_at > now() THEN run_at END
 WHERE id = ANY (%(ids)s::bigint[]) AND device_id = %(old)s AND claimed_epoch IS NULL
RETURNING id;

-- name: list_devices
-- Devices with their live jobs, what they sent on the day `day`, and when they last sent; NULL filters pass everything.
WITH chosen AS (
    SELECT * FROM shardd.devices d
     WHERE removed_at IS NULL AND (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s::text[]))
       AND (%(transport)s::text IS NULL OR transport = %(transport)s)
       AND (%(state)s::text IS NULL OR CASE WHEN paused_at IS NULL THEN state ELSE 'paused' END = %(state)s)
), live AS (
    SELECT device_id, count(*) AS jobs, count(claimed_epoch) AS in_hand
      FROM shardd.jobs
     WHERE %(ids)s::text[] IS NULL OR device_id = ANY (%(ids)s::text[])
     GROUP BY device_id
)
SELECT c.id, c.transport, c.label, c.session, c.proxy, c.settings, c.state, c.reason, c.state_since, c.state_until,
       c.paused_at, c.paused_why, c.gap_min, c.gap_max, c.daily_limit, c.created_at,
       coalesce(l.jobs, 0) AS jobs, coalesce(l.in_hand, 0) AS in_hand,
       CASE WHEN t.day = %(day)s::date THEN t.sent ELSE 0 END AS sent_today, t.last_at AS last_sent
  FROM chosen c
  LEFT JOIN live l ON l.device_id = c.id
  LEFT JOIN LATERAL (
      SELECT day, sent, last_at FROM shardd.device_days WHERE device_id = c.id ORDER BY day DESC LIMIT 1
  ) t ON true
 ORDER BY c.id;

-- name: device_was_there
-- Whether there is, or ever was, a device of this id.
SELECT EXISTS (SELECT FROM shardd.devices WHERE id = %(id)s);

-- name: add_devices
-- Adds devices; one that was removed comes back. Returns the ids that are new.
INSERT INTO shardd.devices AS d (id, transport, label, proxy, settings, state, gap_min, gap_max, daily_limit)
SELECT id, %(transport)s, %(label)s, %(proxy)s, %(settings)s, %(state)s, %(gap_min)s, %(gap_max)s, %(daily_limit)s
  FROM unnest(%(ids)s::text[]) id
ON CONFLICT (id) DO UPDATE SET removed_at = NULL, transport = EXCLUDED.transport, label = EXCLUDED.label,
    proxy = EXCLUDED.proxy, settings = EXCLUDED.settings, state = EXCLUDED.state, session = NULL, reason = NULL,
    state_since = now(), state_until = NULL, paused_at = NULL, paused_why = NULL, gap_min = EXCLUDED.gap_min,
    gap_max = EXCLUDED.gap_max, daily_limit = EXCLUDED.daily_limit
 WHERE d.removed_at IS NOT NULL
RETURNING id;

-- name: pause_devices
-- Holds devices back; what is in hand is finished. Returns the ids that exist.
UPDATE shardd.devices SET paused_at = coalesce(paused_at, now()), paused_why = %(why)s
 WHERE id = ANY (%(ids)s::text[]) AND removed_at IS NULL RETURNING id;

-- name: resume_devices
-- Lets paused devices send again. Returns the ids that exist.
UPDATE shardd.devices SET paused_at = NULL, paused_why = NULL
 WHERE id = ANY (%(ids)s::text[]) AND removed_at IS NULL RETURNING id;

-- name: remove_devices
-- Takes devices out of service for which no live job waits and to which no phone is linked. Their finished jobs stay readable.
-- Returns the ids that were there.
UPDATE shardd.devices d SET removed_at = now()
 WHERE id = ANY (%(ids)s::text[]) AND removed_at IS NULL AND session IS NULL AND NOT EXISTS (SELECT FROM shardd.jobs j WHERE j.device_id = d.id)
RETURNING id;
