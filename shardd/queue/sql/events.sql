-- The outbox: reading it, and keeping it bounded.

-- name: configure_events
-- Tells the triggers whether events are written: for how many seconds they are kept, 0: not at all.
INSERT INTO shardd.settings AS s (name, value) VALUES ('events.keep', to_jsonb(%(keep)s::double precision))
ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value WHERE s.value <> EXCLUDED.value;

-- name: purge_events
-- Deletes up to `chunk` events that are older than `keep` seconds or have `most` newer ones. Returns how many went.
SELECT shardd.purge_events(make_interval(secs => %(keep)s), %(most)s, %(chunk)s);

-- name: mend_events
-- Makes readable what was written before the database was restored from a dump. Returns how many events that were.
SELECT shardd.mend_events();

-- name: read_events
-- Up to `most` events after a position (NULL: from the first), oldest first; `kinds`: patterns, NULL passes everything.
SELECT position, id, at, kind, job_id, device_id, campaign, reference, data
  FROM shardd.read_events(%(after)s, %(most)s, %(kinds)s);

-- name: newest_events
-- The newest `most` events that can be read, oldest of them first; `kinds`: patterns, NULL passes everything.
SELECT position, id, at, kind, job_id, device_id, campaign, reference, data
  FROM (SELECT e.xid || '-' || e.id AS position, e.*
          FROM shardd.all_events e CROSS JOIN (SELECT shardd.kind_patterns(%(kinds)s::text[]) AS patterns OFFSET 0) p
         WHERE e.xid < pg_snapshot_xmin(pg_current_snapshot()) AND e.kind LIKE ANY (p.patterns)
         ORDER BY e.xid DESC, e.id DESC LIMIT %(most)s) newest
 ORDER BY xid, id;

-- name: events_end
-- The position behind every event that can be read now.
SELECT shardd.events_end();
