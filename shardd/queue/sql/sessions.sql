-- Which WhatsApp session belongs to which device. A session is named NUMBER:INDEX@s.whatsapp.net.

-- name: lock_pairing
-- One pairing of a device at a time, on any host; held by this connection. False: there is one already.
SELECT pg_try_advisory_lock(hashtextextended('shardd.pairing:' || %(id)s, 0));

-- name: unlock_pairing
-- The end of it.
SELECT pg_advisory_unlock(hashtextextended('shardd.pairing:' || %(id)s, 0));

-- name: number_holder
-- The device, other than `id`, whose session is of this number.
SELECT id FROM shardd.devices
 WHERE removed_at IS NULL AND id <> %(id)s AND split_part(split_part(session, '@', 1), ':', 1) = %(number)s
 ORDER BY id LIMIT 1;

-- name: lock_number
-- Until the end of the transaction nobody else gives this number to a device.
SELECT pg_advisory_xact_lock(hashtextextended('shardd.number:' || %(number)s, 0));

-- name: bind_session
-- Gives a device its session and makes it ready, unless meanwhile it got another one, was removed, or another device holds
-- the number. Returns its id.
UPDATE shardd.devices d
   SET session = %(session)s, state = 'ready', reason = NULL, state_since = now(), state_until = NULL
 WHERE id = %(id)s AND removed_at IS NULL AND transport = 'whatsapp' AND session IS NOT DISTINCT FROM %(old)s
   AND NOT EXISTS (SELECT FROM shardd.devices o
                    WHERE o.removed_at IS NULL AND o.id <> d.id
                      AND split_part(split_part(o.session, '@', 1), ':', 1) = %(number)s)
RETURNING id;
