"""Texts that others choose, on every page: shown letter by letter, and none of them is ever markup, a link or a script."""

from __future__ import annotations

import json
from collections import deque
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import psycopg
from playwright.async_api import Page, expect

from tests.support.daemon import PATIENCE, Daemon, Producer

EVIL: Final = (
    "<img src=x onerror=document.title='ran'>{{{{7*7}}}}\"'><script>document.title='ran'</script>javascript:1 {0}"
)
TEXTS: Final = {
    "devices": ("label", "paused_why", "reason"),
    "device_groups": ("label",),
    "campaigns": ("label", "why"),
    "jobs": ("body", "recipient", "reference", "error", "order_group", "file_name", "dedupe_key"),
    "archive": (
        *("body", "recipient", "reference", "error", "message_id", "unreadable_why", "file_name"),
        *("mime_type", "order_group", "dedupe_key"),
    ),
    "messages": ("text", "name", "choice", "quoted_id", "message_id", "media_type", "media_name", "media_error"),
    "nodes": ("name", "host"),
    "webhook_cursors": ("error", "node"),
    "webhook_failures": ("error", "event_id"),
    "pairing_links": ("made_by", "remark"),
    "acts": ("who", "target", "detail", "result", "node"),
}
"""Columns by table that programs, devices, persons or other hosts fill."""
OTHERS: Final = {"note", "words", "metadata", "key"}
"""What is inserted with the text: of an opt-out the note and the words; of a job the metadata, and a key in it."""
SHOWN: Final = {
    *("devices.label", "devices.reason", "devices.paused_why", "campaigns.label", "campaigns.why"),
    *("jobs.body", "archive.body", "archive.recipient", "archive.reference", "archive.error", "archive.message_id"),
    *("archive.file_name", "archive.mime_type", "archive.order_group", "archive.dedupe_key", "archive.unreadable_why"),
    *("messages.text", "messages.name", "messages.choice", "messages.quoted_id", "messages.message_id"),
    *("messages.media_type", "messages.media_name", "messages.media_error", "nodes.name", "nodes.host"),
    *("webhook_cursors.error", "webhook_cursors.node", "webhook_failures.error", "webhook_failures.event_id"),
    *("pairing_links.made_by", "pairing_links.remark"),
    *("acts.who", "acts.target", "acts.detail", "acts.result", "acts.node"),
    *OTHERS,
}
"""Of these, the ones that a page must show."""
SILENT_NODE: Final = (
    "INSERT INTO shardd.nodes (id, name, incarnation, shards, version, ttl, seen_at, host)"
    " VALUES (repeat('f', 32), 'other', gen_random_uuid(), 2, '1', 30, now() - interval '1 hour', 'h')"
)
MESSAGE: Final = (
    "INSERT INTO shardd.messages (device_id, message_id, sender, own, status, kind, text, opt_out, written_at, media_type)"
    " VALUES ('d1', 'm', '+491511000009', false, false, 'document', 'x', false, now(), 'x')"
)
WEBHOOK: Final = (
    "INSERT INTO shardd.webhook_cursors (name, kinds, target, node, incarnation, expires_at, failing_since, failures)"
    " VALUES ('crm', '{job.*}', 'x', 'n', gen_random_uuid(), now() + interval '1 hour', now(), 3)"
)
SET_ASIDE: Final = (
    "INSERT INTO shardd.webhook_failures (name, id, event_id, at, kind, body, tries, error)"
    " VALUES ('crm', 1, 'x', now(), 'job.sent', '{}', 1, 'x')"
)
LINK: Final = (
    "INSERT INTO shardd.pairing_links (device_id, hash, new_number, made_by, ends_at)"
    " VALUES ('d3', '\\x00', false, 'x', now() + interval '1 hour')"
)
MOST_PAGES: Final = 200


def plant(producer: Producer) -> set[str]:
    """Put the text into every column; returns the columns that the database let have it, in rows that there are."""
    planted = set()
    for table, columns in TEXTS.items():
        for column in columns:
            name = f"{table}.{column}"
            # What a check of the database refuses, nobody can write.
            with suppress(psycopg.errors.IntegrityError):
                if producer.execute(f"UPDATE shardd.{table} SET {column} = %s RETURNING 1", EVIL.format(name)):
                    planted.add(name)
    return planted


def in_json(name: str) -> str:
    """The text as JSON writes it."""
    return json.dumps(EVIL.format(name))[1:-1]


async def test_no_text_of_others_becomes_markup(daemon: Daemon, producer: Producer, page: Page, site: str) -> None:
    producer.add_devices(2)
    producer.execute("INSERT INTO shardd.devices (id, transport, state) VALUES ('d3', 'whatsapp', 'unpaired')")
    producer.execute("INSERT INTO shardd.device_groups (id) VALUES ('g')")
    producer.execute("INSERT INTO shardd.device_group_members VALUES ('g', 'd1'), ('g', 'd2')")
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('c')")
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign, reference, metadata) "
        "VALUES ('d1', '+491511000000', 'x', 'c', 'r', %s)",
        json.dumps({EVIL.format("key"): EVIL.format("metadata")}),
    )
    await producer.until_finished(daemon, 1)
    producer.execute("UPDATE shardd.devices SET paused_at = now() WHERE id = 'd2'")
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign, run_at) "
        "VALUES ('d2', '+491511000001', 'x', 'c', now() + interval '1 day')"
    )
    producer.execute(
        "INSERT INTO shardd.opt_outs (recipient, note, words) VALUES ('+491511000002', %s, NULL), ('+491511000003', NULL, %s)",
        *(EVIL.format("note"), EVIL.format("words")),
    )
    for statement in (MESSAGE, SILENT_NODE, WEBHOOK, SET_ASIDE, LINK):
        producer.execute(statement)
    planted = plant(producer) | OTHERS
    assert planted >= SHOWN, SHOWN - planted
    # A reason would be shown instead of the pause's.
    producer.execute("UPDATE shardd.devices SET reason = NULL WHERE id = 'd2'")
    producer.execute("UPDATE shardd.archive SET unreadable_at = now()")
    for column in ("nodes.name", "nodes.host"):  # a status may be of the moment between the two
        await expect(page.get_by_role("region", name="Nodes")).to_contain_text(
            EVIL.format(column), timeout=PATIENCE * 1000
        )
    seen: set[str] = set()
    ahead, known = deque(["/"]), {"/"}
    while ahead:
        await page.goto(f"{site}{ahead.popleft()}", wait_until="load")
        text = await page.locator("body").inner_text()
        assert await page.title() != "ran", page.url
        assert await page.locator("img[onerror], script:not([src]), a[href^='javascript:' i]").count() == 0, page.url
        assert "49\"'>" not in text, page.url
        seen |= {name for name in planted if EVIL.format(name) in text or in_json(name) in text}
        for link in await page.locator("a[href]").evaluate_all("links => links.map(link => link.href)"):
            parts = urlsplit(link)
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            assert link.startswith(f"{site}/"), f"{page.url} leads to {link}"
            if target not in known and len(known) < MOST_PAGES:
                known.add(target)
                ahead.append(target)
    assert {"/devices/d1", "/jobs", "/audit"} <= known
    assert seen >= SHOWN, SHOWN - seen
