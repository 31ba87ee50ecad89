-- What an operator asks and does about devices, through `shardd device`.

-- name: list_devices
-- Devices with their live jobs, what they sent on the day `day`, and when they last sent; NULL filters pass everything.
WITH chosen AS (
    SELECT * FROM shardd.devices d
     WHERE removed_at IS NULL AND (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s::text[]))
       AND (%(transport)s::text IS NULL OR transport = %(transport)s)
       AND (%(state)s::text IS NULL OR CASE WHEN paused_at IS NULL THEN state ELSE 'paused' END = %(state)s)
), live AS (
    SELECT device_id, count(*) AS jobs, count(claimed_epoch) AS in_hand
      FROM shardd.jobs
     WHERE %(ids)s::text[] IS NULL OR device_id = ANY (%(ids)s::text[])
     GROUP BY device_id
)
SELECT c.id, c.transport, c.label, c.session, c.proxy, c.settings, c.state, c.reason, c.state_since, c.state_until,
       c.paused_at, c.paused_why, c.gap_min, c.gap_max, c.daily_limit, c.created_at,
       coalesce(l.jobs, 0) AS jobs, coalesce(l.in_hand, 0) AS in_hand,
       CASE WHEN t.day = %(day)s::date THEN t.sent ELSE 0 END AS sent_today, t.last_at AS last_sent
  FROM chosen c
  LEFT JOIN live l ON l.device_id = c.id
  LEFT JOIN LATERAL (
      SELECT day, sent, last_at FROM shardd.device_days WHERE device_id = c.id ORDER BY day DESC LIMIT 1
  ) t ON true
 ORDER BY c.id;

-- name: device_was_there
-- Whether there is, or ever was, a device of this id.
SELECT EXISTS (SELECT FROM shardd.devices WHERE id = %(id)s);

-- name: add_devices
-- Adds devices; one that was removed comes back. Returns the ids that are new.
INSERT INTO shardd.devices AS d (id, transport, label, proxy, settings, state, gap_min, gap_max, daily_limit)
SELECT id, %(transport)s, %(label)s, %(proxy)s, %(settings)s, %(state)s, %(gap_min)s, %(gap_max)s, %(daily_limit)s
  FROM unnest(%(ids)s::text[]) id
ON CONFLICT (id) DO UPDATE SET removed_at = NULL, transport = EXCLUDED.transport, label = EXCLUDED.label,
    proxy = EXCLUDED.proxy, settings = EXCLUDED.settings, state = EXCLUDED.state, session = NULL, reason = NULL,
    state_since = now(), state_until = NULL, paused_at = NULL, paused_why = NULL, gap_min = EXCLUDED.gap_min,
    gap_max = EXCLUDED.gap_max, daily_limit = EXCLUDED.daily_limit
 WHERE d.removed_at IS NOT NULL
RETURNING id;

-- name: pause_devices
-- Holds devices back; what is in hand is finished. Returns the ids that exist.
UPDATE shardd.devices SET paused_at = coalesce(paused_at, now()), paused_why = %(why)s
 WHERE id = ANY (%(ids)s::text[]) AND removed_at IS NULL RETURNING id;

-- name: resume_devices
-- Lets paused devices send again. Returns the ids that exist.
UPDATE shardd.devices SET paused_at = NULL, paused_why = NULL
 WHERE id = ANY (%(ids)s::text[]) AND removed_at IS NULL RETURNING id;

-- name: remove_devices
-- Takes devices out of service for which no live job waits and to which no phone is linked. Their finished jobs stay readable.
-- Returns the ids that were there.
UPDATE shardd.devices d SET removed_at = now()
 WHERE id = ANY (%(ids)s::text[]) AND removed_at IS NULL AND session IS NULL AND NOT EXISTS (SELECT FROM shardd.jobs j WHERE j.device_id = d.id)
RETURNING id;
