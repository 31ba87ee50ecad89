-- Moving the jobs of cancelled campaigns out of the live table.

-- name: cancelled_campaigns
-- Cancelled campaigns that still have jobs in the live table, and why they were cancelled: one index probe for each.
SELECT id, why FROM shardd.campaigns c
 WHERE state = 'cancelled' AND EXISTS (SELECT FROM shardd.jobs j WHERE j.campaign = c.id);

-- name: end_cancelled_jobs
-- Ends up to `most` jobs of a campaign that nobody has in flight and whose id is above `after`. Returns their ids: the highest is
-- where to go on, so that no chunk reads over what the ones before it left dead.
SELECT shardd.end_jobs(array(
    SELECT id FROM shardd.jobs
     WHERE campaign = %(campaign)s AND id > %(after)s AND claimed_epoch IS NULL
     ORDER BY id LIMIT %(most)s FOR UPDATE SKIP LOCKED
), 'cancelled', %(error)s, 'cancelled');
