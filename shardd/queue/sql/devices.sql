-- Devices: for the router, and for operators through `shardd device`.

-- name: changed_devices
-- The devices that changed since an earlier answer, removed ones too, and how many devices are not removed. `since`: `running` of that
-- answer, the oldest transaction that had not ended then: rows of later ones may be new. As `xmin` has 32 bits, `age` compares them.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS running, r.devices, ARRAY(
           SELECT unnest(r.ids) UNION
           SELECT v.device_id FROM shardd.device_visits v WHERE age(v.xmin) <= age(%(since)s::text::xid8::xid)) AS ids
  FROM (SELECT count(*) FILTER (WHERE d.removed_at IS NULL) AS devices,
               array_agg(d.id) FILTER (WHERE age(d.xmin) <= age(%(since)s::text::xid8::xid)) AS ids
          FROM shardd.devices d) r;

-- name: all_devices
-- These devices (NULL: every one), but for removed ones, with their last day of sending, and the number of such days before that, up to
-- `warm_days`.
SELECT ${device}, t.day, coalesce(t.sent, 0) AS sent, coalesce(t.hour, 0) AS hour, coalesce(t.hour_sent, 0) AS hour_sent, t.last_at,
       CASE WHEN d.warm THEN %(warm_days)s ELSE (
           SELECT count(*) FROM (SELECT FROM shardd.device_days e WHERE e.device_id = d.id AND e.day < t.day
                                  ORDER BY e.day DESC LIMIT %(warm_days)s) days) END AS days
  FROM (SELECT * FROM shardd.devices WHERE %(ids)s::text[] IS NULL UNION ALL
        -- A branch of its own, for the index.
        SELECT * FROM shardd.devices WHERE id = ANY (%(ids)s::text[])) d
  LEFT JOIN shardd.device_visits v ON v.device_id = d.id
  LEFT JOIN LATERAL (
      SELECT day, sent, hour, hour_sent, last_at FROM shardd.device_days WHERE device_id = d.id ORDER BY day DESC LIMIT 1
  ) t ON true
 WHERE d.removed_at IS NULL
 ORDER BY d.id;

-- name: device_ids
-- The ids of up to `most` devices that begin with a text, in their order.
SELECT id FROM shardd.devices WHERE removed_at IS NULL AND starts_with(id, %(start)s) ORDER BY id LIMIT %(most)s;

-- name: removed_devices
-- The removed devices of these transports.
SELECT id, transport, settings::text AS settings FROM shardd.devices WHERE removed_at IS NOT NULL AND transport = ANY (%(transports)s);

-- name: set_device_states
-- States that workers reported. Arrays, one element per device; the age of the report and the time until the state ends (NULL: not by
-- itself) are in seconds, so that hosts and the database need no common clock. A report changes nothing when a later one was written,
-- when it repeats the state, when no report may lead from the device's state to it, or when it was made under a lease that was lost:
-- the device's new owner has clients of its own.
UPDATE shardd.devices d
   SET state = e.state, reason = e.reason, state_since = now() - make_interval(secs => e.age),
       state_until = now() + make_interval(secs => e.remaining)
  FROM unnest(%(ids)s::text[], %(states)s::text[], %(reasons)s::text[], %(remainings)s::double precision[],
              %(ages)s::double precision[], %(epochs)s::bigint[]) AS e(id, state, reason, remaining, age, epoch)
 WHERE d.id = e.id AND (d.state = e.state OR (d.state, e.state) IN (${reported})) AND d.state_since <= now() - make_interval(secs => e.age)
   AND ((d.state, d.reason, d.state_until IS NULL) IS DISTINCT FROM (e.state, e.reason, e.remaining IS NULL)
        OR abs(extract(epoch FROM d.state_until - now()) - e.remaining) > 1)
   AND (e.epoch IS NULL OR EXISTS (SELECT FROM shardd.leases l WHERE l.epoch = e.epoch))
RETURNING d.id;

-- name: back_off_devices
-- Lets devices wait, on whichever node they are: arrays of ids, seconds and reasons. A wait that ends later stays; one that ends little
-- earlier, too, because a campaign may fail a thousand times for one reason.
UPDATE shardd.devices d SET backoff_until = now() + make_interval(secs => e.seconds), backoff_reason = e.reason
  FROM unnest(%(ids)s::text[], %(seconds)s::double precision[], %(reasons)s::text[]) AS e(id, seconds, reason)
 WHERE d.id = e.id AND d.removed_at IS NULL
   AND coalesce(d.backoff_until, '-infinity') < now() + make_interval(secs => 0.9 * e.seconds)
RETURNING d.id;

-- name: heal_devices
-- Makes devices ready whose state ends by itself and has ended. It may end before the time for which it held jobs back: these are due.
WITH healed AS (
    UPDATE shardd.devices SET state = 'ready', reason = NULL, state_since = now(), state_until = NULL
     WHERE state IN (${healing}) AND state_until <= now() AND removed_at IS NULL
    RETURNING id
), held_back AS MATERIALIZED (
    SELECT j.id FROM healed h JOIN shardd.jobs j ON j.device_id = h.id
     WHERE j.scheduled AND NOT j.held AND j.error_class = 'account' AND j.due_at > now()
       FOR UPDATE OF j SKIP LOCKED
), due AS (
    UPDATE shardd.jobs j SET due_at = now() FROM held_back b WHERE j.id = b.id
)
SELECT id FROM healed;

-- name: save_visits
-- When devices were online, and visits that failed. Arrays, one element per report, at most one for each device; its age in seconds. A
-- report that is older than what is known changes nothing.
INSERT INTO shardd.device_visits AS v (device_id, online_at, presence_at, visit_failed_at, visit_note)
SELECT d.id, CASE WHEN e.online THEN e.at END, CASE WHEN e.presence THEN e.at END, CASE WHEN NOT e.online THEN e.at END, e.note
  FROM (SELECT u.*, now() - make_interval(secs => u.age) AS at
          FROM unnest(%(ids)s::text[], %(onlines)s::boolean[], %(presences)s::boolean[], %(notes)s::text[], %(ages)s::double precision[])
               AS u(id, online, presence, note, age)) e
  JOIN shardd.devices d ON d.id = e.id
 ORDER BY d.id
ON CONFLICT (device_id) DO UPDATE
   SET online_at = coalesce(EXCLUDED.online_at, v.online_at), presence_at = coalesce(EXCLUDED.presence_at, v.presence_at),
       visit_failed_at = EXCLUDED.visit_failed_at, visit_note = EXCLUDED.visit_note
 WHERE coalesce(EXCLUDED.online_at, EXCLUDED.visit_failed_at)
       > greatest(v.online_at, v.visit_failed_at, '-infinity'::timestamptz);

-- name: list_devices
-- Devices with their live jobs, their messages on their last day of sending, and the number of such days before that, up to
-- `warm_days`; NULL filters pass everything. Of named devices (`ids`), up to `most` jobs are counted (NULL: all of them): those in lanes and
-- the others each by an index. Whether one is in flight no index tells, so that is looked for among `most_looked_at` of those in lanes.
WITH chosen AS (
    SELECT * FROM shardd.devices d
     WHERE removed_at IS NULL AND (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s::text[]))
       AND (%(transport)s::text IS NULL OR transport = %(transport)s)
       AND (%(state)s::text IS NULL OR CASE WHEN paused_at IS NULL THEN state ELSE 'paused' END = %(state)s)
), live AS (
    SELECT device_id, count(*) AS jobs, count(claimed_epoch) AS in_flight
      FROM shardd.jobs WHERE %(ids)s::text[] IS NULL GROUP BY device_id
     UNION ALL
    SELECT c.id, (SELECT count(*) FROM ((SELECT 1 FROM shardd.jobs j WHERE j.device_id = c.id AND NOT j.scheduled LIMIT %(most)s)
                                         UNION ALL
                                        (SELECT 1 FROM shardd.jobs j WHERE j.device_id = c.id AND j.scheduled LIMIT %(most)s)
                                         LIMIT %(most)s) counted),
           (SELECT count(claimed_epoch) FROM (
                SELECT claimed_epoch FROM shardd.jobs j WHERE j.device_id = c.id AND NOT j.scheduled LIMIT %(most_looked_at)s) counted)
      FROM chosen c WHERE %(ids)s::text[] IS NOT NULL
)
SELECT ${device}, d.created_at, coalesce(l.jobs, 0) AS jobs, coalesce(l.in_flight, 0) AS in_flight,
       t.day, coalesce(t.sent, 0) AS sent, coalesce(t.hour, 0) AS hour, coalesce(t.hour_sent, 0) AS hour_sent, t.last_at,
       (SELECT count(*) FROM (SELECT FROM shardd.device_days e WHERE e.device_id = d.id AND e.day < t.day
                               ORDER BY e.day DESC LIMIT %(warm_days)s) days) AS days
  FROM chosen d
  LEFT JOIN shardd.device_visits v ON v.device_id = d.id
  LEFT JOIN live l ON l.device_id = d.id
  LEFT JOIN LATERAL (
      SELECT day, sent, hour, hour_sent, last_at FROM shardd.device_days WHERE device_id = d.id ORDER BY day DESC LIMIT 1
  ) t ON true
 ORDER BY d.id;

-- name: device_filter
-- The filters of an operator's question about devices; NULL filters pass everything. `search`: how the id or the label begins.
removed_at IS NULL AND (%(transport)s::text IS NULL OR transport = %(transport)s)
       AND (%(device_group)s::text IS NULL
            OR d.id IN (SELECT m.device_id FROM shardd.device_group_members m WHERE m.device_group = %(device_group)s))
       AND (%(search)s::text IS NULL OR starts_with(lower(id), lower(%(search)s)) OR starts_with(lower(label), lower(%(search)s)));

-- name: page_of_devices
-- The ids of up to `most` devices after the device `from` (NULL: from the first; `back`: before it, the nearest first), in an order: by
-- `id`, by `label`, or by the last change of their state (`changed`). NULL filters pass everything.
WITH keyed AS (
    SELECT d.*, CASE %(order)s WHEN 'label' THEN lower(coalesce(d.label, ''))
                               WHEN 'changed' THEN to_char(1e12 - extract(epoch FROM coalesce(d.paused_at, d.state_since)), 'FM000000000000.000000') ELSE '' END COLLATE "C" AS key
      FROM shardd.devices d
)
SELECT id FROM keyed d
 WHERE ${device_filter}
   AND (%(state)s::text IS NULL OR CASE WHEN paused_at IS NULL THEN state ELSE 'paused' END = %(state)s)
   AND (%(from)s::text IS NULL
        OR NOT %(back)s AND (d.key, d.id COLLATE "C") > (SELECT f.key, f.id COLLATE "C" FROM keyed f WHERE f.id = %(from)s)
        OR %(back)s AND (d.key, d.id COLLATE "C") < (SELECT f.key, f.id COLLATE "C" FROM keyed f WHERE f.id = %(from)s))
 ORDER BY CASE WHEN NOT %(back)s THEN d.key END, CASE WHEN NOT %(back)s THEN d.id COLLATE "C" END, d.key DESC, d.id COLLATE "C" DESC
 LIMIT %(most)s;

-- name: devices_of_page
-- These devices with their jobs that are in a lane, counted up to `most`: those are found by an index, however many there are, and
-- scheduled ones are not.
SELECT ${device}, q.queued, t.day, coalesce(t.sent, 0) AS sent, coalesce(t.hour, 0) AS hour, coalesce(t.hour_sent, 0) AS hour_sent, t.last_at,
       (SELECT count(*) FROM (SELECT FROM shardd.device_days e WHERE e.device_id = d.id AND e.day < t.day
                               ORDER BY e.day DESC LIMIT %(warm_days)s) days) AS days
  FROM shardd.devices d
  LEFT JOIN shardd.device_visits v ON v.device_id = d.id
  LEFT JOIN LATERAL (
      SELECT day, sent, hour, hour_sent, last_at FROM shardd.device_days WHERE device_id = d.id ORDER BY day DESC LIMIT 1
  ) t ON true
 CROSS JOIN LATERAL (
     SELECT count(*) AS queued FROM (SELECT FROM shardd.jobs j WHERE j.device_id = d.id AND NOT j.scheduled LIMIT %(most)s) first
 ) q
 WHERE d.id = ANY (%(ids)s::text[]) AND d.removed_at IS NULL;

-- name: states_of_devices
-- How many devices are in which state, as it is shown, and which they are.
SELECT CASE WHEN paused_at IS NULL THEN state ELSE 'paused' END AS state, array_agg(id) AS ids
  FROM shardd.devices d
 WHERE ${device_filter}
 GROUP BY 1;

-- name: first_groups
-- Up to `most` device groups.
SELECT id, label FROM shardd.device_groups ORDER BY id LIMIT %(most)s;

-- name: group_label
-- The label of a device group.
SELECT label FROM shardd.device_groups WHERE id = %(id)s;

-- name: groups_of_device
-- The device groups that a device is in.
SELECT g.id, g.label FROM shardd.device_group_members m JOIN shardd.device_groups g ON g.id = m.device_group
 WHERE m.device_id = %(id)s ORDER BY g.id;

-- name: device_was_there
-- Whether there is, or ever was, a device of this id.
SELECT EXISTS (SELECT FROM shardd.devices WHERE id = %(id)s);

-- name: add_devices
-- Adds devices; one that was removed comes back. Returns the ids that are new.
INSERT INTO shardd.devices AS d (id, transport, label, proxy, settings, state, gap_min, gap_max, hourly_limit, daily_limit,
                                 quiet_hours, timezone, warm, classes)
SELECT id, %(transport)s, %(label)s, %(proxy)s, %(settings)s, %(state)s, %(gap_min)s, %(gap_max)s, %(hourly_limit)s,
       %(daily_limit)s, %(quiet_hours)s, %(timezone)s, %(warm)s, %(classes)s
  FROM unnest(%(ids)s::text[]) id
ON CONFLICT (id) DO UPDATE SET removed_at = NULL, transport = EXCLUDED.transport, label = EXCLUDED.label,
    proxy = EXCLUDED.proxy, settings = EXCLUDED.settings, state = EXCLUDED.state, session = NULL, reason = NULL,
    state_since = now(), state_until = NULL, backoff_until = NULL, paused_at = NULL, paused_why = NULL, gap_min = EXCLUDED.gap_min,
    gap_max = EXCLUDED.gap_max, hourly_limit = EXCLUDED.hourly_limit, daily_limit = EXCLUDED.daily_limit,
    quiet_hours = EXCLUDED.quiet_hours, timezone = EXCLUDED.timezone, warm = EXCLUDED.warm, classes = EXCLUDED.classes
 WHERE d.removed_at IS NOT NULL
RETURNING id;

-- name: change_devices
-- Sets the columns that are `given`. The classes in `cleared` lose their settings; then the settings in `classes` are added, and those
-- that are null there removed. A device of an HTTP platform whose key was refused becomes ready with new settings. Returns the ids that
-- exist, and whether each was changed.
WITH written AS (
    UPDATE shardd.devices d
       SET label = CASE WHEN 'label' = ANY (g.given) THEN %(label)s::text ELSE label END,
           proxy = CASE WHEN 'proxy' = ANY (g.given) THEN %(proxy)s::text ELSE proxy END,
           settings = CASE WHEN 'settings' = ANY (g.given) THEN %(settings)s::jsonb ELSE settings END,
           backoff_until = CASE WHEN 'settings' = ANY (g.given) THEN NULL ELSE backoff_until END,
           state = CASE WHEN g.new_key THEN 'ready' ELSE state END,
           reason = CASE WHEN g.new_key THEN NULL ELSE reason END,
           state_since = CASE WHEN g.new_key THEN now() ELSE state_since END,
           gap_min = CASE WHEN 'gap_min' = ANY (g.given) THEN %(gap_min)s::double precision ELSE gap_min END,
           gap_max = CASE WHEN 'gap_max' = ANY (g.given) THEN %(gap_max)s::double precision ELSE gap_max END,
           hourly_limit = CASE WHEN 'hourly_limit' = ANY (g.given) THEN %(hourly_limit)s::integer ELSE hourly_limit END,
           daily_limit = CASE WHEN 'daily_limit' = ANY (g.given) THEN %(daily_limit)s::integer ELSE daily_limit END,
           quiet_hours = CASE WHEN 'quiet_hours' = ANY (g.given) THEN %(quiet_hours)s::text ELSE quiet_hours END,
           timezone = CASE WHEN 'timezone' = ANY (g.given) THEN %(timezone)s::text ELSE timezone END,
           warm = CASE WHEN 'warm' = ANY (g.given) THEN %(warm)s::boolean ELSE warm END,
           classes = (
               SELECT coalesce(jsonb_object_agg(name, fields) FILTER (WHERE fields <> '{}'), '{}')
                 FROM (SELECT name, jsonb_strip_nulls(
                                  CASE WHEN name = ANY (%(cleared)s::text[]) THEN '{}' ELSE coalesce(g.classes -> name, '{}') END
                                  || coalesce(%(classes)s::jsonb -> name, '{}')) AS fields
                         FROM jsonb_object_keys(g.classes || %(classes)s::jsonb) name) merged)
      FROM (SELECT o.id, %(given)s::text[] AS given,
                   -- Clearing all classes also removes unreadable settings.
                   CASE WHEN cardinality(%(cleared)s::text[]) < 3 THEN o.classes ELSE '{}' END AS classes,
                   'settings' = ANY (%(given)s::text[]) AND o.state IN (${wants_settings}) AND o.transport <> 'whatsapp' AS new_key
              FROM shardd.devices o WHERE o.id = ANY (%(ids)s::text[])) g
     WHERE d.id = g.id AND removed_at IS NULL
    RETURNING d.id, d AS row
)
SELECT w.id, w.row IS DISTINCT FROM before AS changed FROM written w JOIN shardd.devices before ON before.id = w.id;

-- name: pause_devices
-- Pauses devices; jobs in flight are finished. One that is paused keeps its time, and its reason unless a new one is given. Returns the ids
-- that exist, and whether each was changed.
WITH written AS (
    UPDATE shardd.devices SET paused_at = coalesce(paused_at, now()), paused_why = %(why)s
     WHERE id = ANY (%(ids)s::text[]) AND removed_at IS NULL AND (paused_at IS NULL OR paused_why IS DISTINCT FROM coalesce(%(why)s, paused_why))
    RETURNING id
)
SELECT id, id IN (SELECT id FROM written) AS changed FROM shardd.devices WHERE id = ANY (%(ids)s::text[]) AND removed_at IS NULL;

-- name: resume_devices
-- Resumes paused devices. Returns the ids that exist, and whether each was changed.
WITH written AS (
    UPDATE shardd.devices SET paused_at = NULL, paused_why = NULL, resumed_at = now()
     WHERE id = ANY (%(ids)s::text[]) AND removed_at IS NULL AND paused_at IS NOT NULL
    RETURNING id
)
SELECT id, id IN (SELECT id FROM written) AS changed FROM shardd.devices WHERE id = ANY (%(ids)s::text[]) AND removed_at IS NULL;

-- name: remove_devices
-- Removes devices without live jobs, which two indexes have, and without a linked phone. Their finished jobs stay readable. Returns the ids
-- that were removed.
UPDATE shardd.devices d SET removed_at = now()
 WHERE id = ANY (%(ids)s::text[]) AND removed_at IS NULL AND session IS NULL
   AND NOT EXISTS (SELECT FROM shardd.jobs j WHERE j.device_id = d.id AND NOT j.scheduled)
   AND NOT EXISTS (SELECT FROM shardd.jobs j WHERE j.device_id = d.id AND j.scheduled)
RETURNING id;
