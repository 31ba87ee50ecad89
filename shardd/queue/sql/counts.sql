-- How much there is: statements that read every row of a table.

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
