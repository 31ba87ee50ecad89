-- The outbox: reading it, and keeping it bounded.

-- name: configure_events
-- Tells the triggers whether events are written: for how many seconds they are kept, 0: not at all.
INSERT INTO shardd.settings AS s (name, value) VALUES ('events.keep', to_jsonb(%(keep)s::double precision))
ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value WHERE s.value <> EXCLUDED.value;

-- name: purge_events
-- Deletes up to `chunk` events that are older than `keep` seconds or have `most` newer ones. Returns how many went.
SELECT shardd.purge_events(make_interval(secs => %(keep)s), %(most)s, %(chunk)s);

-- name: held_events
-- For how many seconds the oldest event has waited that cannot be read yet, because a transaction that began to write before it has
-- not ended; and which that is: a session of any database, or a prepared transaction. Nothing when no event waits for `age` seconds.
-- Those of a server whose dump was restored, with numbers whose end this one has not seen yet, wait for `reposition_restored_events`.
SELECT extract(epoch FROM now() - oldest.at)::double precision AS waiting, a.pid, coalesce(a.datname, p.database) AS database,
       coalesce(a.usename, p.owner) AS user, a.application_name AS application, host(a.client_addr) AS address, a.state,
       p.gid AS prepared, extract(epoch FROM now() - coalesce(a.xact_start, p.prepared))::double precision AS age
  FROM (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xid, pg_snapshot_xmax(pg_current_snapshot()) AS next) horizon
 CROSS JOIN LATERAL (SELECT at FROM shardd.outbox WHERE xid >= horizon.xid AND xid < horizon.next ORDER BY xid, id LIMIT 1) oldest
  LEFT JOIN pg_stat_activity a ON a.backend_xid::text::numeric = horizon.xid::text::numeric %% 4294967296
  LEFT JOIN pg_prepared_xacts p ON p.transaction::text::numeric = horizon.xid::text::numeric %% 4294967296
 WHERE oldest.at < now() - make_interval(secs => %(age)s) LIMIT 1;

-- name: reposition_restored_events
-- Makes the events readable that were written before the database was restored from a dump. Returns how many.
SELECT shardd.reposition_restored_events();

-- name: read_events
-- Up to `most` events after a position (NULL: from the first), oldest first; `kinds`: patterns, NULL passes everything; `until`: the last
-- one that is looked at, NULL looks at all.
SELECT position, id, at, kind, job_id, device_id, campaign, reference, data, event_id
  FROM shardd.read_events(%(after)s, %(most)s, %(kinds)s, %(until)s);

-- name: newest_events
-- The newest `most` events that can be read, oldest of them first; `kinds`: patterns, NULL passes everything.
SELECT position, id, at, kind, job_id, device_id, campaign, reference, data, event_id
  FROM (SELECT e.xid || '-' || e.id AS position, e.*
          FROM shardd.all_events e CROSS JOIN (SELECT shardd.kind_patterns(%(kinds)s::text[]) AS patterns OFFSET 0) p
         WHERE e.xid < pg_snapshot_xmin(pg_current_snapshot()) AND e.kind LIKE ANY (p.patterns)
         ORDER BY e.xid DESC, e.id DESC LIMIT %(most)s) newest
 ORDER BY xid, id;

-- name: recent_events
-- The newest `most` events of these kinds and of a device, oldest of them first, among the newest `among` events of all: the outbox has no
-- index on either, and may have millions. NULL passes everything.
WITH recent AS MATERIALIZED (
    SELECT xid, id, kind, device_id FROM shardd.outbox
     WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid DESC, id DESC LIMIT %(among)s
), wanted AS MATERIALIZED (
    SELECT r.xid, r.id FROM recent r CROSS JOIN (SELECT shardd.kind_patterns(%(kinds)s::text[]) AS patterns OFFSET 0) p
     WHERE r.kind LIKE ANY (p.patterns) AND (%(device_id)s::text IS NULL OR r.device_id = %(device_id)s)
     ORDER BY r.xid DESC, r.id DESC LIMIT %(most)s
)
SELECT e.xid || '-' || e.id AS position, e.id, e.at, e.kind, e.job_id, e.device_id, e.campaign, e.reference, e.data, e.event_id
  FROM wanted w CROSS JOIN LATERAL (SELECT * FROM shardd.all_events a WHERE a.xid = w.xid AND a.id = w.id) e
 ORDER BY e.xid, e.id;

-- name: events_end
-- The position behind every event that can be read now.
SELECT shardd.events_end();

-- name: count_recent_events
-- The events before a position, newest first, `most` of them: counted by minute (since the epoch) and kind, those of the last `seconds`.
-- The row without a kind says where the next call continues: `position` NULL means that there are no earlier ones of that time.
WITH newest AS MATERIALIZED (
    SELECT xid, id, at, kind FROM shardd.outbox
     WHERE (xid, id) < (split_part(%(before)s, '-', 1)::xid8, split_part(%(before)s, '-', 2)::bigint)
     ORDER BY xid DESC, id DESC LIMIT %(most)s
), last AS (
    SELECT xid, id FROM newest
     WHERE at > now() - make_interval(secs => %(seconds)s) AND (SELECT count(*) FROM newest) = %(most)s
     ORDER BY xid, id LIMIT 1
)
SELECT floor(extract(epoch FROM at) / 60)::bigint AS minute, kind, count(*) AS events, NULL AS position
  FROM newest WHERE at > now() - make_interval(secs => %(seconds)s) GROUP BY 1, 2
UNION ALL
SELECT NULL, NULL, 0, (SELECT xid || '-' || id FROM last);

-- name: events_kept
-- For how many seconds events are kept; 0: none are written.
SELECT value::text::double precision FROM shardd.settings WHERE name = 'events.keep';

-- name: bounds_of_events
-- The first and the last transaction that wrote events; NULL: there are none. `o.xid`: ORDER BY xid would be by the number that is
-- returned, of every event.
SELECT (SELECT o.xid::text::bigint FROM shardd.outbox o ORDER BY o.xid LIMIT 1) AS first,
       (SELECT o.xid::text::bigint FROM shardd.outbox o ORDER BY o.xid DESC LIMIT 1) AS last;

-- name: moment_of_event
-- When the first event was written of the transactions from `low` on.
SELECT at FROM shardd.outbox WHERE xid >= %(low)s::text::xid8 ORDER BY xid, id LIMIT 1;

-- name: position_after
-- The position of the event that is `events` ones after a position; nothing: there are not so many.
SELECT o.xid::text::bigint AS xid, o.id FROM shardd.outbox o
 WHERE (o.xid, o.id) > (%(xid)s::text::xid8, %(id)s::bigint) ORDER BY o.xid, o.id OFFSET %(events)s - 1 LIMIT 1;

-- name: events_of_job
-- The events of a job that are after one position and not after another.
SELECT at, kind, state, message_id, error FROM shardd.outbox
 WHERE (xid, id) > (%(low_xid)s::text::xid8, %(low_id)s::bigint) AND (xid, id) <= (%(high_xid)s::text::xid8, %(high_id)s::bigint)
   AND job_id = %(id)s
 ORDER BY xid, id;
