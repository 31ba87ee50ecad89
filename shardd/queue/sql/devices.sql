-- The sending accounts.

-- name: all_devices
-- Every device that is not removed, with what it sent on the day `day` and when it last sent.
SELECT d.id, d.transport, d.label, d.session, d.proxy, d.settings, d.state, d.reason, d.state_since, d.state_until,
       d.paused_at, d.paused_why, d.gap_min, d.gap_max, d.daily_limit,
       coalesce(t.sent, 0) AS sent_today, t.last_at
  FROM shardd.devices d LEFT JOIN shardd.device_days t ON t.device_id = d.id AND t.day = %(day)s::date
 WHERE d.removed_at IS NULL
 ORDER BY d.id;

-- name: list_devices
-- Devices with the number of live jobs that wait for each; NULL filters pass everything.
SELECT d.id, d.transport, d.label, d.session, d.proxy, d.settings, d.state, d.reason, d.state_since, d.state_until,
       d.paused_at, d.paused_why, d.gap_min, d.gap_max, d.daily_limit, d.created_at,
       (SELECT count(*) FROM shardd.jobs j WHERE j.device_id = d.id) AS jobs,
       coalesce(t.sent, 0) AS sent_today, t.last_at
  FROM shardd.devices d LEFT JOIN shardd.device_days t ON t.device_id = d.id AND t.day = %(day)s::date
 WHERE d.removed_at IS NULL AND (%(id)s::text IS NULL OR d.id = %(id)s)
   AND (%(transport)s::text IS NULL OR d.transport = %(transport)s)
   AND (%(state)s::text IS NULL OR CASE WHEN d.paused_at IS NULL THEN d.state ELSE 'paused' END = %(state)s)
 ORDER BY d.id LIMIT %(most)s;

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
-- Takes devices out of service. Their finished jobs stay readable. Returns the ids that were there.
UPDATE shardd.devices SET removed_at = now(), session = NULL WHERE id = ANY (%(ids)s::text[]) AND removed_at IS NULL RETURNING id;

-- name: set_device_states
-- What was learned about devices. Arrays, one element per device; times in POSIX seconds. Later knowledge stands.
UPDATE shardd.devices d
   SET state = e.state, reason = e.reason, state_since = to_timestamp(e.at), state_until = to_timestamp(e.until)
  FROM unnest(%(ids)s::text[], %(states)s::text[], %(reasons)s::text[], %(untils)s::double precision[],
              %(ats)s::double precision[]) AS e(id, state, reason, until, at)
 WHERE d.id = e.id AND (d.state, d.reason, d.state_until) IS DISTINCT FROM (e.state, e.reason, to_timestamp(e.until))
   AND d.state_since <= to_timestamp(e.at)
RETURNING d.id;

-- name: heal_devices
-- Devices whose state ends by itself and has ended are ready again.
UPDATE shardd.devices SET state = 'ready', reason = NULL, state_since = now(), state_until = NULL
 WHERE state IN ('banned', 'restricted') AND state_until <= now() AND removed_at IS NULL
RETURNING id;
