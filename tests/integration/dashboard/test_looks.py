"""What acts would find is counted as long as somebody waits for it."""

from __future__ import annotations

import asyncio
import html
import re
from pathlib import Path

import pytest

from shardd.dashboard.looks import MOST_OF_ONE, UNWATCHED, Looks
from shardd.errors import DatabaseError
from shardd.queue import job_admin
from shardd.queue.bulk_actions import CANCEL, RETRY
from shardd.queue.database import Database
from shardd.queue.job_admin import Traits
from tests.support.dashboard_here import dashboard_here
from tests.support.queue_rows import add_devices, connect, insert_jobs
from tests.support.visitor import visitor_of

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
    begun = looks.begin("ada", CANCEL, OF_A)
    assert await begun.wait(0.0) is None
    seen = await begun.wait(PATIENCE)
    assert seen is not None
    assert sum(some.jobs for some in seen.good) == begun.jobs == jobs
    assert looks.go_on(begun.key, "ada", CANCEL, OF_A) is begun


async def test_a_count_that_nobody_waits_for_ends(database: Database, jobs: int) -> None:
    now = 0.0
    looks = Looks(database, lambda: now)
    begun = looks.begin("ada", CANCEL, OF_A)
    now = UNWATCHED + 1
    assert begun.task is not None
    await begun.task
    assert begun.seen is None
    assert begun.jobs < jobs
    assert looks.go_on(begun.key, "ada", CANCEL, OF_A) is not begun


async def test_who_begins_many_counts_loses_their_own_and_no_other_ones(database: Database, jobs: int) -> None:
    looks = Looks(database)
    hers = looks.begin("ada", CANCEL, OF_A)
    first, *_, last = [looks.begin("bob", CANCEL, Traits(reference=str(n))) for n in range(3 * MOST_OF_ONE)]
    seen = await hers.wait(PATIENCE)
    assert seen is not None
    assert sum(some.jobs for some in seen.good) == jobs
    assert looks.go_on(hers.key, "ada", CANCEL, OF_A) is hers
    assert looks.go_on(hers.key, "bob", CANCEL, OF_A) is not hers
    assert await last.wait(PATIENCE) is not None
    assert looks.go_on(first.key, "bob", CANCEL, first.traits) is not first


async def test_users_take_turns_with_one_count_at_a_time(database: Database, jobs: int) -> None:
    looks = Looks(database)
    first, second = (looks.begin("bob", CANCEL, Traits(reference=one)) for one in "xy")
    await asyncio.sleep(0)
    hers = looks.begin("ada", CANCEL, OF_A)
    await asyncio.sleep(0)
    assert (first.runs, second.runs, hers.runs) == (True, False, True)
    assert await second.wait(PATIENCE) is not None


async def test_equal_questions_of_one_user_are_one_count_until_it_ends(database: Database, jobs: int) -> None:
    looks = Looks(database)
    begun = looks.begin("ada", CANCEL, OF_A)
    assert looks.begin("ada", CANCEL, Traits(device_ids=["a"])) is begun
    assert looks.begin("ada", RETRY, OF_A) is not begun
    assert looks.begin("bob", CANCEL, OF_A) is not begun
    await begun.wait(PATIENCE)
    assert looks.begin("ada", CANCEL, OF_A) is not begun


async def test_whoever_waits_learns_why_nothing_is_counted(dsn: str, jobs: int) -> None:
    async with Database(dsn) as database:
        pass
    with pytest.raises(DatabaseError):
        await Looks(database).begin("ada", CANCEL, OF_A).wait(PATIENCE)


async def test_a_page_of_an_act_is_counted_however_many_pages_another_user_opens(
    dsn: str, jobs: int, tmp_path: Path
) -> None:
    with connect(dsn) as connection:  # as many statements as there are ids between them
        ids = [insert_jobs(connection, "b")[0], *insert_jobs(connection, "b", 100)]
        connection.execute("SELECT shardd.end_jobs(%s, 'in_doubt', 'why', 'timeout')", [[ids[0], ids[-1]]])
    async with (
        dashboard_here(dsn, tmp_path) as site,
        visitor_of(site) as bob,
        visitor_of(site) as ada,
        asyncio.timeout(PATIENCE),
        asyncio.TaskGroup() as opening,
    ):
        await bob.sign_in("bob")
        await ada.sign_in("ada")

        async def open_again(number: int) -> None:
            while True:
                assert (await bob.get(f"/doubts?device=d{number}")).status == 200

        many = [opening.create_task(open_again(number)) for number in range(40)]
        text = await (await ada.get("/jobs/all/cancel?device=a")).text()
        while (again := re.search(r'hx-get="(/jobs/all/[^"]+)" hx-trigger="load"', text)) is not None:
            text = await (await ada.get(html.unescape(again[1]))).text()
        assert f"Cancel: {jobs} jobs" in text
        for one in many:
            one.cancel()
