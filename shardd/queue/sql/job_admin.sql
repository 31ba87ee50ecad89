-- What an operator asks and does about jobs, through `shardd job`.

-- name: list_jobs
-- Jobs, newest first; NULL filters pass everything.
SELECT o.id, o.state, o.device_id, o.device_group, d.transport, o.recipient, o.kind, o.class AS job_class, o.campaign,
       o.order_group, o.reference, o.waits_for, o.failures, o.max_attempts, o.priority, o.run_at, o.expires_at, o.due_at,
       o.created_at, o.settled_at, o.message_id, o.error, o.error_class, o.delivered_at, o.read_at, o.metadata
  FROM (SELECT * FROM shardd.all_outcomes
         WHERE (%(state)s::text IS NULL OR state = %(state)s)
           AND (%(device_id)s::text IS NULL OR device_id = %(device_id)s)
           AND (%(campaign)s::text IS NULL OR campaign = %(campaign)s)
           AND (%(job_class)s::text IS NULL OR class = %(job_class)s)
           AND (%(error_class)s::text IS NULL OR error_class = %(error_class)s)
           AND (%(order_group)s::text IS NULL OR order_group = %(order_group)s)
           AND (%(reference)s::text IS NULL OR reference = %(reference)s)
         ORDER BY id DESC LIMIT %(most)s) o
  LEFT JOIN shardd.devices d ON d.id = o.device_id
 ORDER BY o.id DESC;

-- name: show_job
-- One job, whole, with the node and shard of its last claim.
SELECT o.id, o.state, o.device_id, o.device_group, d.transport, o.recipient, o.kind, o.class AS job_class, o.campaign,
       o.order_group, o.reference, o.waits_for, o.failures, o.max_attempts, o.priority, o.run_at, o.expires_at, o.due_at,
       o.created_at, o.settled_at, o.message_id, o.error, o.error_class, o.delivered_at, o.read_at, o.metadata,
       w.body, w.variables, w.media, w.file_name, w.mime_type, w.details, w.on_doubt, w.dedupe_key, w.producer, o.attempt AS claims,
       w.claimed_at, e.node, e.shard
  FROM shardd.all_outcomes o
  CROSS JOIN LATERAL (
      SELECT body, variables, media, file_name, mime_type, details, on_doubt, dedupe_key, producer, claimed_at, claimed_epoch
        FROM shardd.jobs WHERE id = o.id
      UNION ALL
      SELECT body, variables, media, file_name, mime_type, details, on_doubt, dedupe_key, producer, claimed_at, claimed_epoch
        FROM shardd.archive WHERE id = o.id
  ) w
  LEFT JOIN shardd.epochs e ON e.epoch = w.claimed_epoch
  LEFT JOIN shardd.devices d ON d.id = o.device_id
 WHERE o.id = %(id)s;

-- name: states_of_jobs
-- Where each of these jobs is.
SELECT id, state FROM shardd.all_outcomes WHERE id = ANY (%(ids)s::bigint[]);

-- name: count_retries
-- How many finished jobs could be brought back, and what keeps others from it; NULL filters pass everything.
SELECT state, class AS job_class, campaign, obstacle, count(*) AS jobs
  FROM shardd.retries
 WHERE (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
   AND (%(state)s::text IS NULL OR state = %(state)s)
   AND (%(device_ids)s::text[] IS NULL OR device_id = ANY (%(device_ids)s::text[]))
   AND (%(campaign)s::text IS NULL OR campaign = %(campaign)s)
   AND (%(job_class)s::text IS NULL OR class = %(job_class)s)
   AND (%(error_class)s::text IS NULL OR error_class = %(error_class)s)
   AND (%(order_group)s::text IS NULL OR order_group = %(order_group)s)
   AND (%(reference)s::text IS NULL OR reference = %(reference)s)
 GROUP BY state, class, campaign, obstacle;

-- name: retry_jobs
-- Looks at up to `most` finished jobs after the id `after`, and brings those back into the queue that nothing keeps from it. Filters
-- as in count_retries. Returns every job that was looked at: `done`, what its obstacle was, or why the gate refused it.
WITH picked AS MATERIALIZED (
    SELECT id, state, obstacle
      FROM shardd.retries
     WHERE id > %(after)s
       AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
       AND (%(state)s::text IS NULL OR state = %(state)s)
       AND (%(device_ids)s::text[] IS NULL OR device_id = ANY (%(device_ids)s::text[]))
       AND (%(campaign)s::text IS NULL OR campaign = %(campaign)s)
       AND (%(job_class)s::text IS NULL OR class = %(job_class)s)
       AND (%(error_class)s::text IS NULL OR error_class = %(error_class)s)
       AND (%(order_group)s::text IS NULL OR order_group = %(order_group)s)
       AND (%(reference)s::text IS NULL OR reference = %(reference)s)
     ORDER BY id LIMIT %(most)s
), tried AS MATERIALIZED (
    SELECT * FROM shardd.retry_jobs(array(SELECT id FROM picked WHERE obstacle IS NULL ORDER BY id))
)
SELECT p.id, p.state, p.obstacle, t.job IS NOT NULL AND t.refusal IS NULL AS done, t.refusal
  FROM picked p LEFT JOIN tried t ON t.job = p.id ORDER BY p.id;

-- name: count_cancels
-- How many live jobs there are; `sending` ones cannot be cancelled. NULL filters pass everything.
SELECT j.state, j.class AS job_class, j.campaign, CASE j.state WHEN 'sending' THEN 'in_flight' END AS obstacle, count(*) AS jobs
  FROM (SELECT *, CASE WHEN claimed_epoch IS NOT NULL THEN 'sending' WHEN scheduled THEN 'scheduled' ELSE 'queued' END AS state
          FROM shardd.jobs) j
 WHERE (%(ids)s::bigint[] IS NULL OR j.id = ANY (%(ids)s::bigint[]))
   AND (%(state)s::text IS NULL OR j.state = %(state)s)
   AND (%(device_ids)s::text[] IS NULL OR j.device_id = ANY (%(device_ids)s::text[]))
   AND (%(campaign)s::text IS NULL OR j.campaign = %(campaign)s)
   AND (%(job_class)s::text IS NULL OR j.class = %(job_class)s)
   AND (%(error_class)s::text IS NULL OR j.error_class = %(error_class)s)
   AND (%(order_group)s::text IS NULL OR j.order_group = %(order_group)s)
   AND (%(reference)s::text IS NULL OR j.reference = %(reference)s)
 GROUP BY j.state, j.class, j.campaign;

-- name: cancel_jobs
-- Looks at up to `most` live jobs after the id `after`, and ends those that nobody has in flight. Filters as in count_cancels.
-- Returns every job that was looked at: `done`, or what its obstacle was.
WITH picked AS MATERIALIZED (
    SELECT j.id, j.state, CASE j.state WHEN 'sending' THEN 'in_flight' END AS obstacle
      FROM (SELECT *, CASE WHEN claimed_epoch IS NOT NULL THEN 'sending' WHEN scheduled THEN 'scheduled' ELSE 'queued' END AS state
              FROM shardd.jobs) j
     WHERE j.id > %(after)s
       AND (%(ids)s::bigint[] IS NULL OR j.id = ANY (%(ids)s::bigint[]))
       AND (%(state)s::text IS NULL OR j.state = %(state)s)
       AND (%(device_ids)s::text[] IS NULL OR j.device_id = ANY (%(device_ids)s::text[]))
       AND (%(campaign)s::text IS NULL OR j.campaign = %(campaign)s)
       AND (%(job_class)s::text IS NULL OR j.class = %(job_class)s)
       AND (%(error_class)s::text IS NULL OR j.error_class = %(error_class)s)
       AND (%(order_group)s::text IS NULL OR j.order_group = %(order_group)s)
       AND (%(reference)s::text IS NULL OR j.reference = %(reference)s)
     ORDER BY j.id LIMIT %(most)s
), gone AS (
    SELECT shardd.end_jobs(array(SELECT id FROM picked WHERE obstacle IS NULL), 'cancelled', %(why)s, 'cancelled') AS id
)
SELECT p.id, p.state, p.obstacle, g.id IS NOT NULL AS done FROM picked p LEFT JOIN gone g ON g.id = p.id ORDER BY p.id;

-- name: hand_over_jobs
-- Gives up to `most` jobs of one device, those of groups aside, that nobody has in flight to another one. What made them wait was
-- the old device: of their waiting times only the producer's is left, and the place in an order group. Returns the ids of those
-- that moved.
UPDATE shardd.jobs
   SET device_id = %(new)s, scheduled = held OR run_at > now(), due_at = CASE WHEN NOT held AND run_at > now() THEN run_at END
 WHERE id = ANY (array(SELECT id FROM shardd.jobs
                       WHERE device_id = %(old)s AND device_group IS NULL AND claimed_epoch IS NULL LIMIT %(most)s))
   AND device_id = %(old)s AND claimed_epoch IS NULL
RETURNING id;

-- name: give_back_jobs
-- Puts up to `most` jobs of device groups that nobody has in flight back into their groups' pools: these devices will not send them.
UPDATE shardd.jobs SET device_id = NULL
 WHERE id = ANY (array(
     SELECT id FROM shardd.jobs
      WHERE device_id = ANY (%(device_ids)s::text[]) AND device_group IS NOT NULL AND claimed_epoch IS NULL LIMIT %(most)s))
   AND claimed_epoch IS NULL AND device_group IS NOT NULL
RETURNING id;

-- name: queue_depth
-- Live jobs by state, and the age in seconds of the oldest that is due and whose device may send: one whose device or campaign waits
-- for a person, or whose device is `held` back by a limit, quiet hours or a backoff, is no reason for an alarm about the queue.
SELECT count(*) FILTER (WHERE j.claimed_epoch IS NULL AND NOT j.scheduled) AS queued,
       count(*) FILTER (WHERE j.scheduled) AS scheduled,
       count(*) FILTER (WHERE j.claimed_epoch IS NOT NULL) AS sending,
       extract(epoch FROM now() - min(greatest(j.run_at, j.created_at))
           FILTER (WHERE j.claimed_epoch IS NULL AND NOT j.scheduled AND d.open AND coalesce(c.state, 'running') = 'running'))
           AS oldest
  FROM shardd.jobs j
  LEFT JOIN (
      SELECT d.id, d.paused_at IS NULL AND d.removed_at IS NULL AND d.state IN ('ready', 'restricted') AND h.id IS NULL AS open
        FROM shardd.devices d LEFT JOIN unnest(%(held)s::text[]) AS h(id) ON h.id = d.id
  ) d ON d.id = j.device_id
  LEFT JOIN shardd.campaigns c ON c.id = j.campaign;

-- name: count_doubts
-- Jobs in doubt, which wait for a person: an index knows them.
SELECT count(*) FROM shardd.archive WHERE state = 'in_doubt';

-- name: count_campaigns
-- Campaigns that have live jobs: how many run and how many are paused, and the jobs of the paused ones.
SELECT count(*) FILTER (WHERE c.state = 'running') AS running, count(*) FILTER (WHERE c.state = 'paused') AS paused,
       coalesce(sum((SELECT count(*) FROM shardd.jobs j WHERE j.campaign = c.id)) FILTER (WHERE c.state = 'paused'), 0)::bigint
           AS paused_jobs
  FROM shardd.campaigns c
 WHERE c.state IN ('running', 'paused') AND EXISTS (SELECT FROM shardd.jobs j WHERE j.campaign = c.id);
