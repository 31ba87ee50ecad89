-- Device groups, for operators through `shardd group`.

-- name: list_groups
-- Device groups, with the number of their devices, of those that can send, and of the live jobs that name the group: those in its pool,
-- which have no device yet, and those that were given to a device. NULL passes everything.
WITH live AS (
    SELECT device_group, count(*) FILTER (WHERE device_id IS NULL) AS pooled, count(device_id) AS given
      FROM shardd.jobs
     WHERE device_group IS NOT NULL AND (%(ids)s::text[] IS NULL OR device_group = ANY (%(ids)s::text[]))
     GROUP BY device_group
)
SELECT g.id, g.label, g.created_at, m.devices, m.able, coalesce(l.pooled, 0) AS pooled, coalesce(l.given, 0) AS given
  FROM shardd.device_groups g
  LEFT JOIN live l ON l.device_group = g.id
 CROSS JOIN LATERAL (
     SELECT count(*) AS devices,
            count(*) FILTER (WHERE d.paused_at IS NULL AND d.state IN (${can_send})) AS able
       FROM shardd.device_group_members x JOIN shardd.devices d ON d.id = x.device_id AND d.removed_at IS NULL
      WHERE x.device_group = g.id
 ) m
 WHERE %(ids)s::text[] IS NULL OR g.id = ANY (%(ids)s::text[])
 ORDER BY g.id;

-- name: group_members
-- The devices of a group: their state, the group's live jobs that they were given, and the recipients that they last wrote to.
SELECT m.device_id, d.transport,
       shardd.shown_state(d) AS state,
       CASE WHEN d.paused_at IS NOT NULL THEN d.paused_why ELSE d.reason END AS why,
       coalesce(l.jobs, 0) AS jobs, coalesce(c.contacts, 0) AS contacts
  FROM shardd.device_group_members m
  JOIN shardd.devices d ON d.id = m.device_id
  LEFT JOIN (SELECT device_id, count(*) AS jobs FROM shardd.jobs
              WHERE device_group = %(id)s AND device_id IS NOT NULL GROUP BY device_id) l ON l.device_id = m.device_id
  LEFT JOIN (SELECT device_id, count(*) AS contacts FROM shardd.contacts
              WHERE device_group = %(id)s GROUP BY device_id) c ON c.device_id = m.device_id
 WHERE m.device_group = %(id)s
 ORDER BY m.device_id;

-- name: add_group
-- Adds a device group; an existing one gets the label, if one is given. An empty label removes it.
INSERT INTO shardd.device_groups AS g (id, label) VALUES (%(id)s, nullif(%(label)s, ''))
ON CONFLICT (id) DO UPDATE SET label = CASE WHEN %(label)s::text IS NULL THEN g.label ELSE EXCLUDED.label END
RETURNING xmax = 0 AS is_new;

-- name: add_members
-- Adds devices to a group. Returns those that exist and are not removed, and whether each is new in the group.
WITH chosen AS MATERIALIZED (
    SELECT id FROM shardd.devices WHERE id = ANY (%(device_ids)s::text[]) AND removed_at IS NULL
), added AS (
    INSERT INTO shardd.device_group_members (device_group, device_id) SELECT %(id)s, id FROM chosen
    ON CONFLICT DO NOTHING RETURNING device_id
)
SELECT id, id IN (SELECT device_id FROM added) AS is_new FROM chosen;

-- name: remove_members
-- Removes devices from a group. The group's jobs that they were given and that are not in flight return to its pool: nothing would return
-- them if such a device failed later. Returns the devices that were in it, and the number of jobs that returned.
WITH gone AS (
    DELETE FROM shardd.device_group_members WHERE device_group = %(id)s AND device_id = ANY (%(device_ids)s::text[])
    RETURNING device_id
), back AS (
    UPDATE shardd.jobs j SET device_id = NULL FROM gone
     WHERE j.device_id = gone.device_id AND j.device_group = %(id)s AND j.claimed_epoch IS NULL
    RETURNING j.id
)
SELECT device_id, (SELECT count(*) FROM back) AS jobs FROM gone;

-- name: delete_group
-- Deletes a group that no live job names, with its contacts. Returns its id.
DELETE FROM shardd.device_groups g
 WHERE id = %(id)s AND NOT EXISTS (SELECT FROM shardd.jobs j WHERE j.device_group = g.id)
RETURNING id;
