-- What an operator asks and does about jobs, through `shardd job`.

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
