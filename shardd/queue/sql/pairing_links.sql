-- Links with which the owner of a phone links it to a device. `left_after`: seconds without its page after which a link is closed.

-- name: make_pairing_links
-- Makes links, each in place of the device's last one. Arrays, one element per device; removed devices, and those without sessions, get
-- none. Returns the ids of those that got one, and when it ends.
INSERT INTO shardd.pairing_links AS l (device_id, hash, new_number, made_by, ends_at)
SELECT d.id, e.hash, %(new_number)s, %(made_by)s, now() + make_interval(secs => %(lives)s)
  FROM unnest(%(ids)s::text[], %(hashes)s::bytea[]) AS e(id, hash)
  JOIN shardd.devices d ON d.id = e.id AND d.removed_at IS NULL AND d.transport = ANY (%(transports)s)
 ORDER BY d.id
ON CONFLICT (device_id) DO UPDATE
   SET hash = EXCLUDED.hash, new_number = EXCLUDED.new_number, made_by = EXCLUDED.made_by, made_at = now(),
       ends_at = EXCLUDED.ends_at, browser = NULL, seen_at = NULL, tries = 0, outcome = NULL, outcome_at = NULL, remark = NULL
RETURNING device_id, ends_at;

-- name: revoke_pairing_links
-- Deletes the links of these devices. Returns the ids of those that had one.
DELETE FROM shardd.pairing_links WHERE device_id = ANY (%(ids)s) RETURNING device_id;

-- name: unopened_pairing_link
-- A link that nobody has opened, by its hash.
SELECT l.device_id, d.label, l.new_number, l.ends_at
  FROM shardd.pairing_links l JOIN shardd.devices d ON d.id = l.device_id AND d.removed_at IS NULL
 WHERE l.hash = %(hash)s AND l.browser IS NULL AND l.ends_at > now();

-- name: open_pairing_link
-- Gives a link to the browser that opens it. Returns its device; nothing when another one was quicker, or it has ended.
UPDATE shardd.pairing_links l SET browser = %(browser)s, seen_at = now()
 WHERE l.hash = %(hash)s AND l.browser IS NULL AND l.ends_at > now()
RETURNING l.device_id;

-- name: opened_pairing_link
-- The link that this browser has opened, if it still works.
SELECT l.device_id, d.label, l.new_number, l.ends_at
  FROM shardd.pairing_links l JOIN shardd.devices d ON d.id = l.device_id AND d.removed_at IS NULL
 WHERE l.browser = %(browser)s AND l.ends_at > now() AND l.outcome IS DISTINCT FROM 'paired'
   AND l.seen_at > now() - make_interval(secs => %(left_after)s);

-- name: see_pairing_link
-- Notes that the browser has the page open. Returns its device; nothing when the link does not work any more.
UPDATE shardd.pairing_links l SET seen_at = now()
 WHERE l.browser = %(browser)s AND l.ends_at > now() AND l.outcome IS DISTINCT FROM 'paired'
   AND l.seen_at > now() - make_interval(secs => %(left_after)s)
RETURNING l.device_id;

-- name: try_pairing_link
-- Counts a try to pair. Returns its device; nothing when there were `most`.
UPDATE shardd.pairing_links l SET tries = l.tries + 1, seen_at = now()
 WHERE l.browser = %(browser)s AND l.tries < %(most)s
RETURNING l.device_id;

-- name: end_pairing_try
-- Notes what came of a try.
UPDATE shardd.pairing_links l SET outcome = %(outcome)s, outcome_at = now(), remark = %(remark)s WHERE l.browser = %(browser)s;

-- name: phones_to_link
-- Devices of these transports that a phone is to be linked to, those with a link that works or worked within the last hour, and their
-- links, in the order of their ids after `after`. `search`: a part of the id or label, without regard to case.
SELECT d.id, d.label, d.state, d.reason, d.state_since, d.session, l.made_by, l.made_at, l.ends_at, l.seen_at, l.tries, l.outcome,
       l.outcome_at, l.remark, l.ends_at <= now() AS ended, l.seen_at <= now() - make_interval(secs => %(left_after)s) AS is_left
  FROM shardd.devices d LEFT JOIN shardd.pairing_links l ON l.device_id = d.id
 WHERE d.removed_at IS NULL AND d.transport = ANY (%(transports)s) AND d.id > %(after)s
   AND (d.state = ANY (%(states)s) OR l.ends_at > now() OR l.outcome_at > now() - interval '1 hour')
   AND (%(search)s = '' OR position(lower(%(search)s) IN lower(d.id)) > 0 OR position(lower(%(search)s) IN lower(d.label)) > 0)
 ORDER BY d.id
 LIMIT %(most)s;

-- name: count_phones_to_link
-- How many there are, and how many of them have a link that works.
SELECT count(*) AS phones, count(*) FILTER (WHERE l.ends_at > now() AND l.outcome IS DISTINCT FROM 'paired') AS links
  FROM shardd.devices d LEFT JOIN shardd.pairing_links l ON l.device_id = d.id
 WHERE d.removed_at IS NULL AND d.transport = ANY (%(transports)s) AND d.state = ANY (%(states)s);

-- name: ids_to_link
-- The ids of the devices that a phone is to be linked to; `search` as above.
SELECT d.id FROM shardd.devices d
 WHERE d.removed_at IS NULL AND d.transport = ANY (%(transports)s) AND d.state = ANY (%(states)s)
   AND (%(search)s = '' OR position(lower(%(search)s) IN lower(d.id)) > 0 OR position(lower(%(search)s) IN lower(d.label)) > 0)
 ORDER BY d.id
 LIMIT %(most)s;
