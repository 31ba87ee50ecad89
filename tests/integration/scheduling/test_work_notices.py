"""Notices of jobs between nodes, with a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from shardd.errors import DatabaseError
from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from shardd.queue.records import WorkHint
from shardd.supervisor.scheduling.work_notices import WorkNotices
from shardd.supervisor.services import Steps
from tests.integration.dispatch.test_router import Node
from tests.support.queue_rows import add_devices, insert_jobs, take_epoch

HANG = 30.0  # seconds; no test waits that long, it only keeps a broken one from hanging


@pytest.fixture
async def node(dsn: str, database: Database) -> AsyncIterator[Node]:
    add_devices(dsn, "a", "b")
    node = Node(database)
    await node.begin(await take_epoch(database))
    yield node
    await node.end()


class Jammed(Jobs):
    """The lanes of one device cannot be read."""

    async def find_lanes(self, device_id: str, after_lane: str, most: int) -> list[WorkHint]:
        if device_id == "a":
            raise DatabaseError("jammed")
        return await super().find_lanes(device_id, after_lane, most)


async def test_a_device_whose_lanes_cannot_be_read_keeps_no_other_from_being_read(
    dsn: str, database: Database, node: Node
) -> None:
    insert_jobs(dsn, "a")
    insert_jobs(dsn, "b")
    found: asyncio.Queue[str] = asyncio.Queue()

    def note(hints: list[WorkHint]) -> None:
        for device_id, _, _ in hints:
            found.put_nowait(device_id)

    notices = WorkNotices(
        Jammed(database), node.scheduler, Steps(), found=note, grouped=lambda: None, alone=lambda: True
    )
    task = asyncio.create_task(notices.run())
    notices.heard("a")
    notices.heard("b")
    async with asyncio.timeout(HANG):
        assert await found.get() == "b"
    await notices.stop()
    await task


class Overheard(Jobs):
    """With what was announced."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def announce_work(self, device_ids: Sequence[str]) -> None:
        for device_id in device_ids:
            self.told.put_nowait(device_id)


async def test_a_node_tells_others_only_while_there_are_any(database: Database, node: Node) -> None:
    others: list[str] = []
    jobs = Overheard(database)
    notices = WorkNotices(
        jobs, node.scheduler, Steps(), found=lambda _: None, grouped=lambda: None, alone=lambda: not others
    )
    task = asyncio.create_task(notices.run())
    notices.advanced([("before", "/marketing", (0, 1))])
    others.append("node-b")
    notices.advanced([("elsewhere", "/marketing", (0, 2))])
    async with asyncio.timeout(HANG):
        assert await jobs.told.get() == "elsewhere"
    await notices.stop()
    await task
