-- What an operator asks and does about jobs, through `shardd job`, and numbers that take reading whole tables.

-- name: job_filter
-- The filters of an operator's question about jobs; NULL filters pass everything. `revokes_campaign`: of which campaign the message was that
-- the job deletes. The name `revokes` is the job's in the inner query, where the archive is not in sight.
(%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
   AND (%(state)s::text IS NULL OR state = %(state)s)
   AND (%(device_ids)s::text[] IS NULL OR device_id = ANY (%(device_ids)s::text[]))
   AND (%(campaign)s::text IS NULL OR campaign = %(campaign)s)
   AND (%(job_class)s::text IS NULL OR class = %(job_class)s)
   AND (%(error_class)s::text IS NULL OR error_class = %(error_class)s)
   AND (%(order_group)s::text IS NULL OR order_group = %(order_group)s)
   AND (%(reference)s::text IS NULL OR reference = %(reference)s)
   AND (%(kind)s::text IS NULL OR kind = %(kind)s)
   AND (%(revokes_campaign)s::text IS NULL OR revokes IS NOT NULL AND %(revokes_campaign)s = (
       SELECT m.campaign FROM (SELECT revokes AS message) d JOIN shardd.archive m ON m.id = d.message LIMIT 1));

-- name: id_window
-- The ids that one of several statements looks at; NULL: no bound.
(%(first)s::bigint IS NULL OR id >= %(first)s) AND (%(last)s::bigint IS NULL OR id <= %(last)s);

-- name: settled_by
-- Of finished jobs, those that were so at a time, and in a snapshot; NULL: in any. The time of a row is the start of its transaction, which
-- may commit long after it. What was restored from a backup may have a transaction of another server, which was not yet here.
(%(as_of)s::timestamptz IS NULL OR settled_at <= %(as_of)s)
   AND (%(snapshot)s::pg_snapshot IS NULL OR pg_visible_in_snapshot(settled_xid, %(snapshot)s)
        OR settled_xid >= pg_snapshot_xmax(pg_current_snapshot()));

-- name: created_by
-- Of live jobs, those that were there at a time, and in a snapshot; NULL: in any. See settled_by.
(%(as_of)s::timestamptz IS NULL OR created_at <= %(as_of)s)
   AND (%(snapshot)s::pg_snapshot IS NULL OR pg_visible_in_snapshot(created_xid, %(snapshot)s)
        OR created_xid >= pg_snapshot_xmax(pg_current_snapshot()));

-- name: snapshot
-- Which transactions are visible now, as text.
SELECT pg_current_snapshot()::text AS snapshot;

-- name: live_jobs
-- The queue, with its jobs' states in words.
SELECT *, CASE WHEN claimed_epoch IS NOT NULL THEN 'sending' WHEN scheduled THEN 'scheduled' ELSE 'queued' END AS state
  FROM shardd.jobs;

-- name: waits_filter
-- Of queued jobs, those that wait for this, in the words of `waits` of `queue_depth`; NULL passes everything. Each look is made once, for
-- all jobs: joins would keep the newest from being read from the ends of the indexes. That a shard does not run is not known here: its jobs
-- are among those that wait for their turn.
(%(waits_for)s::text IS NULL OR state = 'queued' AND CASE
    WHEN campaign IN (SELECT id FROM shardd.campaigns WHERE state <> 'running')
        THEN campaign IN (SELECT id FROM shardd.campaigns WHERE 'its campaign: ' || state = %(waits_for)s)
    WHEN device_id IS NULL THEN %(waits_for)s = 'a device of its group'
    WHEN device_id IN (SELECT id FROM shardd.devices WHERE removed_at IS NOT NULL OR paused_at IS NOT NULL OR state NOT IN (${can_send}))
        THEN device_id IN (SELECT id FROM shardd.devices d WHERE 'its device: ' || shardd.shown_state(d) = %(waits_for)s)
    WHEN (device_id, lane) IN (SELECT device_id, lane FROM shardd.lane_waits WHERE until > now())
        THEN (device_id, lane) IN (SELECT device_id, lane FROM shardd.lane_waits WHERE until > now() AND split_part(why, ' (', 1) = %(waits_for)s)
    ELSE %(waits_for)s = 'its turn' END);

-- name: found_live
-- The live jobs that an operator's question finds. Where the state is that of a finished one, the table is not read.
FROM (SELECT * FROM (${live_jobs}) every
               WHERE coalesce(%(state)s::text IN (${live}), true) AND NOT %(unreadable)s) j
         WHERE ${job_filter} AND (%(device_group)s::text IS NULL OR device_group = %(device_group)s)
           AND (%(address)s::text IS NULL OR address = %(address)s)
           AND ${waits_filter}
           AND ${id_window};

-- name: found_finished
-- The finished jobs that an operator's question finds. Where the state is that of a live one, the table is not read.
FROM shardd.archive
         WHERE coalesce(%(state)s::text NOT IN (${live}), true) AND %(waits_for)s::text IS NULL
           AND ${job_filter} AND (%(device_group)s::text IS NULL OR device_group = %(device_group)s)
           AND (NOT %(unreadable)s OR unreadable_at IS NOT NULL)
           AND (%(address)s::text IS NULL OR address = %(address)s)
           AND ${id_window};

-- name: waits_for
-- What a job waits for, for operators: of a doubt, that it may be retried, where nothing keeps it from that. Producers are not told: what
-- keeps it may be an opt-out that they cannot see. A query of one value, and not EXISTS, which the planner may answer by reading all retries;
-- with the time, so that it looks into one month.
o.waits_for || CASE WHEN o.state = 'in_doubt' AND (
    SELECT r.obstacle IS NULL FROM shardd.retries r WHERE r.id = o.id AND r.settled_at = o.settled_at) THEN ' or retry' ELSE '' END AS waits_for;

-- name: list_jobs
-- Jobs with ids from `first` to `last`, newest first; `unreadable`: only those whose message a device of the recipient could not decrypt;
-- `address`: only those to it. The ids are found before anything else is computed of a row: what a live job waits for takes a look at
-- several tables.
WITH found AS MATERIALIZED (
    (SELECT id ${found_live} ORDER BY id DESC LIMIT %(most)s)
    UNION ALL
    (SELECT id ${found_finished} ORDER BY id DESC LIMIT %(most)s)
    ORDER BY id DESC LIMIT %(most)s
)
SELECT ${shown}, ${waits_for}, d.transport
  FROM shardd.all_outcomes o LEFT JOIN shardd.devices d ON d.id = o.device_id
 WHERE o.id = ANY (array(SELECT id FROM found))
 ORDER BY o.id DESC;

-- name: list_jobs_upwards
-- The same, but the oldest of them, oldest first.
WITH found AS MATERIALIZED (
    (SELECT id ${found_live} ORDER BY id LIMIT %(most)s)
    UNION ALL
    (SELECT id ${found_finished} ORDER BY id LIMIT %(most)s)
    ORDER BY id LIMIT %(most)s
)
SELECT ${shown}, ${waits_for}, d.transport
  FROM shardd.all_outcomes o LEFT JOIN shardd.devices d ON d.id = o.device_id
 WHERE o.id = ANY (array(SELECT id FROM found))
 ORDER BY o.id;

-- name: bounds_of_jobs
-- The first and the last id of live and of finished jobs; NULL: there are none.
SELECT (SELECT min(id) FROM shardd.jobs) AS first_live, (SELECT max(id) FROM shardd.jobs) AS last_live,
       (SELECT min(id) FROM shardd.archive) AS first_finished, (SELECT max(id) FROM shardd.archive) AS last_finished;

-- name: show_job
-- One job, whole, with the node and shard of its last claim, and what became of its revocation.
SELECT ${shown}, ${waits_for}, d.transport, ${content}, o.attempt AS claims, e.node, e.shard, r.state AS revocation_state,
       CASE WHEN r.state = 'sent' THEN r.settled_at END AS revoked_at
  FROM shardd.all_outcomes o
  CROSS JOIN LATERAL (
      SELECT ${content}, claimed_epoch FROM shardd.jobs WHERE id = o.id
      UNION ALL
      SELECT ${content}, claimed_epoch FROM shardd.archive WHERE id = o.id
  ) w
  LEFT JOIN shardd.epochs e ON e.epoch = w.claimed_epoch
  LEFT JOIN shardd.devices d ON d.id = o.device_id
  -- With a limit: the planner would rather read all outcomes once than those of one job for each row that it expects.
  LEFT JOIN LATERAL (SELECT state, settled_at FROM shardd.all_outcomes WHERE id = o.revoked_by LIMIT 1) r ON true
 WHERE o.id = %(id)s;

-- name: is_opted_out
-- Whether the recipient of a live job has opted out of its class: it ends as that when its turn comes.
SELECT coalesce((SELECT shardd.opted_out(address, class, confirms) FROM shardd.jobs WHERE id = %(id)s), false);

-- name: insert_job
-- Inserts a job as any producer does, with no rights of its own. Returns its id.
INSERT INTO shardd.jobs (device_id, recipient, kind, body, media, class)
VALUES (%(device_id)s, %(recipient)s, %(kind)s, %(body)s, %(media)s, %(job_class)s)
RETURNING id;

-- name: states_of_jobs
-- The states of these jobs.
SELECT id, state FROM shardd.all_outcomes WHERE id = ANY (%(ids)s::bigint[]);

-- name: count_retries
-- How many finished jobs of a window could be brought back, and the obstacles of the others.
SELECT state, class AS job_class, campaign, obstacle, count(*) AS jobs
  FROM shardd.retries
 WHERE ${job_filter} AND ${settled_by} AND ${id_window}
 GROUP BY state, class, campaign, obstacle;

-- name: retry_jobs
-- Looks at up to `most` finished jobs after the id `after`, up to `last`, and brings those without an obstacle back into the queue. Returns every job
-- that it looked at: `done`, its obstacle, or why the table's trigger refused it.
WITH picked AS MATERIALIZED (
    SELECT id, state, obstacle
      FROM shardd.retries
     WHERE id > %(after)s AND (%(last)s::bigint IS NULL OR id <= %(last)s)
       AND ${job_filter} AND ${settled_by}
     ORDER BY id LIMIT %(most)s
), tried AS MATERIALIZED (
    SELECT * FROM shardd.retry_jobs(array(SELECT id FROM picked WHERE obstacle IS NULL ORDER BY id))
)
SELECT p.id, p.state, p.obstacle, t.job IS NOT NULL AND t.refusal IS NULL AS done, t.refusal
  FROM picked p LEFT JOIN tried t ON t.job = p.id ORDER BY p.id;

-- name: count_cancels
-- How many live jobs of a window there are; `sending` ones cannot be cancelled.
SELECT j.state, j.class AS job_class, j.campaign, CASE j.state WHEN 'sending' THEN 'in_flight' END AS obstacle, count(*) AS jobs
  FROM (${live_jobs}) j
 WHERE ${job_filter} AND ${created_by} AND ${id_window}
 GROUP BY j.state, j.class, j.campaign;

-- name: cancel_jobs
-- Looks at up to `most` live jobs after the id `after`, up to `last`, and ends those that are not in flight. Returns every job that it looked at:
-- `done`, or its obstacle.
WITH picked AS MATERIALIZED (
    SELECT j.id, j.state, CASE j.state WHEN 'sending' THEN 'in_flight' END AS obstacle
      FROM (${live_jobs}) j
     WHERE j.id > %(after)s AND (%(last)s::bigint IS NULL OR j.id <= %(last)s)
       AND ${job_filter} AND ${created_by}
     ORDER BY j.id LIMIT %(most)s
), gone AS (
    SELECT shardd.end_jobs(array(SELECT id FROM picked WHERE obstacle IS NULL), 'cancelled', %(why)s, 'cancelled') AS id
)
SELECT p.id, p.state, p.obstacle, g.id IS NOT NULL AS done FROM picked p LEFT JOIN gone g ON g.id = p.id ORDER BY p.id;

-- name: count_decisions
-- How many jobs of a window a person may decide, because they are in doubt.
SELECT state, class AS job_class, campaign, NULL::text AS obstacle, count(*) AS jobs
  FROM shardd.archive
 WHERE state IN (${decidable}) AND ${job_filter} AND ${settled_by} AND ${id_window}
 GROUP BY state, class, campaign;

-- name: decide_jobs
-- Gives up to `most` jobs in doubt after the id `after`, up to `last`, the outcome that a person found out: `decided` is the state, and `words` says it.
-- Who decided, when, and the error before become the error. Returns every job that it looked at, and whether it is `done`: no journal or
-- report was faster.
WITH picked AS MATERIALIZED (
    SELECT id, state, settled_at FROM shardd.archive
     WHERE id > %(after)s AND (%(last)s::bigint IS NULL OR id <= %(last)s) AND state IN (${decidable}) AND ${job_filter} AND ${settled_by}
     ORDER BY id LIMIT %(most)s
), decided AS (
    UPDATE shardd.archive a
       SET state = %(decided)s::text,
           error = left(format('%%s: decided by %%s on %%s UTC; before, in doubt: %%s', %(words)s::text, %(decided_by)s::text,
                               to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), coalesce(a.error, 'no error')), 1000),
           error_class = CASE WHEN %(decided)s::text <> 'sent' THEN a.error_class END
      FROM picked p
     WHERE a.id = p.id AND a.settled_at = p.settled_at AND a.state IN (${decidable})
    RETURNING a.id
)
SELECT p.id, p.state, NULL::text AS obstacle, d.id IS NOT NULL AS done
  FROM picked p LEFT JOIN decided d ON d.id = p.id ORDER BY p.id;

-- name: count_revocations
-- How many messages of a window could be deleted, and what keeps the others from it.
SELECT state, class AS job_class, campaign, obstacle, count(*) AS jobs
  FROM shardd.revocable
 WHERE ${job_filter} AND ${settled_by} AND ${id_window}
 GROUP BY state, class, campaign, obstacle;

-- name: revoke_jobs
-- Looks at up to `most` of these jobs after the id `after`, up to `last`, and adds a revocation of those without an obstacle. Revocations
-- themselves are looked at only if they are named. Returns every job that it looked at: `done`, its obstacle, or why a trigger refused its
-- revocation.
WITH picked AS MATERIALIZED (
    SELECT id, state, obstacle
      FROM shardd.revocable
     WHERE id > %(after)s AND (%(last)s::bigint IS NULL OR id <= %(last)s)
       AND (%(ids)s::bigint[] IS NOT NULL OR obstacle IS DISTINCT FROM 'revocation')
       AND ${job_filter} AND ${settled_by}
     ORDER BY id LIMIT %(most)s
), tried AS MATERIALIZED (
    SELECT * FROM shardd.revoke_jobs(array(SELECT id FROM picked WHERE obstacle IS NULL ORDER BY id))
)
SELECT p.id, p.state, p.obstacle, t.job IS NOT NULL AND t.refusal IS NULL AS done, t.refusal
  FROM picked p LEFT JOIN tried t ON t.job = p.id ORDER BY p.id;

-- name: move_jobs
-- Gives up to `most` jobs of one device that are not in flight to another device; except those of groups, and those that only the old one can
-- send: answers to messages that it received, and revocations of those that it sent. Their backoffs were the old device's: only `run_at`
-- and the place in an order group still delay them. Returns the ids of those that moved.
UPDATE shardd.jobs
   SET device_id = %(new)s, scheduled = held OR run_at > now(), due_at = CASE WHEN NOT held AND run_at > now() THEN run_at END
 WHERE id = ANY (array(SELECT id FROM shardd.jobs
                       WHERE device_id = %(old)s AND device_group IS NULL AND reply_to IS NULL AND revokes IS NULL
                         AND claimed_epoch IS NULL LIMIT %(most)s))
   AND device_id = %(old)s AND claimed_epoch IS NULL
RETURNING id;

-- name: count_unmovable
-- Jobs of a device that are not in flight and that no other device can send: answers to messages that were written to it, and revocations
-- of those that it sent.
SELECT count(reply_to) AS answers, count(revokes) AS revocations
  FROM shardd.jobs WHERE device_id = %(device_id)s AND (reply_to IS NOT NULL OR revokes IS NOT NULL) AND claimed_epoch IS NULL;

-- name: return_jobs_to_pools
-- Puts up to `most` jobs of device groups that are not in flight back into their groups' pools: these devices will not send them.
UPDATE shardd.jobs SET device_id = NULL
 WHERE id = ANY (array(
     SELECT id FROM shardd.jobs
      WHERE device_id = ANY (%(device_ids)s::text[]) AND device_group IS NOT NULL AND claimed_epoch IS NULL LIMIT %(most)s))
   AND claimed_epoch IS NULL AND device_group IS NOT NULL
RETURNING id;

-- name: queue_depth
-- Live jobs after the id `after`, up to `upto`, by state, those of paused campaigns among them, for how many seconds the oldest has been due
-- that may be sent, and what the queued ones wait for (jobs by cause, in the words of `waits_for`). Jobs that wait for an operator, a limit,
-- quiet hours, a gap or a backoff are not due, and others are from the end of that: they are no reason for an alarm about the queue. Arrays,
-- one element per device whose pace, backoff or shard matters: device_ids, opens (in how many seconds it may send again; negative: since
-- when it may; NULL: nothing is known to delay it), and shards (the state of its shard, if that takes no jobs). All jobs of a lane wait for
-- the same, so lanes are joined, not jobs; devices are joined with the arrays once, not for each lane.
WITH d AS MATERIALIZED (
    SELECT d.id, d.paused_at IS NULL AND d.removed_at IS NULL AND d.state IN (${can_send}) AND coalesce(o.seconds <= 0, true) AS open,
           greatest(d.state_since, d.resumed_at, now() + make_interval(secs => o.seconds)) AS opened_at,
           CASE WHEN d.removed_at IS NULL AND d.paused_at IS NULL AND d.state IN (${can_send}) THEN 'its shard: ' || o.shard
                ELSE 'its device: ' || shardd.shown_state(d) END AS cause
      FROM shardd.devices d
      LEFT JOIN unnest(%(device_ids)s::text[], %(opens)s::double precision[], %(shards)s::text[]) AS o(id, seconds, shard) ON o.id = d.id
), lanes AS MATERIALIZED (
    SELECT j.queued, j.scheduled, j.sending, c.state AS campaign_state,
           greatest(j.due_since, d.opened_at, w.until, c.state_since) AS due_since,
           d.open AND coalesce(c.state, 'running') = 'running' AND coalesce(w.until <= now(), true) AS open,
           CASE WHEN c.state <> 'running' THEN 'its campaign: ' || c.state
                WHEN j.device_id IS NULL THEN 'a device of its group'
                WHEN d.cause IS NOT NULL THEN d.cause
                WHEN w.until > now() THEN split_part(w.why, ' (', 1)
                ELSE 'its turn' END AS cause
      FROM (
          SELECT device_id, lane, campaign,
                 count(*) FILTER (WHERE claimed_epoch IS NULL AND NOT scheduled) AS queued,
                 count(*) FILTER (WHERE scheduled) AS scheduled,
                 count(*) FILTER (WHERE claimed_epoch IS NOT NULL) AS sending,
                 min(greatest(run_at, created_at, due_at)) FILTER (WHERE claimed_epoch IS NULL AND NOT scheduled) AS due_since
            FROM shardd.jobs
           WHERE id > %(after)s AND id <= %(upto)s
           GROUP BY device_id, lane, campaign
      ) j
      LEFT JOIN d ON d.id = j.device_id
      LEFT JOIN shardd.lane_waits w ON w.device_id = j.device_id AND w.lane = j.lane
      LEFT JOIN shardd.campaigns c ON c.id = j.campaign
)
SELECT coalesce(sum(queued), 0)::bigint AS queued, coalesce(sum(scheduled), 0)::bigint AS scheduled,
       coalesce(sum(sending), 0)::bigint AS sending,
       coalesce(sum(queued + scheduled + sending) FILTER (WHERE campaign_state = 'paused'), 0)::bigint AS paused_jobs,
       extract(epoch FROM now() - min(due_since) FILTER (WHERE queued > 0 AND open)) AS oldest_due_age,
       (SELECT coalesce(jsonb_object_agg(cause, jobs), '{}')
          FROM (SELECT cause, sum(queued) AS jobs FROM lanes WHERE queued > 0 GROUP BY cause) causes) AS waits
  FROM lanes;

-- name: count_doubts
-- Jobs in doubt, which wait for an operator; answered from an index.
SELECT count(*) FROM shardd.archive WHERE state = 'in_doubt';

-- name: count_unreadable
-- Messages of which shardd heard, within the last 24 hours, that a device of the recipient cannot decrypt them, and how many of them were
-- sent again.
SELECT count(*) AS unreadable, count(resent_as) AS resent FROM shardd.archive WHERE unreadable_at > now() - interval '1 day';

-- name: count_campaigns
-- Campaigns that have live jobs: how many are running, and how many are paused.
SELECT count(*) FILTER (WHERE c.state = 'running') AS running_campaigns,
       count(*) FILTER (WHERE c.state = 'paused') AS paused_campaigns
  FROM shardd.campaigns c
 WHERE c.state IN ('running', 'paused') AND EXISTS (SELECT FROM shardd.jobs j WHERE j.campaign = c.id);
