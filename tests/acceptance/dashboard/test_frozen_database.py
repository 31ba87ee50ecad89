"""A database that takes connections and does not answer, for longer than the leases last: what an operator is told meanwhile."""

from __future__ import annotations

import json
from typing import Any

from playwright.async_api import Page, expect

from shardd.supervisor.status import OLD
from tests.acceptance.dashboard.looks import StartDaemon
from tests.fixtures.browser import sign_in
from tests.fixtures.postgres import Cluster
from tests.support.command import Command
from tests.support.daemon import Producer

PATIENCE = 60_000
"""Milliseconds for what takes more than a look of the page at its sources."""
LAPSED = "its leases lapsed, because the database does not answer; they are taken again when it does"


OTHER_NODE = (
    "INSERT INTO shardd.nodes (id, name, incarnation, shards, version, ttl, seen_at, host, cordoned_at, summary)"
    " VALUES (repeat('f', 32), 'other', gen_random_uuid(), 1, '1', 30, now() + interval '1 hour', 'h', now(), %s)"
)
SUMMARY = {"problems": 1, "down": [0]}
"""Of another node: its one shard has just gone to this one."""


async def test_one_node_alone_says_what_is_known_and_since_when(
    start_daemon: StartDaemon, producer: Producer, page: Page, postgres: Cluster
) -> None:
    daemon = await start_daemon(
        shards=1,
        database={"connect_timeout": "1s", "statement_timeout": "1s"},
        lease={"ttl": "4s", "renew_every": "500ms", "margin": "1s"},
    )
    producer.add_devices(1)
    producer.execute(OTHER_NODE, json.dumps(SUMMARY))
    await sign_in(page, daemon)
    tiles, shards = page.locator(".tiles"), page.get_by_role("region", name="Shards of this node")
    await expect(tiles).to_contain_text("1 of 1")
    await daemon.until(lambda status: status["queue"] is not None and len(status["nodes"]) == 2)
    other = page.get_by_role("region", name="Problems").get_by_role("listitem").filter(has_text="Node other")
    await expect(other).to_contain_text("has 1 problem; of its shards, 0 does not run")
    seen: list[dict[str, Any]] = []

    def is_told(status: dict[str, Any]) -> bool:
        seen.append(status)
        return bool(not status["ready"] and status["now"] - status["queue"]["as_of"] > OLD)

    device = await page.context.new_page()
    await device.goto(f"{page.url}devices/d1")
    with postgres.frozen():
        await device.get_by_role("button", name="Pause").click()
        await expect(device.locator("#done")).to_have_text("Waiting for the answer…")
        # It has nothing to claim or to settle: only its leases need the database.
        await daemon.until(lambda status: status["problem_kinds"]["database"] == 1)
        await daemon.until(is_told)
        assert {status["problem_kinds"]["database"] for status in seen} == {1}, "it is shown for as long as it lasts"
        (problem,) = seen[-1]["problems"]
        assert problem.startswith("database: ")
        shown = await Command(daemon.config_file)("status")
        assert shown.code == 1
        words = " ".join(shown.out.split())
        assert f"leases none: {LAPSED}" in words
        assert "ago)" in words
        assert "firewall" not in words
        await expect(shards).to_have_text(f"This node holds no shard: {LAPSED}.")
        await expect(tiles).to_contain_text("Queue counted")
        await expect(page.get_by_role("region", name="Problems").get_by_role("listitem")).to_have_count(2)
        await expect(device.locator("#failed")).to_contain_text("Nothing was changed", timeout=PATIENCE)
        await expect(device.locator("#failed")).not_to_contain_text("?.")
        await expect(device.locator("#done")).to_be_empty()
        await expect(page.locator("main")).to_contain_text(
            "ago: what has become of the others since then", timeout=PATIENCE
        )
    await expect(page.get_by_role("heading", level=1)).to_have_text("test: healthy", timeout=PATIENCE)
    await expect(tiles).not_to_contain_text("Queue counted", timeout=PATIENCE)
