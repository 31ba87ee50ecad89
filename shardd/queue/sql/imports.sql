-- Importing devices, campaigns and jobs from another system; each can be repeated.

-- name: known_devices
-- Every device, removed ones included.
SELECT id, transport, session, removed_at IS NOT NULL AS removed FROM shardd.devices;

-- name: import_devices
-- Adds devices that have long sent elsewhere, from a JSON array of objects.
INSERT INTO shardd.devices (id, transport, state, label, settings, gap_min, gap_max, warm)
SELECT id, transport, state, label, settings, gap_min, gap_max, true
  FROM json_to_recordset(%(rows)s::json) AS r(
       id text, transport text, state text, label text, settings jsonb, gap_min double precision, gap_max double precision)
ON CONFLICT (id) DO NOTHING;

-- name: import_campaigns
-- Adds campaigns. Returns the ids that are new.
INSERT INTO shardd.campaigns (id) SELECT unnest(%(ids)s::text[]) ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: import_jobs
-- Inserts jobs from a JSON array of objects, in its order, which is that of their order groups. Returns the dedupe keys that are new, and
-- whether the recipient has opted out.
INSERT INTO shardd.jobs (device_id, recipient, kind, body, media, campaign, run_at, expires_at, dedupe_key, order_group, reference,
                         metadata)
SELECT device_id, recipient, kind, body, media, campaign, run_at, expires_at, dedupe_key, order_group, reference, metadata
  FROM ROWS FROM (json_to_recordset(%(rows)s::json) AS (
       device_id text, recipient text, kind text, body text, media text, campaign text, run_at timestamptz, expires_at timestamptz,
       dedupe_key text, order_group text, reference text, metadata jsonb)) WITH ORDINALITY
 ORDER BY ordinality
RETURNING dedupe_key, opted_out;
