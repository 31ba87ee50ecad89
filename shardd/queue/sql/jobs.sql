-- Claiming and settling jobs, and finding the devices that have some.
--
-- Each of these reads a few rows, whatever the planner assumes about a table that was never analysed: see the settings INDEX_PLANS.
-- OFFSET 0 keeps an EXISTS a probe for each row; otherwise it may become a join with, or a hash of, the whole table. A column in an
-- expression without effect keeps the planner from using its index: another index is the right one.

-- name: begin_cycle
-- Starts the transaction of one round trip, which settles and claims.
BEGIN;

-- name: commit_cycle
-- Ends it.
COMMIT;

-- name: claim_jobs
-- Claims the next jobs of lanes, under the epochs with which this node holds the shards of their devices. Arrays, one element per lane:
-- device_ids, lanes, epochs, low_ords and low_ids (the lane's known first position: keeps the claim's cost flat while a long transaction
-- holds back VACUUM), rooms (the most jobs to claim), peeks (whether to look for the next job). Nothing is claimed under a lease that has
-- expired by the database's clock, or of a campaign that is not running. `opted_out`: the recipient opted out, and the job must not be
-- sent. `next`: (ord, id) of the next job. Rows are in no particular order.
WITH next AS MATERIALIZED (
    SELECT j.id, d.epoch, d.peek
      FROM unnest(%(device_ids)s::text[], %(lanes)s::text[], %(epochs)s::bigint[], %(low_ords)s::bigint[], %(low_ids)s::bigint[],
                  %(rooms)s::integer[], %(peeks)s::boolean[])
           AS d(device_id, lane, epoch, low_ord, low_id, room, peek)
      JOIN shardd.leases l ON l.epoch = d.epoch AND l.expires_at > now()
      CROSS JOIN LATERAL (
          SELECT id FROM shardd.jobs
           WHERE device_id = d.device_id AND lane = d.lane AND NOT scheduled AND (ord, id) >= (d.low_ord, d.low_id)
             AND claimed_epoch IS NULL AND (expires_at IS NULL OR expires_at > now())
           ORDER BY ord, id LIMIT d.room FOR UPDATE SKIP LOCKED
      ) j
     WHERE left(d.lane, 1) = '/' OR EXISTS (
         SELECT FROM shardd.campaigns c WHERE c.id = split_part(d.lane, '/', 1) AND c.state = 'running' OFFSET 0)
)
UPDATE shardd.jobs j SET attempt = j.attempt + 1, claimed_epoch = next.epoch, claimed_at = now()
  FROM next WHERE j.id = next.id
RETURNING ${claim}, coalesce('+' || j.number, CASE WHEN strpos(j.address, '@') > 0 THEN '' ELSE '+' END || j.address) AS recipient, j.kind, j.body, j.media, j.file_name, j.mime_type,
          CASE WHEN pg_column_size(j.details) <= 65536 THEN j.details::text WHEN j.details IS NOT NULL THEN repeat(' ', 8193) END AS details,
          j.quote::text AS quote,
          CASE WHEN j.revokes IS NOT NULL THEN shardd.message_to_revoke(j.revokes, j.device_id) END AS revokes,
          extract(epoch FROM least(j.expires_at, '2200-01-01 00:00:00+00') - now())::double precision AS expires_in,
          -- shardd.opted_out, whose call would be a third of a claim
          (EXISTS (SELECT FROM shardd.opt_outs o WHERE o.address = j.address OFFSET 0)
           OR EXISTS (SELECT FROM shardd.forgotten) AND EXISTS (
               SELECT FROM shardd.pseudonym_key k JOIN shardd.forgotten f
                   ON f.pseudonym = sha256(k.outside || sha256(k.inside || convert_to(j.address, 'UTF8'))) OFFSET 0))
          AND NOT j.confirms
          AND NOT coalesce((SELECT s.value FROM shardd.settings s WHERE s.name = 'opt_outs.exempt')
                           ? CASE WHEN j.resend_of IS NULL THEN j.class ELSE '' END, false) AS opted_out,
          CASE WHEN next.peek THEN (
              SELECT array[n.ord, n.id] FROM shardd.jobs n
               WHERE n.device_id = j.device_id AND n.lane = j.lane AND NOT n.scheduled AND (n.ord, n.id) > (j.ord, j.id)
                 AND n.claimed_epoch IS NULL
               ORDER BY n.ord, n.id LIMIT 1) END AS next,
          NOT j.confirms AND (j.resend_of IS NOT NULL OR NOT coalesce(
              (SELECT s.value FROM shardd.settings s WHERE s.name = 'opt_outs.exempt') ? j.class, false)) AS heeds_opt_outs;

-- name: finish_jobs
-- Moves claimed jobs that ended to the archive. Arrays, one element per claim. A claim that is not the row's current one (id, epoch,
-- attempt, token) changes nothing: settling twice is harmless. Returns the ids that moved.
WITH ended AS MATERIALIZED (
    SELECT * FROM unnest(%(ids)s::bigint[], %(epochs)s::bigint[], %(attempts)s::integer[], %(tokens)s::bigint[], %(states)s::text[],
                         %(failures)s::smallint[], %(message_ids)s::text[], %(errors)s::text[], %(error_classes)s::text[],
                         %(members_without_keys)s::integer[])
        AS e(id, epoch, attempt, token, state, failures, message_id, error, error_class, members_without_keys)
), gone AS (
    DELETE FROM shardd.jobs j USING ended e
     WHERE j.id = e.id AND j.claimed_epoch = e.epoch AND j.attempt = e.attempt AND j.token = e.token
    RETURNING j.*, e.state, e.failures AS failures_now, e.message_id, e.error AS error_now, e.error_class AS error_class_now,
              e.members_without_keys
)
INSERT INTO shardd.archive (id, ${archived}, failures, claimed_epoch, claimed_at, state, message_id, error, error_class,
                            members_without_keys)
SELECT id, ${archived}, failures_now, claimed_epoch, claimed_at, state, message_id, error_now, error_class_now, members_without_keys
  FROM gone
RETURNING id;

-- name: finish_remembered
-- Ends jobs whose messages have left or may have, as a node remembers although the database has lost it. Arrays, one element per job. A job
-- is recognized by its token, whoever has claimed it since, but not one that this node's workers have (`in_flight`, ids). Returns the jobs
-- that ended.
WITH known AS MATERIALIZED (
    SELECT * FROM unnest(%(ids)s::bigint[], %(tokens)s::bigint[], %(states)s::text[], %(message_ids)s::text[])
        AS e(id, token, state, message_id)
), gone AS (
    DELETE FROM shardd.jobs j USING known e
     WHERE j.id = e.id AND j.token = e.token AND (e.state = 'sent' OR j.on_doubt = 'hold')
       AND j.id <> ALL (%(in_flight)s::bigint[])
    RETURNING j.*, e.state, e.message_id
)
INSERT INTO shardd.archive (id, ${archived}, failures, claimed_epoch, claimed_at, state, message_id, error, error_class)
SELECT id, ${archived}, failures, claimed_epoch, claimed_at, state, message_id, CASE WHEN state = 'in_doubt' THEN %(error)s END,
       CASE WHEN state = 'in_doubt' THEN 'node' END
  FROM gone
RETURNING id, device_id, coalesce(campaign, '') AS campaign;

-- name: release_jobs
-- Puts claimed jobs back into the queue: at once (delay NULL) or in `delay` seconds. Arrays, one element per claim, fenced like
-- finish_jobs. Returns the ids that were released.
UPDATE shardd.jobs j
   SET claimed_epoch = NULL, claimed_at = NULL, failures = e.failures, worker_deaths = e.worker_deaths, error = e.error,
       error_class = e.error_class,
       scheduled = e.delay IS NOT NULL, due_at = now() + make_interval(secs => e.delay)
  FROM unnest(%(ids)s::bigint[], %(epochs)s::bigint[], %(attempts)s::integer[], %(tokens)s::bigint[], %(failures)s::smallint[],
              %(worker_deaths)s::smallint[], %(delays)s::double precision[], %(errors)s::text[], %(error_classes)s::text[])
       AS e(id, epoch, attempt, token, failures, worker_deaths, delay, error, error_class)
 WHERE j.id = e.id AND j.claimed_epoch = e.epoch AND j.attempt = e.attempt AND j.token = e.token
RETURNING j.id;

-- name: count_sends
-- Adds to the counts of devices. Arrays, one element per device, day and hour of the device's own clock. An hour before the last one
-- counts for the day only. In the order of the key, so that two at the same time wait for each other in one direction only.
INSERT INTO shardd.device_days AS t (device_id, day, sent, hour, hour_sent, last_at)
SELECT device_id, day, sum(sent), max(hour), sum(sent) FILTER (WHERE hour = last_hour), max(last_at)
  FROM (SELECT *, max(hour) OVER (PARTITION BY device_id, day) AS last_hour
          FROM unnest(%(device_ids)s::text[], %(days)s::date[], %(hours)s::smallint[], %(sents)s::integer[],
                      %(last_ats)s::timestamptz[]) AS e(device_id, day, hour, sent, last_at)) e
 GROUP BY device_id, day
 ORDER BY device_id, day
ON CONFLICT (device_id, day) DO UPDATE SET
    sent = t.sent + EXCLUDED.sent, last_at = greatest(t.last_at, EXCLUDED.last_at),
    hour = greatest(t.hour, EXCLUDED.hour),
    hour_sent = CASE WHEN t.hour = EXCLUDED.hour THEN t.hour_sent + EXCLUDED.hour_sent
                     WHEN t.hour < EXCLUDED.hour THEN EXCLUDED.hour_sent ELSE t.hour_sent END;

-- name: count_campaign_sends
-- Adds to the counts of campaigns with a cap. Arrays, one element per campaign, device and day; in the order of the key, likewise.
INSERT INTO shardd.campaign_days AS t (campaign, device_id, day, sent)
SELECT * FROM unnest(%(campaigns)s::text[], %(device_ids)s::text[], %(days)s::date[], %(sents)s::integer[])
           AS e(campaign, device_id, day, sent)
 ORDER BY campaign, device_id, day
ON CONFLICT (campaign, device_id, day) DO UPDATE SET sent = t.sent + EXCLUDED.sent;

-- name: advance_order_groups
-- Lets the first job of each of these order groups (arrays: producer and name) into its lane, if all jobs before it were sent. Returns
-- hints, as promote_due does.
UPDATE shardd.jobs j
   SET held = false, scheduled = j.run_at > now(), due_at = CASE WHEN j.run_at > now() THEN j.run_at END
  FROM (SELECT DISTINCT producer, name FROM unnest(%(producers)s::text[], %(groups)s::text[]) AS e(producer, name)) names
 CROSS JOIN LATERAL (
     SELECT id FROM shardd.jobs WHERE producer = names.producer AND order_group = names.name AND held ORDER BY id LIMIT 1
 ) first
 WHERE j.id = first.id AND j.held IS NOT FALSE
   AND NOT EXISTS (
       SELECT FROM shardd.jobs o WHERE o.producer = names.producer AND o.order_group = names.name AND NOT o.held OFFSET 0)
   AND NOT EXISTS (
       SELECT FROM shardd.archive a
        WHERE a.producer = names.producer AND a.order_group = names.name AND a.state <> 'sent' AND a.id < first.id OFFSET 0)
RETURNING j.device_id, j.lane, j.ord, j.id, j.scheduled;

-- name: announce_work
-- Tells all nodes that there is a job for each of these devices, or of a device group (an empty id).
SELECT shardd.announce('shardd_work', device_id) FROM unnest(%(device_ids)s::text[]) AS e(device_id);

-- name: held_order_groups
-- Up to `most` order groups in which a job is held, after the group `after_group` of `after_producer`; and whether none of their jobs is in
-- a lane (`stuck`), because `advance_order_groups` could not see it when the job before was settled, or because of what an operator did.
WITH RECURSIVE held AS (
    (SELECT producer, order_group, 1 AS found FROM shardd.jobs
      WHERE held AND (producer, order_group) > (%(after_producer)s, %(after_group)s)
      ORDER BY producer, order_group, id LIMIT 1)
    UNION ALL
    SELECT n.producer, n.order_group, held.found + 1 FROM held CROSS JOIN LATERAL (
        SELECT producer, order_group FROM shardd.jobs
         WHERE held AND (producer, order_group) > (held.producer, held.order_group) ORDER BY producer, order_group, id LIMIT 1
    ) n
     WHERE held.found < %(most)s
)
SELECT producer, order_group,
       NOT EXISTS (SELECT FROM shardd.jobs o
                    WHERE o.producer = held.producer AND o.order_group = held.order_group AND NOT o.held OFFSET 0) AS stuck
  FROM held;

-- name: end_dead_order_groups
-- Ends the jobs of these order groups (arrays as in advance_order_groups) behind one that will never be sent: it expired, or its recipient
-- opted out. Failed and cancelled jobs and those in doubt may still be retried, so jobs behind them wait.
SELECT shardd.end_jobs(array(
    SELECT j.id
      FROM (SELECT DISTINCT producer, name FROM unnest(%(producers)s::text[], %(groups)s::text[]) AS e(producer, name)) names
     CROSS JOIN LATERAL (
         SELECT min(a.id) AS id FROM shardd.archive a
          WHERE a.producer = names.producer AND a.order_group = names.name AND a.state <> 'sent'
            AND a.state IN ('expired', 'opted_out')
     ) dead
      JOIN shardd.jobs j ON j.producer = names.producer AND j.order_group = names.name AND j.held AND j.id > dead.id
), 'cancelled', 'a job before it in its order group will never be sent', 'cancelled');

-- name: expire_jobs
-- Ends up to `most` jobs whose `expires_at` has passed and that are not in flight.
SELECT shardd.end_jobs(array(
    SELECT id FROM shardd.jobs WHERE expires_at <= now() AND claimed_epoch IS NULL ORDER BY expires_at LIMIT %(most)s
), 'expired', 'not sent before expires_at', 'expired');

-- name: find_doubts
-- Jobs in doubt that a journal may resolve: those that were given up because a node was lost and that one of these incarnations had claimed
-- (`lost`), and those with these ids. With the shard and the incarnation of the claim, and its failures before the doubt.
WITH doubts AS (
    SELECT id, claimed_epoch, attempt, token, device_id, failures, max_attempts, on_doubt, campaign, class, order_group, producer, true AS lost
      FROM shardd.archive WHERE state = 'in_doubt' AND error_class = 'node'
    UNION ALL
    SELECT id, claimed_epoch, attempt, token, device_id, failures, max_attempts, on_doubt, campaign, class, order_group, producer, false
      FROM shardd.archive WHERE id = ANY (%(ids)s::bigint[]) AND state || '' = 'in_doubt' AND error_class IS DISTINCT FROM 'node'
)
SELECT a.id, a.claimed_epoch AS epoch, a.attempt, a.token, a.device_id, greatest(a.failures - 1, 0) AS failures, a.max_attempts, a.on_doubt,
       coalesce(a.campaign, '') || '/' || a.class AS lane, a.order_group, a.producer, e.shard, e.incarnation,
       a.lost AND e.incarnation = ANY (%(incarnations)s::uuid[]) AS lost
  FROM doubts a
  JOIN shardd.epochs e ON e.epoch = a.claimed_epoch
 WHERE NOT a.lost OR a.id = ANY (%(ids)s::bigint[]) OR e.incarnation = ANY (%(incarnations)s::uuid[]);

-- name: resolve_doubts
-- Gives jobs in doubt the outcomes of a journal that was out of reach. Arrays, one element per claim. Returns the ids that changed; a job
-- that a person has retried meanwhile is none of them.
UPDATE shardd.archive a
   SET state = e.state, failures = e.failures, message_id = e.message_id, error = e.error, error_class = e.error_class,
       members_without_keys = e.members_without_keys
  FROM unnest(%(ids)s::bigint[], %(epochs)s::bigint[], %(attempts)s::integer[], %(tokens)s::bigint[], %(states)s::text[],
              %(failures)s::smallint[], %(message_ids)s::text[], %(errors)s::text[], %(error_classes)s::text[], %(members_without_keys)s::integer[])
       AS e(id, epoch, attempt, token, state, failures, message_id, error, error_class, members_without_keys)
 WHERE a.id = ANY (%(ids)s::bigint[]) AND a.id = e.id AND a.state || '' = 'in_doubt'
   AND a.claimed_epoch = e.epoch AND a.attempt = e.attempt AND a.token = e.token
RETURNING a.id;

-- name: return_doubts
-- Puts jobs in doubt that were not sent back into the queue. Arrays, one element per claim, fenced as in resolve_doubts. Returns the ids of
-- those that are queued now (`obstacle` NULL), and of those that cannot be, with the obstacle: see the view `retries`.
WITH known AS MATERIALIZED (
    SELECT e.*, r.obstacle
      FROM unnest(%(ids)s::bigint[], %(epochs)s::bigint[], %(attempts)s::integer[], %(tokens)s::bigint[], %(failures)s::smallint[],
                  %(worker_deaths)s::smallint[], %(errors)s::text[], %(error_classes)s::text[])
           AS e(id, epoch, attempt, token, failures, worker_deaths, error, error_class)
      CROSS JOIN LATERAL (
          SELECT obstacle FROM shardd.retries WHERE id = e.id AND state || '' = 'in_doubt' OFFSET 0) r
), back AS (
    DELETE FROM shardd.archive a USING known k
     WHERE a.id = ANY (%(ids)s::bigint[]) AND a.id = k.id AND k.obstacle IS NULL AND a.state || '' = 'in_doubt'
       AND a.claimed_epoch = k.epoch AND a.attempt = k.attempt AND a.token = k.token
    RETURNING a.*, k.failures AS failures_now, k.worker_deaths AS deaths_now, k.error AS error_now, k.error_class AS error_class_now
), queued AS (
    INSERT INTO shardd.jobs (id, device_id, ${retried}, failures, worker_deaths, error, error_class)
    OVERRIDING SYSTEM VALUE
    SELECT id, CASE WHEN device_group IS NULL THEN device_id END, ${retried}, failures_now, deaths_now, error_now, error_class_now
      FROM back ORDER BY id
    RETURNING id
)
SELECT id, NULL::text AS obstacle FROM queued
UNION ALL
SELECT id, obstacle FROM known WHERE obstacle IS NOT NULL;

-- name: promote_due
-- Lets up to `most` scheduled jobs that are due join their lanes. Returns a hint (device, lane and position) for each; a job of a device
-- group has no device yet.
WITH due AS MATERIALIZED (
    SELECT id FROM shardd.jobs WHERE scheduled AND NOT held AND due_at <= now()
     ORDER BY due_at LIMIT %(most)s FOR UPDATE SKIP LOCKED
)
UPDATE shardd.jobs j SET scheduled = false FROM due WHERE j.id = due.id
RETURNING j.device_id, j.lane, j.ord, j.id;

-- name: new_work
-- The lanes of the next `most` jobs after the id `seen`, with the first position of these jobs in each, the highest of their ids, and
-- their number. Commits become visible out of order, so this alone would miss rows; `find_work` finds them.
WITH added AS MATERIALIZED (
    SELECT device_id, lane, ord, id FROM shardd.jobs
     WHERE id > %(seen)s AND NOT scheduled AND claimed_epoch IS NULL
     ORDER BY id LIMIT %(most)s
)
SELECT DISTINCT ON (device_id, lane) device_id, lane, ord, id, max(id) OVER () AS newest, count(*) OVER () AS jobs
  FROM added ORDER BY device_id, lane, ord, id;

-- name: newest_id
-- The highest id of a live job; 0 when there is none.
SELECT coalesce(max(id), 0) FROM shardd.jobs;

-- name: find_work
-- Up to `most` lanes with queued jobs, after the lane `after_lane` of the device `after_device`, and the first position of each: a skip
-- scan, one index probe per lane. Of each device the first `per_device` lanes (`~` sorts after every lane).
WITH RECURSIVE head AS (
    (SELECT device_id, lane, ord, id, 1 AS of_device, 1 AS found FROM shardd.jobs
      WHERE NOT scheduled AND device_id IS NOT NULL AND claimed_epoch IS NULL
        AND (device_id, lane) > (%(after_device)s, %(after_lane)s)
      ORDER BY device_id, lane, ord, id LIMIT 1)
    UNION ALL
    SELECT n.device_id, n.lane, n.ord, n.id,
           CASE WHEN n.device_id = head.device_id THEN head.of_device + 1 ELSE 1 END, head.found + 1
      FROM head CROSS JOIN LATERAL (
        SELECT device_id, lane, ord, id FROM shardd.jobs
         WHERE NOT scheduled AND device_id IS NOT NULL AND claimed_epoch IS NULL
           AND (device_id, lane) > (head.device_id, CASE WHEN head.of_device < %(per_device)s THEN head.lane ELSE '~' END)
         ORDER BY device_id, lane, ord, id LIMIT 1
    ) n
     WHERE head.found < %(most)s
)
SELECT device_id, lane, ord, id, of_device FROM head;

-- name: find_lanes
-- The same for one device: up to `most` lanes after `after_lane`.
WITH RECURSIVE head AS (
    (SELECT lane, ord, id, 1 AS found FROM shardd.jobs
      WHERE device_id = %(device_id)s AND lane > %(after_lane)s AND NOT scheduled AND claimed_epoch IS NULL
      ORDER BY lane, ord, id LIMIT 1)
    UNION ALL
    SELECT n.lane, n.ord, n.id, head.found + 1
      FROM head CROSS JOIN LATERAL (
        SELECT lane, ord, id FROM shardd.jobs
         WHERE device_id = %(device_id)s AND lane > head.lane AND NOT scheduled AND claimed_epoch IS NULL
         ORDER BY lane, ord, id LIMIT 1
    ) n
     WHERE head.found < %(most)s
)
SELECT %(device_id)s::text AS device_id, lane, ord, id FROM head;

-- name: page_end
-- The id of the last one of the next `most` jobs after the id `after`; no row: there are fewer.
SELECT id FROM shardd.jobs WHERE id > %(after)s ORDER BY id OFFSET %(most)s::bigint - 1 LIMIT 1;

-- name: claims_of_incarnation
-- The claims of this incarnation after the id `after`, up to `upto`: after a broken connection, the database's view of what is in flight.
SELECT ${claim} FROM shardd.jobs j JOIN shardd.epochs e ON e.epoch = j.claimed_epoch
 WHERE j.id > %(after)s AND j.id <= %(upto)s AND j.claimed_epoch IS NOT NULL AND e.incarnation = %(incarnation)s;

-- name: live_claims
-- The claims of this incarnation among these jobs.
SELECT ${claim} FROM shardd.jobs j JOIN shardd.epochs e ON e.epoch = j.claimed_epoch
 WHERE j.id = ANY (%(ids)s::bigint[]) AND e.incarnation = %(incarnation)s;

-- name: old_claims
-- Claims of more than `age` seconds of this incarnation (`ours`), or without a valid lease, after the id `after`, up to `upto`; with the
-- node that made them.
SELECT ${claim}, e.node, e.incarnation = %(incarnation)s AS ours
  FROM shardd.jobs j
  JOIN shardd.epochs e ON e.epoch = j.claimed_epoch
  LEFT JOIN shardd.leases l ON l.epoch = j.claimed_epoch AND l.expires_at > now()
 WHERE j.id > %(after)s AND j.id <= %(upto)s
   AND j.claimed_epoch IS NOT NULL AND j.claimed_at < now() - make_interval(secs => %(age)s)
   AND (l.epoch IS NULL OR e.incarnation = %(incarnation)s);

-- name: orphaned_claims
-- Claims after the id `after`, up to `upto`, whose epoch has no valid lease: the node and the incarnation that made them; whether that is
-- alive; and whether nothing was in flight under the epoch when its lease was given back, so that the claim never reached a worker
-- (`drained`).
SELECT ${claim}, e.node, e.incarnation, e.shard, e.drained_at IS NOT NULL AS drained,
       n.seen_at IS NOT NULL AND n.seen_at > now() - make_interval(secs => %(grace)s)
       -- A node that is away has drained its workers: what it has not settled by now is known only to a journal that is gone.
       AND coalesce(n.away_since, 'infinity') > now() - make_interval(secs => %(grace)s) AS node_alive
  FROM shardd.jobs j
  JOIN shardd.epochs e ON e.epoch = j.claimed_epoch
  LEFT JOIN shardd.nodes n ON n.incarnation = e.incarnation
 WHERE j.id > %(after)s AND j.id <= %(upto)s AND j.claimed_epoch IS NOT NULL
   AND NOT EXISTS (SELECT FROM shardd.leases l WHERE l.epoch = j.claimed_epoch AND l.expires_at > now());

-- name: save_receipt
-- Records a receipt for messages of a device; the earliest time is kept. `kind` is sent (which changes nothing), delivered, read (which
-- includes delivered) or failed: a platform that accepted a message reports that it could not deliver it. Reports come in any order, so a
-- message that was delivered was sent, whatever was reported before. `failed` with a message id is always such a report.
-- A job that was to repeat a message that is delivered after all ends, unless it is in flight.
WITH saved AS (
UPDATE shardd.archive
   SET delivered_at = CASE WHEN %(kind)s IN ('delivered', 'read') THEN least(delivered_at, to_timestamp(%(at)s)) ELSE delivered_at END,
       read_at = CASE WHEN %(kind)s = 'read' THEN least(read_at, to_timestamp(%(at)s)) ELSE read_at END,
       (state, error, error_class) = (
           SELECT CASE WHEN fails THEN 'failed' WHEN arrives THEN 'sent' ELSE state END,
                  CASE WHEN fails THEN %(error)s WHEN NOT arrives THEN error END,
                  CASE WHEN fails THEN %(error_class)s WHEN NOT arrives THEN error_class END
             FROM (SELECT %(kind)s = 'failed' AND state = 'sent' AND delivered_at IS NULL AS fails,
                          %(kind)s IN ('delivered', 'read') AND state = 'failed' AS arrives) report)
 WHERE message_id = ANY (%(message_ids)s::text[]) AND device_id = %(device_id)s
RETURNING id, resent_as
)
SELECT id, CASE WHEN resent_as IS NOT NULL AND %(kind)s IN ('delivered', 'read') THEN array(SELECT shardd.end_jobs(
           array[resent_as], 'cancelled', format('the message of job %%s, which it repeats, was delivered after all', id), 'cancelled')) END
  FROM saved;

-- name: save_retry_receipt
-- Records that a device of the recipient cannot decrypt messages of a device. If it is the phone of a person (`by` 0), and the message was
-- not sent again, `resend_unreadable` looks at it in `delay` seconds.
UPDATE shardd.archive a
   SET unreadable_at = coalesce(a.unreadable_at, now()),
       resend_at = CASE WHEN a.resent_as IS NOT NULL OR %(by)s <> 0 OR a.recipient ~ '@g[.]us$' THEN a.resend_at
                        ELSE coalesce(a.resend_at, now() + make_interval(secs => %(delay)s)) END,
       unreadable_why = CASE WHEN a.recipient ~ '@g[.]us$' THEN 'a member of the group could not decrypt it'
                             WHEN %(by)s <> 0 AND a.unreadable_why IS NULL
                             THEN format('linked device %%s of the recipient could not decrypt it', %(by)s) ELSE a.unreadable_why END
 WHERE a.message_id = ANY (%(message_ids)s::text[]) AND a.device_id = %(device_id)s AND a.state = 'sent';

-- name: resend_unreadable
-- Decides about up to `most` messages that the phones of their recipients cannot decrypt. `policy`: of jobs without one of their own;
-- `max_resends`: how often a message is sent again, at most.
SELECT id, resent_as, why FROM shardd.resend_unreadable(%(policy)s, %(max_resends)s, %(most)s);

-- name: confirm_claim
-- Settles the claim that a platform's report names (`id`, `epoch`, `attempt`, `token`), because its answer was lost: a job in doubt becomes
-- `state` (sent or failed); one that waits for another try (on_doubt: retry) is sent. Returns whether the claim is settled now; false: it
-- is in flight, or unknown. After job retry the token is another, so that an old report does not settle a new message.
WITH resolved AS (
    UPDATE shardd.archive a SET state = %(state)s, message_id = %(message_id)s, error = %(error)s, error_class = %(error_class)s
     WHERE a.id = %(id)s AND a.state || '' = 'in_doubt' AND a.attempt = %(attempt)s AND a.token = %(token)s
    RETURNING a.id
), gone AS (
    DELETE FROM shardd.jobs j
     WHERE j.id = %(id)s AND j.attempt = %(attempt)s AND j.token = %(token)s AND j.claimed_epoch IS NULL AND %(state)s = 'sent'
    RETURNING j.*
), ended AS (
    INSERT INTO shardd.archive (id, ${archived}, failures, claimed_epoch, claimed_at, state, message_id)
    SELECT id, ${archived}, failures, %(epoch)s, now(), 'sent', %(message_id)s FROM gone
    RETURNING id
)
SELECT EXISTS (SELECT FROM resolved) OR EXISTS (SELECT FROM ended)
       OR EXISTS (SELECT FROM shardd.archive a
                   WHERE a.id = %(id)s AND a.attempt = %(attempt)s AND a.token = %(token)s AND a.state || '' <> 'in_doubt');

-- name: persons_of_messages
-- The addresses of the persons to whom these messages of a device were.
SELECT DISTINCT a.address FROM shardd.archive a
 WHERE a.message_id = ANY (%(message_ids)s::text[]) AND a.device_id = %(device_id)s AND a.address NOT IN ('', 'forgotten');

-- name: prepare_archive
-- Creates the archive's partitions of this month and the next two.
SELECT shardd.prepare_archive();
