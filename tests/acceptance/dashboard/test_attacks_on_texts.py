"""Texts that others choose, on every page: shown letter by letter, and none of them is ever markup, a link or a script."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import psycopg
from playwright.async_api import Page

from tests.fixtures.browser import sign_in
from tests.support.daemon import Daemon, Producer

EVIL: Final = (
    "<img src=x onerror=document.title='ran'>{{{{7*7}}}}\"'><script>document.title='ran'</script>javascript:1 {0}"
)
TEXTS: Final = {
    "devices": ("label", "paused_why", "reason"),
    "device_groups": ("label",),
    "campaigns": ("label", "why"),
    "jobs": ("body", "recipient", "reference", "error", "order_group", "file_name"),
    "archive": ("body", "recipient", "reference", "error", "message_id", "unreadable_why", "file_name"),
    "messages": ("body", "sender_name"),
    "nodes": ("name", "host"),
    "webhook_failures": ("error",),
    "acts": ("who", "target", "detail", "result", "node"),
}
"""Columns by table that programs, devices, persons or other hosts fill."""
SHOWN: Final = (
    *("devices.label", "devices.reason", "jobs.body", "archive.body", "archive.recipient"),
    *("archive.error", "acts.who", "acts.target", "acts.detail", "acts.result", "acts.node"),
)
"""Of these, the ones that a page must show."""
MOST_PAGES: Final = 200


def plant(producer: Producer) -> set[str]:
    """Put the text into every column; returns the columns that the database let have it, in rows that there are."""
    planted = set()
    existing = {
        f"{table}.{column}"
        for table, column in producer.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'shardd' AND data_type = 'text'"
        )
    }
    for table, columns in TEXTS.items():
        for column in columns:
            name = f"{table}.{column}"
            # What a check of the database refuses, nobody can write.
            with suppress(psycopg.errors.IntegrityError):
                if name in existing and producer.execute(
                    f"UPDATE shardd.{table} SET {column} = %s RETURNING 1", EVIL.format(name)
                ):
                    planted.add(name)
    return planted


async def test_no_text_of_others_becomes_markup(daemon: Daemon, producer: Producer, page: Page) -> None:
    producer.add_devices(2)
    producer.execute("INSERT INTO shardd.device_groups (id) VALUES ('g')")
    producer.execute("INSERT INTO shardd.device_group_members VALUES ('g', 'd1'), ('g', 'd2')")
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('c')")
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign, reference, metadata) "
        "VALUES ('d1', '+491511000000', 'x', 'c', 'r', %s)",
        '{"' + EVIL.format("key").replace('"', '\\"') + '": "' + EVIL.format("metadata").replace('"', '\\"') + '"}',
    )
    await producer.until_finished(daemon, 1)
    producer.execute("UPDATE shardd.devices SET paused_at = now() WHERE id = 'd2'")
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign, run_at) "
        "VALUES ('d2', '+491511000001', 'x', 'c', now() + interval '1 day')"
    )
    producer.execute("INSERT INTO shardd.opt_outs (recipient, note) VALUES ('+491511000002', %s)", EVIL.format("note"))
    site = await sign_in(page, daemon)
    planted = plant(producer) | {"note", "metadata", "key"}
    assert planted >= {*SHOWN}
    producer.execute(
        "UPDATE shardd.devices SET reason = NULL WHERE id = 'd2'"
    )  # it would be shown instead of the pause's
    seen: set[str] = set()
    ahead, known = deque(["/"]), {"/"}
    while ahead:
        await page.goto(f"{site}{ahead.popleft()}", wait_until="load")
        text = await page.locator("body").inner_text()
        assert await page.title() != "ran", page.url
        assert await page.locator("img[onerror], script:not([src]), a[href^='javascript:' i]").count() == 0, page.url
        assert "49\"'>" not in text, page.url
        seen |= {name for name in planted if EVIL.format(name) in text}
        for link in await page.locator("a[href]").evaluate_all("links => links.map(link => link.href)"):
            parts = urlsplit(link)
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            assert link.startswith(f"{site}/"), f"{page.url} leads to {link}"
            if target not in known and len(known) < MOST_PAGES:
                known.add(target)
                ahead.append(target)
    assert {"/devices/d1", "/jobs", "/audit"} <= known
    assert {*SHOWN} <= seen, {*SHOWN} - seen
