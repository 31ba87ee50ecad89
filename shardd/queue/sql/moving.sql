-- Moving a device to the database of another region, and opt-outs to all of them. What is read here is written there.

-- name: device_to_move
-- The row of a device, which may be removed, as JSON.
SELECT to_jsonb(d)::text FROM shardd.devices d WHERE d.id = %(id)s;

-- name: expect_device
-- Makes the row of a device that comes from another region, with the session that it will have. Until it has come (device_has_come) it
-- is replaced: nothing opens a client, and its jobs wait. Nothing happens to a device that is here already, unless it is expected.
-- Returns its id.
INSERT INTO shardd.devices AS d (id, transport, label, session, proxy, settings, state, reason, state_until, backoff_until, backoff_reason,
                                 paused_at, paused_why, resumed_at, gap_min, gap_max, hourly_limit, daily_limit, quiet_hours, timezone,
                                 warm, classes)
SELECT r.id, r.transport, r.label, r.session, r.proxy, r.settings, 'replaced', %(coming)s, r.state_until, r.backoff_until, r.backoff_reason,
       r.paused_at, r.paused_why, r.resumed_at, r.gap_min, r.gap_max, r.hourly_limit, r.daily_limit, r.quiet_hours, r.timezone,
       r.warm, r.classes
  FROM jsonb_populate_record(NULL::shardd.devices, %(device)s::jsonb) r
ON CONFLICT (id) DO UPDATE SET
    transport = EXCLUDED.transport, label = EXCLUDED.label, session = EXCLUDED.session, proxy = EXCLUDED.proxy,
    settings = EXCLUDED.settings, state = EXCLUDED.state, reason = EXCLUDED.reason, state_since = now(),
    state_until = EXCLUDED.state_until, backoff_until = EXCLUDED.backoff_until, backoff_reason = EXCLUDED.backoff_reason,
    paused_at = EXCLUDED.paused_at, paused_why = EXCLUDED.paused_why, resumed_at = EXCLUDED.resumed_at, gap_min = EXCLUDED.gap_min,
    gap_max = EXCLUDED.gap_max, hourly_limit = EXCLUDED.hourly_limit, daily_limit = EXCLUDED.daily_limit,
    quiet_hours = EXCLUDED.quiet_hours, timezone = EXCLUDED.timezone, warm = EXCLUDED.warm, classes = EXCLUDED.classes,
    removed_at = NULL
 WHERE d.removed_at IS NOT NULL OR (d.state = 'replaced' AND d.reason = %(coming)s)
RETURNING d.id;

-- name: let_device_go
-- Takes the session from a device that moves, if it is still as it was read and no job waits for it: its client is closed, and not opened
-- again. Returns its id.
UPDATE shardd.devices d SET session = NULL, state = 'unpaired', reason = %(gone)s, state_since = now(), state_until = NULL
 WHERE id = %(id)s AND removed_at IS NULL AND session IS NOT DISTINCT FROM %(session)s AND state IN (${can_send})
   AND NOT EXISTS (SELECT FROM shardd.jobs j WHERE j.device_id = d.id)
RETURNING id;

-- name: days_to_move
-- What a device sent on each day, as JSON.
SELECT coalesce(jsonb_agg(t), '[]')::text FROM shardd.device_days t WHERE t.device_id = %(id)s;

-- name: take_days
-- Adds these days; one that is known, from an earlier stay, went on where the device was since.
INSERT INTO shardd.device_days AS t (device_id, day, sent, hour, hour_sent, last_at)
SELECT r.device_id, r.day, r.sent, r.hour, r.hour_sent, r.last_at
  FROM jsonb_populate_recordset(NULL::shardd.device_days, %(days)s::jsonb) r
ON CONFLICT (device_id, day) DO UPDATE
   SET sent = EXCLUDED.sent, hour = EXCLUDED.hour, hour_sent = EXCLUDED.hour_sent, last_at = EXCLUDED.last_at
 WHERE EXCLUDED.last_at > t.last_at;

-- name: device_has_come
-- Lets an expected device send: everything of it is here, and no client of it is open anywhere else. Returns its id.
UPDATE shardd.devices
   SET state = CASE WHEN state_until > now() THEN 'restricted' ELSE 'ready' END,
       reason = CASE WHEN state_until > now() THEN 'restricted since before it was moved' END,
       state_until = CASE WHEN state_until > now() THEN state_until END, state_since = now()
 WHERE id = %(id)s AND removed_at IS NULL AND state = 'replaced' AND reason = %(coming)s
RETURNING id;

-- name: shard_holder
-- Who holds a shard now: the epoch, and the node. Nothing: nobody.
SELECT l.epoch, coalesce(n.name, l.node_id) AS node, coalesce(n.host, '') AS host
  FROM shardd.leases l LEFT JOIN shardd.nodes n ON n.id = l.node_id
 WHERE l.shard = %(shard)s AND l.expires_at > now();

-- name: keep_shard_holder
-- The epoch under which a shard is held, which no other can replace until the end of this transaction. Nothing: nobody holds it.
SELECT epoch FROM shardd.leases WHERE shard = %(shard)s AND expires_at > now() FOR SHARE;

-- name: opt_outs_to_copy
-- The opt-outs after an address, in the order of addresses, of the last `seconds`; NULL: all.
SELECT address, note, heard_at, created_by FROM shardd.opt_outs
 WHERE address > %(address)s AND (%(seconds)s::double precision IS NULL OR created_at > now() - make_interval(secs => %(seconds)s))
 ORDER BY address LIMIT %(most)s;

-- name: copy_opt_outs_in
-- Adds opt-outs of another region under the addresses that it has, whatever spelling they were given in. Arrays, one element for each. One
-- that the person took back here since then stays taken back. Returns the addresses that are new.
INSERT INTO shardd.opt_outs (address, recipient, source, note, said_at, created_by)
SELECT e.address, CASE WHEN strpos(e.address, '@') > 0 THEN '' ELSE '+' END || e.address, 'import',
       coalesce(e.note, 'from another region'), e.heard_at, e.created_by
  FROM unnest(%(addresses)s::text[], %(notes)s::text[], %(heard_ats)s::timestamptz[], %(created_bys)s::text[])
       AS e(address, note, heard_at, created_by)
 WHERE NOT EXISTS (SELECT FROM shardd.opt_outs o WHERE o.address = e.address AND o.heard_at >= e.heard_at)
 ORDER BY e.address
ON CONFLICT (address) DO NOTHING
RETURNING address;
