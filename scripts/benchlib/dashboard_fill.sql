-- A database as it is after some months: what `dashboard_fill.py` runs, in this order. The triggers of the large tables are off
-- meanwhile, so each row is written as they would have left it.

-- name: past_months
-- The months of the archive before this one, as shardd.prepare_archive makes them.
DO $$
DECLARE
    month date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
    name  text;
BEGIN
    FOR i IN 1 .. 3 LOOP
        month := month - interval '1 month';
        name := 'archive_' || to_char(month, 'YYYY_MM');
        EXECUTE format('CREATE TABLE shardd.%%I PARTITION OF shardd.archive FOR VALUES FROM (%%L) TO (%%L)', name,
                       month || ' 00:00:00+00', (month + interval '1 month')::date || ' 00:00:00+00');
        EXECUTE format('REVOKE ALL ON TYPE shardd.%%I FROM PUBLIC', name);
    END LOOP;
END $$;

-- name: indexes
-- The indexes of the large tables, without those of constraints: to build them once all rows are there takes a fraction of the time.
SELECT i.indexrelid::regclass::text, replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ')
  FROM pg_index i
 WHERE i.indrelid IN ('shardd.archive'::regclass, 'shardd.jobs'::regclass, 'shardd.messages'::regclass) AND NOT i.indisprimary
   AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)
 ORDER BY 1;

-- name: devices
-- Sandbox devices, and one of fifty that waits for a phone; some are paused, and some cannot send.
INSERT INTO shardd.devices (id, transport, label, state, reason, state_since, paused_at, paused_why, created_at)
SELECT 'bench-' || to_char(n, 'FM00000'), CASE WHEN n %% 50 = 3 THEN 'whatsapp' ELSE 'sandbox' END, 'Branch ' || n,
       CASE n %% 50 WHEN 1 THEN 'logged_out' WHEN 2 THEN 'banned' WHEN 3 THEN 'unpaired' ELSE 'ready' END,
       CASE WHEN n %% 50 IN (1, 2) THEN 'the phone says so' END, now() - make_interval(hours => n %% 2000),
       CASE WHEN n %% 40 = 7 THEN now() - interval '1 day' END, CASE WHEN n %% 40 = 7 THEN 'holidays' END, now() - interval '90 days'
  FROM generate_series(1, %(devices)s) n;

-- name: device_days
-- Ten days on which each device sent.
INSERT INTO shardd.device_days (device_id, day, sent, hour, hour_sent, last_at)
SELECT d.id, current_date - ago, 100, 12, 10, now() - make_interval(days => ago)
  FROM shardd.devices d CROSS JOIN generate_series(1, 10) ago;

-- name: device_groups
-- Device groups; a device is in one.
INSERT INTO shardd.device_groups (id) SELECT 'group-' || n FROM generate_series(1, %(groups)s) n;

-- name: members
-- Their members.
INSERT INTO shardd.device_group_members (device_group, device_id)
SELECT 'group-' || 1 + row_number() OVER (ORDER BY id) %% %(groups)s, id FROM shardd.devices;

-- name: campaigns
-- Campaigns: one of ten is paused (campaign-1 among them, which has a quarter of the finished jobs and half of the waiting ones), and one
-- of ten cancelled.
INSERT INTO shardd.campaigns (id, label, state, why, created_at, state_since)
SELECT 'campaign-' || n, 'Offer of week ' || n, CASE n %% 10 WHEN 1 THEN 'paused' WHEN 0 THEN 'cancelled' ELSE 'running' END,
       CASE WHEN n %% 10 IN (0, 1) THEN 'typo in the text' END, now() - make_interval(days => n), now() - make_interval(days => n)
  FROM generate_series(1, %(campaigns)s) n;

-- name: opt_outs
-- People who opted out.
INSERT INTO shardd.opt_outs (address, recipient, source, device_id, words, said_at, heard_at, created_by, created_at)
SELECT '4915199' || to_char(n, 'FM000000'), '+4915199' || to_char(n, 'FM000000'), CASE WHEN n %% 3 = 0 THEN 'import' ELSE 'message' END,
       CASE WHEN n %% 3 <> 0 THEN 'bench-' || to_char(1 + n %% %(devices)s, 'FM00000') END, CASE WHEN n %% 3 <> 0 THEN 'STOP' END,
       t.at, t.at, 'shardd', t.at
  FROM generate_series(1, %(opt_outs)s) n
 CROSS JOIN LATERAL (SELECT now() - interval '80 days' + interval '80 days' * n / %(opt_outs)s AS at) t;

-- name: opt_out_log
-- What they said, in that order.
INSERT INTO shardd.opt_out_log (address, kind, source, device_id, words, said_at, created_by, created_at)
SELECT address, 'opted_out', source, device_id, words, said_at, created_by, created_at FROM shardd.opt_outs ORDER BY created_at;

-- name: archive
-- Finished jobs of almost three months, more from day to day: most were sent, and read within minutes.
INSERT INTO shardd.archive (id, device_id, device_group, recipient, address, kind, body, class, campaign, priority, run_at, max_attempts,
    on_doubt, dedupe_key, order_group, reference, metadata, producer, created_at, token, rendered, confirms, attempt, failures, claimed_at,
    state, settled_at, message_id, error, error_class, delivered_at, read_at, unreadable_at, unreadable_why)
SELECT n, 'bench-' || to_char(1 + n %% %(devices)s, 'FM00000'),
       CASE WHEN n %% 20 = 5 THEN 'group-' || 1 + (1 + n %% %(devices)s) %% %(groups)s END, '+' || r.address, r.address, 'text',
       'Dear customer, your parcel arrives on Thursday. ' || repeat('-', 80), CASE WHEN n %% 9 = 0 THEN 'service' ELSE 'marketing' END,
       CASE WHEN n %% 4 = 0 THEN 'campaign-1' WHEN n %% 4 < 3 THEN 'campaign-' || 2 + n::bigint * (%(campaigns)s - 2) / %(finished)s END, 0,
       t.at - interval '1 minute', 5, 'hold', CASE WHEN n %% 10 = 3 THEN 'key-' || n END, CASE WHEN n %% 100 = 33 THEN 'chat-' || n / 1000 END,
       'order-' || n, CASE WHEN n %% 10 = 7 THEN jsonb_build_object('customer', n) END, '', t.at - interval '1 minute', n, false, false, 1, 0,
       t.at, s.state, t.at, CASE WHEN s.state = 'sent' THEN 'BENCH' || n END,
       CASE s.state WHEN 'failed' THEN 'the recipient is not on WhatsApp' WHEN 'in_doubt' THEN 'the worker died while it was sending'
                    WHEN 'opted_out' THEN 'the recipient opted out' WHEN 'cancelled' THEN 'cancelled by an operator' END,
       CASE s.state WHEN 'failed' THEN CASE WHEN n %% 7 = 0 THEN 'connection' ELSE 'recipient' END WHEN 'in_doubt' THEN 'worker'
                    WHEN 'opted_out' THEN 'opted_out' WHEN 'cancelled' THEN 'cancelled' END,
       CASE WHEN s.state = 'sent' AND n %% 10 < 9 THEN t.at + interval '3 seconds' END,
       CASE WHEN s.state = 'sent' AND n %% 10 < 6 THEN t.at + interval '3 minutes' END,
       CASE WHEN s.state = 'sent' AND n %% 1000 = 9 THEN t.at + interval '5 seconds' END, CASE WHEN s.state = 'sent' AND n %% 1000 = 9 THEN 'its phone' END
  FROM generate_series(1, %(finished)s) n
 CROSS JOIN LATERAL (SELECT now() - interval '85 days' * ((%(finished)s - n)::float8 / %(finished)s) ^ 2 AS at) t
 CROSS JOIN LATERAL (SELECT CASE WHEN n %% 100 < 90 THEN 'sent' WHEN n %% 100 < 96 THEN 'failed' WHEN n %% 100 < 97 THEN 'cancelled'
                                 WHEN n %% 100 = 97 THEN 'expired' WHEN n %% 500 = 98 THEN 'in_doubt' ELSE 'opted_out' END AS state) s
 CROSS JOIN LATERAL (SELECT CASE s.state WHEN 'opted_out' THEN '4915199' || to_char(1 + n %% %(opt_outs)s, 'FM000000')
                                         ELSE '49151' || to_char(n %% 250000, 'FM00000000') END AS address) r;

-- name: live
-- Live jobs that nobody sends: of paused campaigns, on devices, in the pools of device groups, and in order groups; and scheduled ones.
INSERT INTO shardd.jobs (id, device_id, device_group, recipient, address, body, class, campaign, dedupe_key, order_group, reference, run_at,
                         held, scheduled, due_at)
OVERRIDING SYSTEM VALUE
SELECT %(finished)s + n, CASE WHEN n %% 10 <> 8 THEN 'bench-' || to_char(1 + n %% %(devices)s, 'FM00000') END,
       CASE WHEN n %% 10 = 8 THEN 'group-' || 1 + n %% %(groups)s END, '+' || r.address, r.address,
       'Dear customer, your parcel arrives on Thursday. ' || repeat('-', 80), CASE WHEN n %% 9 = 0 THEN 'service' ELSE 'marketing' END,
       CASE WHEN n %% 2 = 0 THEN 'campaign-1' WHEN n %% 10 <> 7 THEN 'campaign-' || 1 + 10 * (n / 10 %% (%(campaigns)s / 10)) END,
       CASE WHEN n %% 10 = 3 THEN 'key-' || %(finished)s + n END, CASE WHEN n %% 10 = 9 THEN 'room-' || n / 100 END, 'next-' || n,
       CASE WHEN w.later THEN now() + make_interval(mins => n %% 20000 + 60) ELSE now() END, w.held, w.later OR w.held,
       CASE WHEN w.later THEN now() + make_interval(mins => n %% 20000 + 60) END
  FROM generate_series(1, %(live)s) n
 CROSS JOIN LATERAL (SELECT n %% 10 IN (6, 7) AS later, n %% 10 = 9 AND n %% 100 > 9 AS held) w
 CROSS JOIN LATERAL (SELECT '49151' || to_char(n %% 250000, 'FM00000000') AS address) r;

-- name: order_groups
-- The rows that their order groups are locked by.
INSERT INTO shardd.order_groups (producer, name) SELECT DISTINCT producer, order_group FROM shardd.jobs WHERE order_group IS NOT NULL;

-- name: dedupe_keys
-- The keys of both.
INSERT INTO shardd.dedupe_keys (key, job_id, created_at)
SELECT dedupe_key, id, created_at FROM shardd.archive WHERE dedupe_key IS NOT NULL
 UNION ALL SELECT dedupe_key, id, created_at FROM shardd.jobs WHERE dedupe_key IS NOT NULL;

-- name: transaction
-- The number of a transaction that writes.
SELECT pg_current_xact_id()::text::bigint;

-- name: transactions
-- As many more: events are read in the order of those that wrote them.
DO $$
BEGIN
    FOR i IN 1 .. 20000 LOOP
        PERFORM pg_current_xact_id();
        COMMIT;
    END LOOP;
END $$;

-- name: events
-- The events of the last week, written by all transactions from `first` to `last`.
INSERT INTO shardd.outbox (xid, kind, job_id, device_id, campaign, reference, recipient, device_group, class, job_kind, state, message_id,
    error, error_class, metadata, attempt, failures, run_at, created_at, settled_at, delivered_at, read_at, at)
SELECT (%(first)s + (a.id - b.id) * (%(last)s - %(first)s) / (%(finished)s - b.id + 1))::text::xid8, 'job.' || k.kind, a.id, a.device_id,
       a.campaign, a.reference, a.recipient, a.device_group, a.class, a.kind, a.state, a.message_id, a.error, a.error_class, a.metadata,
       a.attempt, a.failures, a.run_at, a.created_at, a.settled_at, CASE WHEN k.place > 1 THEN a.delivered_at END,
       CASE WHEN k.place > 2 THEN a.read_at END, a.settled_at
  FROM (SELECT min(id) AS id FROM shardd.archive WHERE settled_at > now() - interval '167 hours') b
  JOIN shardd.archive a ON a.id >= b.id
 CROSS JOIN LATERAL (VALUES (1, a.state, true), (2, 'delivered', a.delivered_at IS NOT NULL), (3, 'read', a.read_at IS NOT NULL))
                         k(place, kind, happened)
 WHERE k.happened
 ORDER BY a.id, k.place;

-- name: messages
-- What people wrote: answers to messages of the last month.
INSERT INTO shardd.messages (device_id, message_id, sender, number, name, own, status, kind, text, quoted_id, job_id, media_type, media_size,
                             opt_out, written_at, received_at)
SELECT a.device_id, 'IN' || a.id, a.recipient, a.recipient, 'Customer ' || a.id %% 250000, false, false,
       CASE WHEN a.id %% 5 = 0 THEN 'image' ELSE 'text' END, 'Thank you for the message about ' || a.reference, a.message_id, a.id,
       CASE WHEN a.id %% 5 = 0 THEN 'image/jpeg' END, CASE WHEN a.id %% 5 = 0 THEN 48000 END, false, a.settled_at, a.settled_at
  FROM shardd.archive a
 WHERE a.state = 'sent' AND a.id %% 11 IN (1, 2) AND a.settled_at > now() - interval '29 days'
 ORDER BY a.id;

-- name: webhooks
-- Webhooks of another node: one is up to date, one waits for kinds that are rare among millions, one is disabled.
INSERT INTO shardd.webhook_cursors (name, xid, kinds, target, node, incarnation, expires_at, delivered, delivered_at, failing_since, failures, error,
                                    disabled_at)
SELECT w.name, w.xid::text::xid8, w.kinds, 'x', 'elsewhere', gen_random_uuid(), now() + interval '1 day', 100000, now(),
       CASE WHEN w.failures > 0 THEN now() - interval '2 days' END, w.failures, CASE WHEN w.failures > 0 THEN 'Connection refused' END,
       CASE WHEN w.name = 'old' THEN now() - interval '1 day' END
  FROM (VALUES ('crm', %(last)s::bigint, '{job.*}'::text[], 0), ('alarm', %(first)s, '{library.state}', 12), ('old', %(first)s, '{job.*}', 40))
       w(name, xid, kinds, failures);

-- name: webhook_failures
-- Events that its receiver did not accept.
INSERT INTO shardd.webhook_failures (name, id, event_id, at, kind, body, tries, error)
SELECT 'old', n, 'evt_' || n, now() - make_interval(mins => n), 'job.sent', '{}', 12, '500 Internal Server Error' FROM generate_series(1, 1000) n;

-- name: acts
-- The audit log of three operators.
INSERT INTO shardd.acts (at, who, how, address, act, target, node)
SELECT now() - interval '80 days' + interval '80 days' * n / 5000, 'user-' || n %% 3, 'password', '192.0.2.' || n %% 200, 'pause',
       'device bench-' || to_char(1 + n %% %(devices)s, 'FM00000'), 'bench'
  FROM generate_series(1, 5000) n;

-- name: next_job
-- The id of the next job is not one of these.
SELECT setval(pg_get_serial_sequence('shardd.jobs', 'id'), %(finished)s + %(live)s);
