-- Jobs of device groups: those that wait for a device, and which device they are given to. For their plans see jobs.sql.

-- name: members_of_groups
-- The devices of each group.
SELECT device_group, device_id FROM shardd.device_group_members ORDER BY device_group, device_id;

-- name: find_pools
-- Up to `most` lanes of device groups in which jobs wait for a device, behind the lane `after_lane` of the group `after_group`: a skip
-- scan, one index probe per lane.
WITH RECURSIVE pool AS (
    (SELECT device_group, lane, 1 AS found FROM shardd.jobs
      WHERE NOT scheduled AND device_id IS NULL AND (device_group, lane) > (%(after_group)s, %(after_lane)s)
      ORDER BY device_group, lane, ord, id LIMIT 1)
    UNION ALL
    SELECT n.device_group, n.lane, pool.found + 1 FROM pool CROSS JOIN LATERAL (
        SELECT device_group, lane FROM shardd.jobs
         WHERE NOT scheduled AND device_id IS NULL AND (device_group, lane) > (pool.device_group, pool.lane)
         ORDER BY device_group, lane, ord, id LIMIT 1
    ) n
     WHERE pool.found < %(most)s
)
SELECT device_group, lane FROM pool;

-- name: pool_jobs
-- The first jobs of a group's lane, with the device that last wrote to their recipients.
SELECT j.id, j.address,
       (SELECT c.device_id FROM shardd.contacts c WHERE c.device_group = %(device_group)s AND c.address = j.address) AS known
  FROM shardd.jobs j
 WHERE j.device_group = %(device_group)s AND j.lane = %(lane)s AND NOT j.scheduled AND j.device_id IS NULL
 ORDER BY j.ord, j.id LIMIT %(most)s;

-- name: assign_jobs
-- Gives jobs of a group to devices, and records these as the devices that their recipients know. Arrays, one element per job. A job that
-- another node has given away stays with that device. Returns hints, as promote_due does.
WITH given AS (
    SELECT * FROM unnest(%(ids)s::bigint[], %(device_ids)s::text[]) AS e(id, device_id)
), free AS MATERIALIZED (
    SELECT id FROM shardd.jobs WHERE id = ANY (%(ids)s::bigint[]) AND device_id IS NULL FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE shardd.jobs j SET device_id = given.device_id FROM given JOIN free ON free.id = given.id WHERE j.id = free.id
    RETURNING j.device_id, j.lane, j.ord, j.id, j.device_group, j.address
), known AS (
    INSERT INTO shardd.contacts AS c (device_group, address, device_id)
    SELECT DISTINCT ON (device_group, address) device_group, address, device_id FROM moved
     ORDER BY device_group, address, ord DESC
    ON CONFLICT (device_group, address) DO UPDATE SET device_id = EXCLUDED.device_id, last_at = now()
)
SELECT device_id, lane, ord, id FROM moved;

-- name: unassign_jobs
-- Returns up to `most` jobs of groups to the pool whose device cannot send, except those in flight or scheduled.
WITH stranded AS MATERIALIZED (
    SELECT id FROM shardd.jobs
     WHERE device_id = ANY (%(device_ids)s::text[]) AND device_group IS NOT NULL AND claimed_epoch IS NULL
       AND NOT coalesce(scheduled, false)
     LIMIT %(most)s FOR UPDATE SKIP LOCKED
)
UPDATE shardd.jobs j SET device_id = NULL FROM stranded WHERE j.id = stranded.id
RETURNING j.id;
