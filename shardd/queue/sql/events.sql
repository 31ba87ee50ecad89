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
-- Up to `most` events after a position (NULL: from the first), oldest first; `kinds`: patterns, NULL passes everything.
SELECT position, id, at, kind, job_id, device_id, campaign, reference, data, event_id
  FROM shardd.read_events(%(after)s, %(most)s, %(kinds)s);

-- name: newest_events
-- The newest `most` events that can be read, oldest of them first; `kinds`: patterns, NULL passes everything.
SELECT position, id, at, kind, job_id, device_id, campaign, reference, data, event_id
  FROM (SELECT e.xid || '-' || e.id AS position, e.*
          FROM shardd.all_events e CROSS JOIN (SELECT shardd.kind_patterns(%(kinds)s::text[]) AS patterns OFFSET 0) p
         WHERE e.xid < pg_snapshot_xmin(pg_current_snapshot()) AND e.kind LIKE ANY (p.patterns)
         ORDER BY e.xid DESC, e.id DESC LIMIT %(most)s) newest
 ORDER BY xid, id;

-- name: events_end
-- The position behind every event that can be read now.
SELECT shardd.events_end();
