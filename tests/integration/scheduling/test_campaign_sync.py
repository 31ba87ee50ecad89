"""How the router learns of campaigns, with a real database and a running router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from shardd.queue.campaigns import Campaigns
from shardd.queue.database import Database
from shardd.queue.records import Campaign
from shardd.supervisor.scheduling.table_sync import CampaignSync
from shardd.supervisor.scheduling.work_poller import WorkPoller
from shardd.supervisor.services import Steps
from tests.integration.dispatch.test_router import Node, until
from tests.support.queue_rows import add_campaigns, add_devices, connect, insert_jobs, states, take_epoch

SELDOM = 600.0  # seconds; what a test waits for must come of itself before


@pytest.fixture
async def node(dsn: str, database: Database) -> AsyncIterator[Node]:
    add_devices(dsn, "a", "b")
    node = Node(database)
    await node.begin(await take_epoch(database))
    yield node
    await node.end()


@asynccontextmanager
async def watched(node: Node) -> AsyncIterator[CampaignSync]:
    """Somebody looks for work when campaigns run that did not, and hardly ever otherwise."""
    steps = Steps()
    scheduler, wake = node.scheduler, node.router.wake
    work = WorkPoller(node.jobs, scheduler, steps, found=wake, poll_every=lambda: SELDOM, scan_every=lambda: SELDOM)
    task = asyncio.create_task(work.run())
    try:
        yield CampaignSync(
            Campaigns(node.database),
            scheduler,
            steps.add("reading the campaigns"),
            changed=wake,
            resumed=work.scan,
        )
    finally:
        await work.stop()
        await task


def set_state(dsn: str, campaign: str, state: str) -> None:
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.campaigns SET state = %s WHERE id = %s", [state, campaign])


async def test_what_was_paused_behind_the_routers_back_goes_on_when_it_is_resumed(dsn: str, node: Node) -> None:
    add_campaigns(dsn, "spring")
    async with watched(node) as watch:
        await watch.sync()
        insert_jobs(dsn, "a", 3, campaign="spring")
        set_state(dsn, "spring", "paused")
        await node.find_work()
        # The claim finds nothing, because the campaign is paused: the router thinks that there is no work left.
        await until(lambda: not node.scheduler.queues["a"].has_work)
        await watch.sync()
        set_state(dsn, "spring", "running")
        await watch.sync()
        await node.workers.until(lambda: len(node.workers.got) == 3)
        await node.settled()
    assert set(states(dsn).values()) == {"sent"}


async def test_a_cap_is_known_with_what_was_sent_before(dsn: str, node: Node) -> None:
    add_campaigns(dsn, "spring", device_cap=3)
    today = datetime.now(UTC).date()
    with connect(dsn) as connection:
        connection.execute("INSERT INTO shardd.campaign_days VALUES ('spring', 'a', %s, 2)", [today])
    insert_jobs(dsn, "a", 5, campaign="spring")
    insert_jobs(dsn, "b", 5, campaign="spring")
    async with watched(node) as watch:
        await watch.sync()
        assert node.scheduler.campaigns == {"spring": Campaign(1.0, 3)}
        await node.workers.until(lambda: len(node.workers.settled) == 4)
        await node.find_work()
        await node.settled()
    assert sorted(job.device_id for job in node.workers.got) == ["a", "b", "b", "b"]
    with connect(dsn) as connection:
        rows = connection.execute("SELECT device_id, sent FROM shardd.campaign_days ORDER BY 1").fetchall()
    assert rows == [("a", 3), ("b", 3)]


async def test_what_is_in_hand_while_its_campaign_is_paused_is_counted(dsn: str, node: Node) -> None:
    add_campaigns(dsn, "spring", device_cap=1)
    node.workers.answer = lambda _: None
    async with watched(node) as watch:
        await watch.sync()
        insert_jobs(dsn, "a", 2, campaign="spring")
        await node.find_work()
        await node.workers.until(lambda: node.workers.held)
        set_state(dsn, "spring", "paused")
        await watch.sync()
        node.workers.end_held()
        await node.settled()
        set_state(dsn, "spring", "running")
        await watch.sync()
        await node.find_work()
        assert node.scheduler.next_requests(9, asyncio.get_running_loop().time()) == []
    with connect(dsn) as connection:
        assert connection.execute("SELECT device_id, sent FROM shardd.campaign_days").fetchall() == [("a", 1)]
