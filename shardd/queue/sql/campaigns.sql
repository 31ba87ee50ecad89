-- Campaigns: for the router, and for operators through `shardd campaign`.

-- name: running_campaigns
-- Every campaign whose jobs may be sent.
SELECT id, weight, device_cap FROM shardd.campaigns WHERE state = 'running';

-- name: campaign_sends
-- Messages of running campaigns with a cap, by device and day, since the day `since`.
SELECT t.campaign, t.device_id, t.day, t.sent
  FROM shardd.campaign_days t JOIN shardd.campaigns c ON c.id = t.campaign
 WHERE c.state = 'running' AND c.device_cap IS NOT NULL AND t.day >= %(since)s::date;

-- name: shown_campaign
-- A campaign `c` without its numbers. What is shown as its state is `finished` while it runs, has had jobs, and has none that is left. Each
-- look is for the first row from the campaign on, in the order of the index on campaigns: by campaign alone, the planner may read all jobs
-- to find that one has none.
c.id, c.label, c.state,
       CASE WHEN c.state = 'running'
             AND (SELECT campaign FROM shardd.jobs WHERE campaign >= c.id ORDER BY campaign, id LIMIT 1) IS DISTINCT FROM c.id
             AND (SELECT campaign FROM shardd.archive WHERE campaign >= c.id ORDER BY campaign, state, settled_at LIMIT 1) = c.id
            THEN 'finished' ELSE c.state END AS shown_state,
       c.why, c.state_since, c.weight, c.device_cap, c.created_at;

-- name: list_campaigns
-- Campaigns, newest first, with their live jobs, counted up to `most_jobs` of each (NULL: all of them), their messages of the last ten
-- minutes, and the time of the last one; NULL filters pass everything. The total of messages is left out: it would read the whole archive.
WITH chosen AS (
    SELECT * FROM shardd.campaigns
     WHERE (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s::text[])) AND (%(state)s::text IS NULL OR state = %(state)s)
     ORDER BY created_at DESC, id LIMIT %(most)s
), live AS (
    SELECT campaign, count(*) AS jobs FROM shardd.jobs
     WHERE %(most_jobs)s::integer IS NULL AND campaign IS NOT NULL AND (%(ids)s::text[] IS NULL OR campaign = ANY (%(ids)s::text[]))
     GROUP BY campaign
     UNION ALL
    SELECT c.id, (SELECT count(*) FROM (SELECT FROM shardd.jobs j WHERE j.campaign = c.id LIMIT %(most_jobs)s) counted)
      FROM chosen c WHERE %(most_jobs)s::integer IS NOT NULL
)
SELECT ${shown_campaign}, coalesce(l.jobs, 0) AS live, r.sent AS sent_lately, s.settled_at AS last_sent
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
SELECT ${shown_campaign}
  FROM shardd.campaigns c LEFT JOIN shardd.campaigns a ON a.id = %(after)s::text
 WHERE (%(state)s::text IS NULL OR c.state = %(state)s)
   AND (%(after)s::text IS NULL OR c.created_at < a.created_at OR c.created_at = a.created_at AND c.id > a.id)
 ORDER BY c.created_at DESC, c.id LIMIT %(most)s;

-- name: campaign_title
-- One campaign without its numbers.
SELECT ${shown_campaign} FROM shardd.campaigns c WHERE c.id = %(id)s;

-- name: one_snapshot
-- Lets all statements of the transaction see the same rows.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;

-- name: pages_by_index
-- Lets the statements of the transaction that read a page of rows in the order of an index do so: of a large campaign, the planner would
-- rather read and sort the whole table for each page.
SELECT set_config(name, 'off', true) FROM unnest(array['enable_seqscan', 'enable_bitmapscan', 'enable_sort']) AS settings(name);

-- name: live_jobs_of_campaign
-- The first `most` live jobs of a campaign after the id `after`, counted by device (`by_device`; otherwise together), lane, and the device
-- group in whose pool they wait. `upto`, in each row: the last id among them.
WITH page AS MATERIALIZED (
    SELECT id, CASE WHEN %(by_device)s THEN device_id END AS device_id, lane, claimed_epoch, scheduled, held, due_at,
           CASE WHEN device_id IS NULL AND NOT scheduled THEN device_group END AS pool
      FROM shardd.jobs WHERE campaign = %(id)s AND id > %(after)s ORDER BY id LIMIT %(most)s
)
SELECT device_id, lane, pool, count(*) AS jobs, count(*) FILTER (WHERE claimed_epoch IS NULL AND NOT scheduled) AS queued,
       count(*) FILTER (WHERE scheduled) AS scheduled, count(claimed_epoch) AS sending, min(due_at) FILTER (WHERE NOT held) AS next_due,
       (SELECT max(id) FROM page) AS upto
  FROM page GROUP BY device_id, lane, pool;

-- name: waits_of_lanes
-- What the lanes of these names wait for on each device that holds them back for longer than a gap.
SELECT device_id, lane, why, until FROM shardd.lane_waits
 WHERE lane = ANY (%(lanes)s::text[]) AND until > now() AND why <> 'its gap';

-- name: ended_jobs_of_campaign
-- The first `most` finished jobs of a campaign after a state and moment, in that order, and those that ended at the same moment as the last
-- one; counted by device (`by_device`; otherwise together, and of the archive only an index is read) and state, with those of the last ten
-- minutes. `upto_state` and `upto_moment`, in each row: of the last one.
WITH page AS MATERIALIZED (
    SELECT state, settled_at, CASE WHEN %(by_device)s THEN device_id END AS device_id
      FROM shardd.archive WHERE campaign = %(id)s AND (state, settled_at) > (%(after_state)s, %(after_moment)s::timestamptz)
     ORDER BY state, settled_at FETCH FIRST %(most)s ROWS WITH TIES
), last AS (
    SELECT max(state) AS state FROM page
)
SELECT device_id, state, count(*) AS jobs, count(*) FILTER (WHERE settled_at > now() - interval '10 minutes') AS lately,
       min(settled_at) AS first, max(settled_at) AS last,
       min(settled_at) FILTER (WHERE settled_at > now() - interval '10 minutes') AS first_lately, (SELECT state FROM last) AS upto_state,
       (SELECT max(p.settled_at) FROM page p JOIN last l ON p.state = l.state) AS upto_moment
  FROM page GROUP BY device_id, state;

-- name: devices_of_campaign
-- These devices, removed ones too, with what a campaign sent through them today, on their own calendars: counted only for a campaign with a
-- cap. `zone` is the time zone of devices without one. Of a device that is not there, only its id is known.
SELECT e.id AS device_id, d.transport, shardd.shown_state(d) AS device_state, coalesce(t.sent, 0) AS sent_today
  FROM unnest(%(ids)s::text[]) AS e(id)
  LEFT JOIN shardd.devices d ON d.id = e.id
  LEFT JOIN shardd.campaign_days t ON t.campaign = %(id)s AND t.device_id = e.id
        AND t.day = (now() AT TIME ZONE coalesce(d.timezone, %(zone)s))::date;

-- name: device_groups_of_pools
-- These device groups, with the number of their devices and of those that can send.
SELECT e.id AS device_group, count(d.id) AS devices,
       count(d.id) FILTER (WHERE d.paused_at IS NULL AND d.state IN (${can_send})) AS able
  FROM unnest(%(ids)s::text[]) AS e(id)
  LEFT JOIN shardd.device_group_members m ON m.device_group = e.id
  LEFT JOIN shardd.devices d ON d.id = m.device_id AND d.removed_at IS NULL
 GROUP BY e.id ORDER BY e.id;

-- name: campaign_revocations
-- How many revocations of a campaign's messages are in which state; of each message, the last one. Looked for among the next `most` of all
-- messages that have one, after the id `after`. The row without a state: the last one of these, NULL if there were fewer.
WITH page AS MATERIALIZED (
    SELECT revokes, job_id FROM shardd.revocations WHERE revokes > %(after)s ORDER BY revokes LIMIT %(most)s
), states AS (
    SELECT (SELECT o.state FROM shardd.all_outcomes o WHERE o.id = p.job_id) AS state
      FROM page p JOIN shardd.archive a ON a.id = p.revokes AND a.campaign = %(id)s
)
SELECT state, count(*) AS jobs, NULL::bigint AS upto FROM states WHERE state IS NOT NULL GROUP BY state
UNION ALL
SELECT NULL, 0, CASE WHEN count(*) = %(most)s THEN max(revokes) END FROM page;

-- name: add_campaigns
-- Adds campaigns with the same terms. Returns the ids that are new.
INSERT INTO shardd.campaigns (id, label, weight, device_cap, state)
SELECT id, nullif(%(label)s, ''), coalesce(%(weight)s, 1), nullif(%(device_cap)s::integer, 0), %(state)s
  FROM unnest(%(ids)s::text[]) id
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: set_campaigns
-- Changes the terms that are given; a cap of 0 and an empty label remove theirs. Returns the ids that exist, and whether each was changed.
WITH written AS (
    UPDATE shardd.campaigns c
       SET label = CASE WHEN %(label)s::text IS NULL THEN label ELSE nullif(%(label)s, '') END,
           weight = coalesce(%(weight)s, weight),
           device_cap = CASE WHEN %(device_cap)s::integer IS NULL THEN device_cap ELSE nullif(%(device_cap)s, 0) END
     WHERE id = ANY (%(ids)s::text[])
    RETURNING c.id, c AS row
)
SELECT w.id, w.row IS DISTINCT FROM before AS changed FROM written w JOIN shardd.campaigns before ON before.id = w.id;

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
-- time, and its reason unless a new one is given; a cancelled one stays cancelled. Returns the ids that are now in the state, and whether
-- each was changed.
WITH written AS (
    UPDATE shardd.campaigns
       SET state_since = CASE WHEN state = %(state)s THEN state_since ELSE now() END, why = %(why)s, state = %(state)s
     WHERE id = ANY (%(ids)s::text[]) AND state <> 'cancelled' AND (state <> %(state)s OR why IS DISTINCT FROM coalesce(%(why)s, why))
    RETURNING id
)
SELECT id, id IN (SELECT id FROM written) AS changed FROM shardd.campaigns WHERE id = ANY (%(ids)s::text[]) AND state <> 'cancelled';

-- name: cancel_campaigns
-- Cancels campaigns for good: none of their jobs is claimed after the commit. Returns the ids that were not cancelled before.
UPDATE shardd.campaigns SET state = 'cancelled', why = %(why)s, state_since = now()
 WHERE id = ANY (%(ids)s::text[]) AND state <> 'cancelled'
RETURNING id;

-- name: count_campaign_jobs
-- The state, the live jobs, and the number of them in flight, of those of these campaigns that exist; counted up to `most` of each (NULL: all
-- of them). `more`: there may be others.
SELECT c.id, c.state, l.live, l.in_flight, coalesce(l.live >= %(most)s::integer, false) AS more
  FROM shardd.campaigns c
 CROSS JOIN LATERAL (
     SELECT count(*) AS live, count(claimed_epoch) AS in_flight
       FROM (SELECT claimed_epoch FROM shardd.jobs j WHERE j.campaign = c.id LIMIT %(most)s) counted
 ) l
 WHERE c.id = ANY (%(ids)s::text[]);

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
