-- What lanes wait for, as the node that serves them knows it: for `waits_for`, and for the age of the oldest due job.

-- name: save_lane_waits
-- Records waits. Arrays, one element per lane: device_ids, lanes, whys, and seconds (from now to its end; 0: it ended early, now).
INSERT INTO shardd.lane_waits AS w (device_id, lane, why, until)
SELECT device_id, lane, why, now() + make_interval(secs => seconds)
  FROM unnest(%(device_ids)s::text[], %(lanes)s::text[], %(whys)s::text[], %(seconds)s::double precision[])
       AS e(device_id, lane, why, seconds)
ON CONFLICT (device_id, lane) DO UPDATE SET why = EXCLUDED.why, until = EXCLUDED.until;

-- name: lane_waits
-- Those that have not ended, with the seconds that are left.
SELECT device_id, lane, why, extract(epoch FROM until - now())::double precision AS seconds
  FROM shardd.lane_waits WHERE until > now();
