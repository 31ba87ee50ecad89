-- Taking over devices, campaigns and jobs from another system; each may be done again.

-- name: known_devices
-- Every device that is or was there.
SELECT id, transport, session, removed_at IS NOT NULL FROM shardd.devices;

-- name: import_devices
-- Devices that have sent for long elsewhere, from a JSON array of objects. Returns the ids that were not there.
INSERT INTO shardd.devices (id, transport, state, label, settings, gap_min, gap_max, warm)
SELECT id, transport, state, label, settings, gap_min, gap_max, true
  FROM json_to_recordset(%(rows)s::json) AS r(
       id text, transport text, state text, label text, settings jsonb, gap_min double precision, gap_max double precision)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: import_campaigns
-- Returns the ids that were not there.
INSERT INTO shardd.campaigns (id) SELECT unnest(%(ids)s::text[]) ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: import_jobs
-- Jobs from a JSON array of objects, in its order, which is that of their order groups. Returns the dedupe keys that were new,
-- and whether the recipient has opted out.
INSERT INTO shardd.jobs (device_id, recipient, kind, body, media, campaign, run_at, expires_at, dedupe_key, order_group, reference,
                         metadata)
SELECT device_id, recipient, kind, body, media, campaign, run_at, expires_at, dedupe_key, order_group, reference, metadata
  FROM ROWS FROM (json_to_recordset(%(rows)s::json) AS (
       device_id text, recipient text, kind text, body text, media text, campaign text, run_at timestamptz, expires_at timestamptz,
       dedupe_key text, order_group text, reference text, metadata jsonb)) WITH ORDINALITY
 ORDER BY ordinality
RETURNING dedupe_key, opted_out;
