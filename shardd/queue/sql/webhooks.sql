-- Which node delivers for a webhook, its progress, and the events that it could not deliver. All times are by the database's clock.

-- name: take_webhook
-- Makes this incarnation deliver for a webhook, if no other does. A new webhook starts after the existing events. Another URL or other
-- kinds enable a disabled one. Returns nothing when another node has it: an incarnation that no node has any more holds nothing.
INSERT INTO shardd.webhook_cursors AS w (name, kinds, target, node, incarnation, expires_at)
SELECT %(name)s, %(kinds)s::text[], %(target)s, name, incarnation, now() + make_interval(secs => %(ttl)s)
  FROM shardd.nodes WHERE incarnation = %(incarnation)s
ON CONFLICT (name) DO UPDATE SET
    kinds = EXCLUDED.kinds, target = EXCLUDED.target, epoch = w.epoch + 1, node = EXCLUDED.node,
    incarnation = EXCLUDED.incarnation, expires_at = EXCLUDED.expires_at,
    disabled_at = CASE WHEN w.target = EXCLUDED.target THEN w.disabled_at END
 WHERE w.expires_at <= now() OR w.incarnation = EXCLUDED.incarnation
    OR NOT EXISTS (SELECT FROM shardd.nodes n WHERE n.incarnation = w.incarnation)
RETURNING epoch, xid::text::numeric AS xid, id, delivered, dropped, retries_asked, missed,
          CASE WHEN disabled_at IS NOT NULL THEN coalesce(error, '') END AS disabled;

-- name: save_webhook
-- Records the progress of a webhook and the state of its receiver, and renews the right to deliver; it may be repeated. Returns nothing when another node has taken it.
UPDATE shardd.webhook_cursors
   SET xid = %(xid)s::text::xid8, id = %(id)s, delivered = %(delivered)s, dropped = %(dropped)s,
       delivered_at = CASE WHEN delivered < %(delivered)s THEN now() ELSE delivered_at END,
       failures = %(failures)s, error = %(error)s, next_at = now() + make_interval(secs => %(wait)s),
       failing_since = CASE WHEN %(failures)s > 0 THEN coalesce(failing_since, now()) END,
       disabled_at = CASE WHEN %(disabled)s THEN coalesce(disabled_at, now()) END,
       expires_at = now() + make_interval(secs => %(ttl)s)
 WHERE name = %(name)s AND epoch = %(epoch)s
RETURNING retries_asked, missed;

-- name: release_webhook
-- Lets another node deliver at once.
UPDATE shardd.webhook_cursors SET expires_at = now() WHERE name = %(name)s AND epoch = %(epoch)s;

-- name: events_for_webhook
-- Up to `most` events after a position, with the JSON that is posted. `horizon`: with fewer than `most` events, all of earlier transactions
-- have been read; it is returned also when there is no event.
SELECT s.horizon::text::numeric AS horizon, e.xid::text::numeric AS xid, e.id, e.at, e.kind, e.job_id, e.device_id,
       e.event_id, e.body
  FROM (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS horizon, shardd.kind_patterns(%(kinds)s::text[]) AS patterns) s
  LEFT JOIN LATERAL (
      SELECT xid, id, at, kind, job_id, device_id, event_id,
             json_build_object('type', kind, 'timestamp', shardd.iso_time(at), 'data', data)::text AS body
        FROM shardd.all_events
       WHERE (xid, id) > (%(xid)s::text::xid8, %(id)s) AND xid < s.horizon AND kind LIKE ANY (s.patterns)
       ORDER BY xid, id LIMIT %(most)s
  ) e ON true
 ORDER BY e.xid, e.id;

-- name: set_aside_events
-- Keeps events that a receiver did not accept. Arrays, one element per event.
INSERT INTO shardd.webhook_failures AS f (name, id, event_id, at, kind, body, tries, error)
SELECT %(name)s, * FROM unnest(%(ids)s::bigint[], %(event_ids)s::text[], %(ats)s::timestamptz[], %(kinds)s::text[], %(bodies)s::text[],
                               %(tries)s::integer[], %(errors)s::text[])
ON CONFLICT (name, id) DO UPDATE SET
    tries = f.tries + EXCLUDED.tries, error = EXCLUDED.error, given_up_at = now(), again = false;

-- name: trim_webhook_failures
-- Keeps the newest `most` of a webhook's failures.
DELETE FROM shardd.webhook_failures
 WHERE name = %(name)s AND id <= (
     SELECT id FROM shardd.webhook_failures WHERE name = %(name)s ORDER BY id DESC OFFSET %(most)s LIMIT 1);

-- name: failures_to_send_again
-- The first `most` failures that an operator asked to send again.
SELECT id, event_id, at, kind, body FROM shardd.webhook_failures WHERE name = %(name)s AND again ORDER BY id LIMIT %(most)s;

-- name: forget_failures
-- Deletes the failures of events that the receiver has accepted after all.
DELETE FROM shardd.webhook_failures WHERE name = %(name)s AND id = ANY (%(ids)s::bigint[]);

-- name: ask_webhook_retry
-- Asks for an immediate try of a webhook, and for its failures to be sent again. Returns their number, or nothing when the webhook is
-- unknown.
WITH asked AS (
    UPDATE shardd.webhook_cursors SET retries_asked = retries_asked + 1, disabled_at = NULL WHERE name = %(name)s RETURNING name
), again AS (
    UPDATE shardd.webhook_failures SET again = true WHERE name = %(name)s RETURNING 1
)
SELECT (SELECT count(*) FROM again) AS again, shardd.announce('shardd_webhooks', name) FROM asked;

-- name: list_webhooks
-- Every webhook that ever delivered, with the number of waiting events of its kinds among the next `among` of the outbox (`more_behind`:
-- it has more, among which others may wait), the time of the oldest, and the number of failures.
SELECT w.name, w.kinds, CASE WHEN w.expires_at > now() THEN w.node END AS node, w.delivered, w.dropped, w.missed, w.delivered_at,
       w.failing_since, w.failures, w.next_at, w.error, w.disabled_at, waiting.events AS behind, waiting.oldest AS behind_since,
       waiting.seen = %(among)s AS more_behind,
       (SELECT count(*) FROM shardd.webhook_failures f WHERE f.name = w.name) AS set_aside
  FROM shardd.webhook_cursors w
  CROSS JOIN LATERAL (SELECT shardd.kind_patterns(w.kinds) AS patterns OFFSET 0) p
  CROSS JOIN LATERAL (
      SELECT count(*) AS seen, count(*) FILTER (WHERE next.kind LIKE ANY (p.patterns)) AS events,
             min(next.at) FILTER (WHERE next.kind LIKE ANY (p.patterns)) AS oldest
        FROM (SELECT o.at, o.kind FROM shardd.outbox o WHERE (o.xid, o.id) > (w.xid, w.id) ORDER BY o.xid, o.id LIMIT %(among)s) next
  ) waiting
 ORDER BY w.name;

-- name: failing_webhooks
-- Webhooks that a node delivers for, and that are disabled or have failed for a while (several tries, as in the status of the node).
SELECT name, failing_since, failures, error, next_at, disabled_at FROM shardd.webhook_cursors
 WHERE expires_at > now() AND (disabled_at IS NOT NULL OR failures >= %(failures)s) ORDER BY name;

-- name: list_webhook_failures
-- The failures of a webhook, newest first.
SELECT event_id, at, kind, tries, error, given_up_at, again FROM shardd.webhook_failures
 WHERE name = %(name)s ORDER BY id DESC LIMIT %(most)s;

-- name: forget_webhooks
-- Deletes webhooks that no node has delivered for in `keep` seconds: the events that they had not seen are purged. Returns their names.
DELETE FROM shardd.webhook_cursors WHERE expires_at < now() - make_interval(secs => %(keep)s) RETURNING name;
