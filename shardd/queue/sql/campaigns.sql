-- Campaigns: for the router, and for operators through `shardd campaign`.

-- name: running_campaigns
-- Every campaign whose jobs may be sent.
SELECT id, weight, device_cap FROM shardd.campaigns WHERE state = 'running';

-- name: campaign_sends
-- Messages of running campaigns with a cap, by device and day, since the day `since`.
SELECT t.campaign, t.device_id, t.day, t.sent
  FROM shardd.campaign_days t JOIN shardd.campaigns c ON c.id = t.campaign
 WHERE c.state = 'running' AND c.device_cap IS NOT NULL AND t.day >= %(since)s::date;

-- name: list_campaigns
-- Campaigns, newest first, with their live jobs, whether any job has ended, their messages of the last ten minutes, and the time of the
-- last one; NULL filters pass everything. The total of messages is left out: it would read the whole archive.
WITH chosen AS (
    SELECT * FROM shardd.campaigns
     WHERE (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s::text[])) AND (%(state)s::text IS NULL OR state = %(state)s)
     ORDER BY created_at DESC, id LIMIT %(most)s
), live AS (
    SELECT campaign, count(*) AS jobs FROM shardd.jobs
     WHERE campaign IS NOT NULL AND (%(ids)s::text[] IS NULL OR campaign = ANY (%(ids)s::text[]))
     GROUP BY campaign
)
SELECT c.id, c.label, c.state, c.why, c.state_since, c.weight, c.device_cap, c.created_at,
       coalesce(l.jobs, 0) AS live, EXISTS (SELECT FROM shardd.archive WHERE campaign = c.id) AS has_ended_jobs,
       r.sent AS sent_lately, s.settled_at AS last_sent
  FROM chosen c
  LEFT JOIN live l ON l.campaign = c.id
 CROSS JOIN LATERAL (
     SELECT count(*) AS sent FROM shardd.archive
      WHERE campaign = c.id AND state = 'sent' AND settled_at > now() - interval '10 minutes'
 ) r
  LEFT JOIN LATERAL (
     SELECT settled_at FROM shardd.archive WHERE campaign = c.id AND state = 'sent' ORDER BY settled_at DESC LIMIT 1
 ) s ON true
 ORDER BY c.created_at DESC, c.id;

-- name: page_of_campaigns
-- Campaigns without their numbers, newest first, after the one with the id `after`; NULL filters pass everything.
SELECT c.id, c.label, c.state, c.why, c.state_since, c.weight, c.device_cap, c.created_at
  FROM shardd.campaigns c LEFT JOIN shardd.campaigns a ON a.id = %(after)s::text
 WHERE (%(state)s::text IS NULL OR c.state = %(state)s)
   AND (%(after)s::text IS NULL OR c.created_at < a.created_at OR c.created_at = a.created_at AND c.id > a.id)
 ORDER BY c.created_at DESC, c.id LIMIT %(most)s;

-- name: campaign_title
-- One campaign without its numbers.
SELECT id, label, state, why, state_since, weight, device_cap, created_at FROM shardd.campaigns WHERE id = %(id)s;

-- name: count_campaign
-- A campaign's jobs, as campaign_by_device counts them, for all devices together: of the archive, only an index is read.
SELECT NULL AS device_id, NULL AS transport, NULL AS device_state, l.queued, l.scheduled, l.sending, a.sent, a.failed, a.in_doubt,
       a.expired, a.opted_out, a.cancelled, a.sent_lately, a.first_lately, 0::bigint AS sent_today, 0::bigint AS lane_waits,
       NULL AS lane_why, NULL::timestamptz AS lane_until, l.next_due, a.first_sent, a.last_sent
  FROM (SELECT count(*) FILTER (WHERE claimed_epoch IS NULL AND NOT scheduled) AS queued,
               count(*) FILTER (WHERE scheduled) AS scheduled, count(claimed_epoch) AS sending,
               min(due_at) FILTER (WHERE NOT held) AS next_due
          FROM shardd.jobs WHERE campaign = %(id)s) l
 CROSS JOIN (SELECT count(*) FILTER (WHERE state = 'sent') AS sent, count(*) FILTER (WHERE state = 'failed') AS failed,
                    count(*) FILTER (WHERE state = 'in_doubt') AS in_doubt, count(*) FILTER (WHERE state = 'expired') AS expired,
                    count(*) FILTER (WHERE state = 'opted_out') AS opted_out, count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
                    count(*) FILTER (WHERE state = 'sent' AND settled_at > now() - interval '10 minutes') AS sent_lately,
                    min(settled_at) FILTER (WHERE state = 'sent' AND settled_at > now() - interval '10 minutes') AS first_lately,
                    min(settled_at) FILTER (WHERE state = 'sent') AS first_sent,
                    max(settled_at) FILTER (WHERE state = 'sent') AS last_sent
               FROM shardd.archive WHERE campaign = %(id)s) a;

-- name: campaign_by_device
-- A campaign's jobs, counted for each device that it uses, those without a device in one row; most waiting first. `sent_today`: on the
-- device's own calendar, counted only for a campaign with a cap; `zone` is the time zone of devices without one. `lane_waits`: what waits
-- for more than a gap.
WITH live AS (
    SELECT device_id, lane, count(*) FILTER (WHERE claimed_epoch IS NULL AND NOT scheduled) AS queued,
           count(*) FILTER (WHERE scheduled) AS scheduled, count(claimed_epoch) AS sending,
           min(due_at) FILTER (WHERE NOT held) AS next_due
      FROM shardd.jobs WHERE campaign = %(id)s GROUP BY device_id, lane
), counts AS (
    SELECT l.device_id, l.queued, l.scheduled, l.sending, l.next_due,
           CASE WHEN w.why IS NULL THEN 0 ELSE l.queued END AS lane_waits, w.why AS lane_why, w.until AS lane_until,
           0::bigint AS sent, 0::bigint AS failed, 0::bigint AS in_doubt, 0::bigint AS expired, 0::bigint AS opted_out,
           0::bigint AS cancelled, 0::bigint AS sent_lately, NULL::timestamptz AS first_lately, NULL::timestamptz AS first_sent,
           NULL::timestamptz AS last_sent
      FROM live l
      LEFT JOIN shardd.lane_waits w ON w.device_id = l.device_id AND w.lane = l.lane AND w.until > now() AND w.why <> 'its gap'
    UNION ALL
    SELECT device_id, 0, 0, 0, NULL, 0, NULL, NULL,
           count(*) FILTER (WHERE state = 'sent'), count(*) FILTER (WHERE state = 'failed'),
           count(*) FILTER (WHERE state = 'in_doubt'), count(*) FILTER (WHERE state = 'expired'),
           count(*) FILTER (WHERE state = 'opted_out'), count(*) FILTER (WHERE state = 'cancelled'),
           count(*) FILTER (WHERE state = 'sent' AND settled_at > now() - interval '10 minutes'),
           min(settled_at) FILTER (WHERE state = 'sent' AND settled_at > now() - interval '10 minutes'),
           min(settled_at) FILTER (WHERE state = 'sent'), max(settled_at) FILTER (WHERE state = 'sent')
      FROM shardd.archive WHERE campaign = %(id)s GROUP BY device_id
), summed AS (
    SELECT device_id, sum(queued)::bigint AS queued, sum(scheduled)::bigint AS scheduled, sum(sending)::bigint AS sending,
           min(next_due) AS next_due, sum(sent)::bigint AS sent, sum(failed)::bigint AS failed, sum(in_doubt)::bigint AS in_doubt,
           sum(expired)::bigint AS expired, sum(opted_out)::bigint AS opted_out, sum(cancelled)::bigint AS cancelled,
           sum(sent_lately)::bigint AS sent_lately, min(first_lately) AS first_lately,
           sum(lane_waits)::bigint AS lane_waits, min(lane_why) FILTER (WHERE lane_waits > 0) AS lane_why,
           min(lane_until) FILTER (WHERE lane_waits > 0) AS lane_until, min(first_sent) AS first_sent, max(last_sent) AS last_sent
      FROM counts GROUP BY device_id
)
SELECT s.device_id, d.transport,
       shardd.shown_state(d) AS device_state,
       s.queued, s.scheduled, s.sending, s.sent, s.failed, s.in_doubt, s.expired, s.opted_out, s.cancelled, s.sent_lately,
       s.first_lately, coalesce(t.sent, 0) AS sent_today, s.lane_waits, s.lane_why, s.lane_until, s.next_due, s.first_sent, s.last_sent
  FROM summed s
  LEFT JOIN shardd.devices d ON d.id = s.device_id
  LEFT JOIN shardd.campaign_days t ON t.campaign = %(id)s AND t.device_id = s.device_id
        AND t.day = (now() AT TIME ZONE coalesce(d.timezone, %(zone)s))::date
 ORDER BY s.queued + s.scheduled DESC, s.sent DESC, s.device_id;

-- name: campaign_pools
-- The device groups in whose pools a campaign's jobs wait, with the number of their devices that can send.
SELECT j.device_group, j.jobs, count(d.id) AS devices,
       count(d.id) FILTER (WHERE d.paused_at IS NULL AND d.state IN (${can_send})) AS able
  FROM (SELECT device_group, count(*) AS jobs FROM shardd.jobs
         WHERE campaign = %(id)s AND device_id IS NULL AND NOT scheduled GROUP BY device_group) j
  LEFT JOIN shardd.device_group_members m ON m.device_group = j.device_group
  LEFT JOIN shardd.devices d ON d.id = m.device_id AND d.removed_at IS NULL
 GROUP BY j.device_group, j.jobs ORDER BY j.jobs DESC, j.device_group;

-- name: campaign_revocations
-- How many revocations of a campaign's messages are in which state; of each message, the last one.
SELECT o.state, count(*) AS jobs
  FROM shardd.revocations r
  JOIN shardd.archive a ON a.id = r.revokes AND a.campaign = %(id)s
  JOIN shardd.all_outcomes o ON o.id = r.job_id
 GROUP BY o.state ORDER BY jobs DESC, o.state;

-- name: add_campaigns
-- Adds campaigns with the same terms. Returns the ids that are new.
INSERT INTO shardd.campaigns (id, label, weight, device_cap, state)
SELECT id, nullif(%(label)s, ''), coalesce(%(weight)s, 1), nullif(%(device_cap)s::integer, 0), %(state)s
  FROM unnest(%(ids)s::text[]) id
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: set_campaigns
-- Changes the terms that are given; a cap of 0 and an empty label remove theirs. Returns the ids that exist.
UPDATE shardd.campaigns
   SET label = CASE WHEN %(label)s::text IS NULL THEN label ELSE nullif(%(label)s, '') END,
       weight = coalesce(%(weight)s, weight),
       device_cap = CASE WHEN %(device_cap)s::integer IS NULL THEN device_cap ELSE nullif(%(device_cap)s, 0) END
 WHERE id = ANY (%(ids)s::text[])
RETURNING id;

-- name: count_todays_sends
-- Counts the messages that campaigns sent today, or may have sent, on each device's own calendar: they are counted only while there is a
-- cap, so a new cap would miss the earlier ones of its day.
INSERT INTO shardd.campaign_days AS t (campaign, device_id, day, sent)
SELECT a.campaign, a.device_id, today.day, count(*)
  FROM shardd.archive a
  JOIN shardd.devices d ON d.id = a.device_id
 CROSS JOIN LATERAL (SELECT coalesce(d.timezone, %(zone)s) AS zone) z
 CROSS JOIN LATERAL (SELECT (now() AT TIME ZONE z.zone)::date AS day) today
 WHERE a.campaign = ANY (%(ids)s::text[]) AND a.state IN ('sent', 'in_doubt') AND a.settled_at > now() - interval '25 hours'
   AND (a.settled_at AT TIME ZONE z.zone)::date = today.day
 GROUP BY a.campaign, a.device_id, today.day
ON CONFLICT (campaign, device_id, day) DO UPDATE SET sent = greatest(t.sent, EXCLUDED.sent);

-- name: set_campaign_state
-- Pauses or resumes campaigns; it applies to every claim that begins after the commit. A campaign that is already in the state keeps its
-- time, and its reason unless a new one is given; a cancelled one stays cancelled. Returns the ids that are now in the state.
UPDATE shardd.campaigns
   SET state_since = CASE WHEN state = %(state)s THEN state_since ELSE now() END,
       why = CASE WHEN state = %(state)s THEN coalesce(%(why)s, why) ELSE %(why)s END,
       state = %(state)s
 WHERE id = ANY (%(ids)s::text[]) AND state <> 'cancelled'
RETURNING id;

-- name: cancel_campaigns
-- Cancels campaigns for good: none of their jobs is claimed after the commit. Returns the ids that were not cancelled before.
UPDATE shardd.campaigns SET state = 'cancelled', why = %(why)s, state_since = now()
 WHERE id = ANY (%(ids)s::text[]) AND state <> 'cancelled'
RETURNING id;

-- name: count_campaign_jobs
-- The state, the live jobs, and the number of them in flight, of those of these campaigns that exist.
SELECT c.id, c.state, count(j.id) AS live, count(j.claimed_epoch) AS in_flight
  FROM shardd.campaigns c LEFT JOIN shardd.jobs j ON j.campaign = c.id
 WHERE c.id = ANY (%(ids)s::text[])
 GROUP BY c.id, c.state;

-- name: cancelled_campaigns
-- Cancelled campaigns that still have jobs in the live table, and why they were cancelled: one index probe for each.
SELECT id, why FROM shardd.campaigns c
 WHERE state = 'cancelled' AND EXISTS (SELECT FROM shardd.jobs j WHERE j.campaign = c.id);

-- name: end_cancelled_jobs
-- Ends up to `most` jobs of a campaign that are not in flight and whose id is above `after`. Returns their ids; continue from the
-- highest, so that no chunk reads the dead rows of earlier ones.
SELECT shardd.end_jobs(array(
    SELECT id FROM shardd.jobs
     WHERE campaign = %(campaign)s AND id > %(after)s AND claimed_epoch IS NULL
     ORDER BY id LIMIT %(most)s FOR UPDATE SKIP LOCKED
), 'cancelled', %(error)s, 'cancelled');
