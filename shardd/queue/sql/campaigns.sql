-- Campaigns as the router needs them, and devices for the jobs of device groups.

-- name: running_campaigns
-- Every campaign whose jobs may be sent.
SELECT id, weight, device_cap FROM shardd.campaigns WHERE state = 'running';

-- name: count_campaigns
-- Campaigns that have live jobs: how many run and how many are paused, and the jobs of the paused ones.
SELECT count(*) FILTER (WHERE c.state = 'running') AS running, count(*) FILTER (WHERE c.state = 'paused') AS paused,
       coalesce(sum((SELECT count(*) FROM shardd.jobs j WHERE j.campaign = c.id)) FILTER (WHERE c.state = 'paused'), 0)::bigint
           AS paused_jobs
  FROM shardd.campaigns c
 WHERE c.state IN ('running', 'paused') AND EXISTS (SELECT FROM shardd.jobs j WHERE j.campaign = c.id);

-- name: campaign_sends
-- What running campaigns with a cap have sent through devices since the day `since`.
SELECT t.campaign, t.device_id, t.day, t.sent
  FROM shardd.campaign_days t JOIN shardd.campaigns c ON c.id = t.campaign
 WHERE c.state = 'running' AND c.device_cap IS NOT NULL AND t.day >= %(since)s::date;
