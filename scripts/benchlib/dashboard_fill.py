"""A database as it is after some months: devices in all states, live jobs, finished ones of three months, and their events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg


@dataclass(frozen=True)
class Fill:
    """How many of each."""

    devices: int
    finished: int
    live: int
    campaigns: int = 40
    groups: int = 20


_PAST: Final[LiteralString] = """
DO $$
DECLARE
    month date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
BEGIN
    FOR i IN 1 .. 2 LOOP
        month := month - interval '1 month';
        EXECUTE format('CREATE TABLE shardd.%I PARTITION OF shardd.archive FOR VALUES FROM (%L) TO (%L)',
            'archive_' || to_char(month, 'YYYY_MM'), month || ' 00:00:00+00',
            (month + interval '1 month')::date || ' 00:00:00+00');
    END LOOP;
END $$
"""
"""Months of the archive before this one."""
_DEVICES: Final[LiteralString] = """
INSERT INTO shardd.devices (id, transport, label, state, reason, paused_at, paused_why)
SELECT 'bench-' || to_char(n, 'FM00000'), CASE WHEN n %% 10 = 0 THEN 'sandbox' ELSE 'whatsapp' END, 'Branch ' || n,
       CASE WHEN n %% 50 = 1 THEN 'logged_out' WHEN n %% 50 = 2 THEN 'banned' WHEN n %% 50 = 3 THEN 'unpaired' ELSE 'ready' END,
       CASE WHEN n %% 50 IN (1, 2) THEN 'the phone says so' END,
       CASE WHEN n %% 40 = 7 THEN now() - interval '1 day' END, CASE WHEN n %% 40 = 7 THEN 'holidays' END
  FROM generate_series(1, %(devices)s) n
"""
_DAYS: Final[LiteralString] = """
INSERT INTO shardd.device_days (device_id, day, sent, hour, hour_sent, last_at)
SELECT d.id, current_date - ago, 100, 12, 10, now() - make_interval(days => ago)
  FROM shardd.devices d CROSS JOIN generate_series(0, 9) ago
"""
_GROUPS: Final[LiteralString] = """
WITH made AS (INSERT INTO shardd.device_groups (id) SELECT 'group-' || n FROM generate_series(1, %(groups)s) n RETURNING id)
INSERT INTO shardd.device_group_members (device_group, device_id)
SELECT 'group-' || 1 + row_number() OVER (ORDER BY d.id) %% %(groups)s, d.id FROM shardd.devices d
 WHERE (SELECT count(*) FROM made) > 0
"""
_CAMPAIGNS: Final[LiteralString] = """
INSERT INTO shardd.campaigns (id) SELECT 'campaign-' || n FROM generate_series(1, %(campaigns)s) n
"""
_ARCHIVE: Final[LiteralString] = """
INSERT INTO shardd.archive (id, device_id, recipient, address, kind, body, class, campaign, priority, run_at, max_attempts,
    on_doubt, producer, created_at, token, rendered, confirms, attempt, failures, claimed_at, reference, state, settled_at,
    message_id, error, error_class, delivered_at, read_at, unreadable_at, unreadable_why)
SELECT n, 'bench-' || to_char(1 + n %% %(devices)s, 'FM00000'), '+49151' || to_char(n %% 250000, 'FM00000000'),
       '49151' || to_char(n %% 250000, 'FM00000000'), 'text',
       'Dear customer, your parcel arrives on Thursday. ' || repeat('-', 80),
       CASE WHEN n %% 9 = 0 THEN 'service' ELSE 'marketing' END, 'campaign-' || 1 + (n * 40 / %(finished)s) %% %(campaigns)s, 0,
       at - interval '1 minute', 5, 'hold', '', at - interval '1 minute', n, false, false, 1, 0, at, 'order-' || n, s.state, at,
       CASE WHEN s.state = 'sent' THEN 'BENCH' || n END, s.error, s.error_class,
       CASE WHEN s.state = 'sent' AND n %% 10 < 9 THEN at + interval '3 seconds' END,
       CASE WHEN s.state = 'sent' AND n %% 10 < 6 THEN at + interval '3 minutes' END,
       CASE WHEN s.state = 'sent' AND n %% 1000 = 7 THEN at END, CASE WHEN s.state = 'sent' AND n %% 1000 = 7 THEN 'its phone' END
  FROM generate_series(1, %(finished)s) n
 CROSS JOIN LATERAL (SELECT now() - interval '70 days' + interval '70 days' * n / %(finished)s AS at) t
 CROSS JOIN LATERAL (SELECT CASE WHEN n %% 100 < 90 THEN 'sent' WHEN n %% 100 < 96 THEN 'failed'
                                 WHEN n %% 100 < 98 THEN 'cancelled' WHEN n %% 500 = 98 THEN 'in_doubt'
                                 WHEN n %% 100 = 98 THEN 'expired' ELSE 'opted_out' END AS state) w
 CROSS JOIN LATERAL (SELECT w.state, CASE WHEN w.state = 'failed' THEN 'the recipient is not on WhatsApp'
                                          WHEN w.state = 'in_doubt' THEN 'the worker died while it was sending' END AS error,
                            CASE w.state WHEN 'failed' THEN CASE WHEN n %% 7 = 0 THEN 'connection' ELSE 'recipient' END
                                         WHEN 'in_doubt' THEN 'worker' END AS error_class) s
"""
_LIVE: Final[LiteralString] = """
INSERT INTO shardd.jobs (id, device_id, recipient, address, body, class, campaign, reference, scheduled, due_at)
OVERRIDING SYSTEM VALUE
SELECT %(finished)s + n, 'bench-' || to_char(1 + n %% %(devices)s, 'FM00000'), '+49151' || to_char(n %% 250000, 'FM00000000'),
       '49151' || to_char(n %% 250000, 'FM00000000'), 'Dear customer, your parcel arrives on Thursday. ' || repeat('-', 80),
       CASE WHEN n %% 9 = 0 THEN 'service' ELSE 'marketing' END, 'campaign-' || 1 + n %% %(campaigns)s, 'next-' || n,
       n %% 4 = 0, CASE WHEN n %% 4 = 0 THEN now() + interval '1 day' END
  FROM generate_series(1, %(live)s) n
"""
_EVENTS: Final[LiteralString] = """
INSERT INTO shardd.outbox (kind, job_id, device_id, campaign, recipient, class, job_kind, state, at)
SELECT 'job.' || k.kind, a.id, a.device_id, a.campaign, a.recipient, a.class, a.kind, a.state, a.settled_at
  FROM shardd.archive a CROSS JOIN LATERAL (VALUES (a.state), ('delivered'), ('read')) k(kind)
 WHERE a.settled_at > now() - interval '14 days' AND (k.kind = a.state OR a.state = 'sent')
"""
_INBOX: Final[LiteralString] = """
INSERT INTO shardd.messages (device_id, message_id, sender, own, status, kind, text, job_id, opt_out, written_at)
SELECT a.device_id, 'IN' || a.id, a.address, false, false, 'text', 'Thank you', a.id, false, a.settled_at
  FROM shardd.archive a WHERE a.id %% 20 = 1
"""
_QUIET: Final = ("archive", "jobs", "devices", "device_group_members", "messages")
"""Tables whose triggers would check and report each row."""


def fill(connection: psycopg.Connection[Any], sizes: Fill) -> None:
    """Fill a database that `migrate` has made; `connection` of its owner, with autocommit."""
    for table in _QUIET:
        connection.execute(f"ALTER TABLE shardd.{table} DISABLE TRIGGER USER")  # type: ignore[arg-type]  # our own names
    params = vars(sizes)
    for statement in (_PAST, _DEVICES, _DAYS, _GROUPS, _CAMPAIGNS, _ARCHIVE, _LIVE, _EVENTS, _INBOX):
        connection.execute(statement, params if "%(" in statement or "%%" in statement else None)
    for table in _QUIET:
        connection.execute(f"ALTER TABLE shardd.{table} ENABLE TRIGGER USER")  # type: ignore[arg-type]  # our own names
    connection.execute("SELECT setval(pg_get_serial_sequence('shardd.jobs', 'id'), %s)", (sizes.finished + sizes.live,))
    connection.execute("VACUUM (ANALYZE)")
