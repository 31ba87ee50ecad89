"""What acts would find is counted as long as somebody waits for it."""

from __future__ import annotations

import asyncio

import pytest

from shardd.dashboard.looks import MOST, UNWATCHED, Looks
from shardd.errors import DatabaseError
from shardd.queue import job_admin
from shardd.queue.bulk_actions import CANCEL
from shardd.queue.database import Database
from shardd.queue.job_admin import Traits
from tests.support.queue_rows import add_devices, insert_jobs

OF_A = Traits(device_ids=["a"])
PATIENCE = 60.0


@pytest.fixture
def jobs(dsn: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many jobs of a, which are counted in many statements."""
    monkeypatch.setattr(job_admin, "FIRST_WINDOW", 1)
    monkeypatch.setattr(job_admin, "STEP", 0.0)
    add_devices(dsn, "a", "b")
    insert_jobs(dsn, "b", 10)
    return len(insert_jobs(dsn, "a", 20))


async def test_a_count_is_awaited_and_says_how_far_it_is(database: Database, jobs: int) -> None:
    looks = Looks(database)
    begun = looks.begin(CANCEL, OF_A)
    assert await begun.wait(0.0) is None
    seen = await begun.wait(PATIENCE)
    assert seen is not None
    assert sum(some.jobs for some in seen.good) == begun.jobs == jobs
    assert looks.of(begun.key) is begun


async def test_a_count_that_nobody_waits_for_ends(database: Database, jobs: int) -> None:
    now = 0.0
    looks = Looks(database, lambda: now)
    begun = looks.begin(CANCEL, OF_A)
    now = UNWATCHED + 1
    while looks.of(begun.key) is not None:  # noqa: ASYNC110  # its task ends
        await asyncio.sleep(0)
    assert begun.seen is None
    assert begun.jobs < jobs


async def test_no_more_are_kept_than_there_is_room_for(database: Database, jobs: int) -> None:
    looks = Looks(database)
    first, *_, last = [looks.begin(CANCEL, OF_A) for _ in range(MOST + 1)]
    assert looks.of(first.key) is None
    assert await last.wait(PATIENCE) is not None


async def test_whoever_waits_learns_why_nothing_is_counted(dsn: str, jobs: int) -> None:
    async with Database(dsn) as database:
        pass
    with pytest.raises(DatabaseError):
        await Looks(database).begin(CANCEL, OF_A).wait(PATIENCE)
