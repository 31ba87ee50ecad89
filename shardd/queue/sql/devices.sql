-- The sending accounts.

-- name: all_devices
-- Every device that is not removed, with the last day on which it sent, and on how many days before that it did, up to `warm_days`.
SELECT d.id, d.transport, d.label, d.session, d.proxy, d.settings::text, d.state, d.reason, d.state_since, d.state_until,
       d.paused_at, d.paused_why, d.gap_min, d.gap_max, d.hourly_limit, d.daily_limit, d.quiet_hours, d.timezone, d.warm, d.classes::text,
       t.day, t.sent, t.hour, t.hour_sent, t.last_at,
       CASE WHEN d.warm THEN %(warm_days)s ELSE (
           SELECT count(*) FROM (SELECT FROM shardd.device_days e WHERE e.device_id = d.id AND e.day < t.day
                                  ORDER BY e.day DESC LIMIT %(warm_days)s) days) END AS days
  FROM shardd.devices d
  LEFT JOIN LATERAL (
      SELECT day, sent, hour, hour_sent, last_at FROM shardd.device_days WHERE device_id = d.id ORDER BY day DESC LIMIT 1
  ) t ON true
 WHERE d.removed_at IS NULL
 ORDER BY d.id;

-- name: set_device_states
-- What was learned about devices. Arrays, one element per device; how many seconds ago, and in how many it ends (NULL: not by
-- itself): hosts and the database need no clock in common. Later knowledge stands; the same again changes nothing. What a node
-- learned under a lease that it has lost counts for nothing: its clients were replaced by those of the device's new owner.
UPDATE shardd.devices d
   SET state = e.state, reason = e.reason, state_since = now() - make_interval(secs => e.age),
       state_until = now() + make_interval(secs => e.remaining)
  FROM unnest(%(ids)s::text[], %(states)s::text[], %(reasons)s::text[], %(remainings)s::double precision[],
              %(ages)s::double precision[], %(epochs)s::bigint[]) AS e(id, state, reason, remaining, age, epoch)
 WHERE d.id = e.id AND d.state_since <= now() - make_interval(secs => e.age)
   AND ((d.state, d.reason, d.state_until IS NULL) IS DISTINCT FROM (e.state, e.reason, e.remaining IS NULL)
        OR abs(extract(epoch FROM d.state_until - now()) - e.remaining) > 1)
   AND (e.epoch IS NULL OR EXISTS (SELECT FROM shardd.leases l WHERE l.epoch = e.epoch))
RETURNING d.id;

-- name: heal_devices
-- Devices whose state ends by itself and has ended are ready again.
UPDATE shardd.devices SET state = 'ready', reason = NULL, state_since = now(), state_until = NULL
 WHERE state IN ('banned', 'restricted') AND state_until <= now() AND removed_at IS NULL
RETURNING id;
