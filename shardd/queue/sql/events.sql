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

-- name: events_end
-- The position behind every event that can be read now.
SELECT shardd.events_end();
