-- Campaigns as the router needs them, and devices for the jobs of device groups.

-- name: running_campaigns
-- Every campaign whose jobs may be sent.
SELECT id, weight, device_cap FROM shardd.campaigns WHERE state = 'running';

-- name: campaign_sends
-- What running campaigns with a cap have sent through devices since the day `since`.
SELECT t.campaign, t.device_id, t.day, t.sent
  FROM shardd.campaign_days t JOIN shardd.campaigns c ON c.id = t.campaign
 WHERE c.state = 'running' AND c.device_cap IS NOT NULL AND t.day >= %(since)s::date;
