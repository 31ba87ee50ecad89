-- The WhatsApp sessions of devices. A session is named NUMBER:INDEX@s.whatsapp.net.

-- name: begin_pairing
-- Reserves the pairing of a device for this connection, on any host, for `patience` seconds at most. Returns nothing when another live
-- connection has it.
INSERT INTO shardd.pairings AS p (device_id, pid, backend_start, expires_at)
SELECT %(id)s, a.pid, a.backend_start, now() + make_interval(secs => %(patience)s)
  FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()
ON CONFLICT (device_id) DO UPDATE
   SET pid = EXCLUDED.pid, backend_start = EXCLUDED.backend_start, expires_at = EXCLUDED.expires_at
 WHERE p.expires_at <= now()
    OR NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = p.pid AND a.backend_start = p.backend_start)
RETURNING device_id;

-- name: end_pairing
-- Releases it.
DELETE FROM shardd.pairings WHERE device_id = %(id)s AND pid = pg_backend_pid();

-- name: number_holder
-- The device, other than `id`, whose session has this number.
SELECT id FROM shardd.devices
 WHERE removed_at IS NULL AND id <> %(id)s AND split_part(split_part(session, '@', 1), ':', 1) = %(number)s
 ORDER BY id LIMIT 1;

-- name: bind_session
-- Gives a device its session and makes it ready, unless it meanwhile got another one, was removed, or another device has the number.
-- Returns its id.
UPDATE shardd.devices d
   SET session = %(session)s, state = 'ready', reason = NULL, state_since = now(), state_until = NULL
 WHERE id = %(id)s AND removed_at IS NULL AND transport = 'whatsapp' AND session IS NOT DISTINCT FROM %(old)s
   AND NOT EXISTS (SELECT FROM shardd.devices o
                    WHERE o.removed_at IS NULL AND o.id <> d.id
                      AND split_part(split_part(o.session, '@', 1), ':', 1) = %(number)s)
RETURNING id;

-- name: unbind_session
-- Removes a device's session, if it still is this one: it is not opened again. Returns its id.
UPDATE shardd.devices SET session = NULL, state = 'unpaired', reason = %(reason)s, state_since = now(), state_until = NULL
 WHERE id = %(id)s AND removed_at IS NULL AND session = %(session)s
RETURNING id;

-- name: restore_session
-- Undoes unbind_session, when the session could not be ended. Returns its id.
UPDATE shardd.devices SET session = %(session)s, state = %(state)s, reason = %(reason)s, state_since = now(),
       state_until = %(until)s
 WHERE id = %(id)s AND removed_at IS NULL AND session IS NULL AND state IN (${restorable})
RETURNING id;

-- name: take_over_session
-- Makes a replaced device ready: no other client uses its session any more. Returns its id; nothing unless it was replaced.
UPDATE shardd.devices SET state = 'ready', reason = NULL, state_since = now(), state_until = NULL
 WHERE id = %(id)s AND removed_at IS NULL AND state IN (${taken_over})
RETURNING id;

-- name: adopt_sessions
-- Gives stored sessions to new devices, to removed ones that come back, and to WhatsApp devices without a session, which keep their
-- settings. Their numbers sent elsewhere before: no warm-up. Arrays, one element per session. Returns the ids of the devices that got
-- their session.
INSERT INTO shardd.devices AS d (id, transport, session, label, proxy, gap_min, gap_max, daily_limit, warm)
SELECT e.id, 'whatsapp', e.session, e.label, %(proxy)s, %(gap_min)s, %(gap_max)s, %(daily_limit)s, true
  FROM unnest(%(ids)s::text[], %(sessions)s::text[], %(labels)s::text[]) AS e(id, session, label)
 WHERE NOT EXISTS (SELECT FROM shardd.devices o
                    WHERE o.removed_at IS NULL AND split_part(split_part(o.session, '@', 1), ':', 1)
                                                 = split_part(split_part(e.session, '@', 1), ':', 1))
ON CONFLICT (id) DO UPDATE SET
    transport = EXCLUDED.transport, session = EXCLUDED.session, state = 'ready', reason = NULL, state_since = now(),
    state_until = NULL, removed_at = NULL, warm = true,
    label = CASE WHEN d.removed_at IS NULL THEN coalesce(d.label, EXCLUDED.label) ELSE EXCLUDED.label END,
    proxy = CASE WHEN d.removed_at IS NULL THEN d.proxy ELSE EXCLUDED.proxy END,
    settings = CASE WHEN d.removed_at IS NULL THEN d.settings ELSE '{}' END,
    gap_min = CASE WHEN d.removed_at IS NULL THEN d.gap_min ELSE EXCLUDED.gap_min END,
    gap_max = CASE WHEN d.removed_at IS NULL THEN d.gap_max ELSE EXCLUDED.gap_max END,
    daily_limit = CASE WHEN d.removed_at IS NULL THEN d.daily_limit ELSE EXCLUDED.daily_limit END,
    hourly_limit = CASE WHEN d.removed_at IS NULL THEN d.hourly_limit END,
    quiet_hours = CASE WHEN d.removed_at IS NULL THEN d.quiet_hours END,
    timezone = CASE WHEN d.removed_at IS NULL THEN d.timezone END,
    classes = CASE WHEN d.removed_at IS NULL THEN d.classes ELSE '{}' END,
    paused_at = CASE WHEN d.removed_at IS NULL THEN d.paused_at END,
    paused_why = CASE WHEN d.removed_at IS NULL THEN d.paused_why END
 WHERE d.removed_at IS NOT NULL OR (d.transport = 'whatsapp' AND d.session IS NULL)
RETURNING id;
