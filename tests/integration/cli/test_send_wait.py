"""How `shardd send` hears of the end of its job: by a notification at once, and without one by looking."""

from __future__ import annotations

import asyncio

import pytest

from shardd.cli.job import send
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, Traits
from tests.support.queue_rows import add_devices, connect, insert_jobs

HOUR = 3600.0


@pytest.mark.parametrize("notified", [True, False])
async def test_the_end_is_heard(database: Database, dsn: str, monkeypatch: pytest.MonkeyPatch, notified: bool) -> None:
    """`notified`: it is not looked at again for an hour; otherwise nothing announces events."""
    monkeypatch.setattr(send, "UNANNOUNCED", HOUR if notified else 0.2)
    add_devices(dsn, "d1")
    if not notified:
        with connect(dsn) as connection:
            connection.execute("INSERT INTO shardd.settings (name, value) VALUES ('events.keep', '0')")
    (number,) = insert_jobs(dsn, "d1")
    looked = asyncio.Event()
    show = JobAdmin.show

    async def noted_show(self: JobAdmin, job_id: int) -> object:
        job = await show(self, job_id)
        looked.set()
        return job

    monkeypatch.setattr(JobAdmin, "show", noted_show)
    waiting = asyncio.create_task(send._wait_for_end(database, number, HOUR))
    async with asyncio.timeout(60):
        await looked.wait()
        assert await JobAdmin(database).cancel_all(Traits(device_ids=["d1"]), "test") == 1
        await waiting
