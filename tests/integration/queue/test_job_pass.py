"""A pass through all live jobs in pages: each job is found once, whatever becomes of others meanwhile."""

from __future__ import annotations

from uuid import uuid4

import pytest

from shardd.errors import DatabaseError
from shardd.queue.database import Database
from shardd.queue.job_pass import JobPass
from shardd.queue.jobs import Counts, Jobs
from tests.support.queue_rows import (
    add_campaigns,
    add_devices,
    claim,
    connect,
    finish,
    insert_jobs,
    release,
    take_epoch,
)

RUN = uuid4()
"""The supervisor that has the lease."""


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobPass, "size", 2)


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
async def epoch(dsn: str, database: Database) -> int:
    add_devices(dsn, "a", "b")
    return await take_epoch(database, incarnation=RUN)


async def test_each_page_goes_on_behind_the_one_before(dsn: str, jobs: Jobs, epoch: int) -> None:
    ids = insert_jobs(dsn, "a", 5)
    await claim(jobs, epoch, "a", room=5)
    claims = jobs.claims_of_incarnation(RUN)
    for _ in range(2):
        pages = []
        while (page := await claims.page()) is not None:
            pages.append([one.id for one in page])
            claims.advance()
        assert pages == [ids[:2], ids[2:4], ids[4:]]


async def test_a_job_that_changes_between_pages_is_found_once(
    dsn: str, database: Database, jobs: Jobs, epoch: int
) -> None:
    """By this pass while its page is ahead, else by the next one."""
    first, second, third, fourth, fifth, sixth = ids = insert_jobs(dsn, "a", 6)
    held = {one.id: one for one in await claim(jobs, epoch, "a", room=5)}
    claims = jobs.claims_of_incarnation(RUN)
    page = await claims.page()
    assert page == [held[first], held[second]]
    claims.advance()
    # Ahead of the pass: one ends, and one is claimed. Behind it: one ends, and one is claimed a second time.
    await jobs.cycle(finish(held[third]), [])
    await jobs.cycle(finish(held[first]), [])
    await jobs.cycle(release(held[second]), [])
    again, new = await claim(jobs, epoch, "a", room=2)
    assert (again.id, again.attempt, new.id) == (second, 2, sixth)
    assert {one.id for one in await claims.rest()} == {fourth, fifth, sixth}
    assert sorted(one.id for one in await claims.rest()) == [second, fourth, fifth, sixth]
    assert ids[0] not in {one.id for one in await claims.rest()}


async def test_a_pass_goes_on_where_an_error_stopped_it(dsn: str, jobs: Jobs, epoch: int) -> None:
    ids = insert_jobs(dsn, "a", 5)
    await claim(jobs, epoch, "a", room=5)
    async with Database(dsn, statement_timeout=0.2) as impatient:
        claims = Jobs(impatient).claims_of_incarnation(RUN)
        await claims.page()
        claims.advance()
        with connect(dsn) as connection, connection.transaction():
            connection.execute("LOCK shardd.jobs")
            with pytest.raises(DatabaseError):
                await claims.rest()
        assert [one.id for one in await claims.rest()] == ids[2:]
        assert [one.id for one in await claims.rest()] == ids


async def test_the_counts_of_pages_are_added_up(dsn: str, database: Database, jobs: Jobs, epoch: int) -> None:
    add_campaigns(dsn, "spring")
    insert_jobs(dsn, "a", 3)
    insert_jobs(dsn, "b", 2, campaign="spring")
    insert_jobs(dsn, "b", 2, run_at="2090-01-01 00:00:00+00")
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.campaigns SET state = 'paused'")
        connection.execute("UPDATE shardd.devices SET state_since = '2020-01-01'")
        connection.execute(
            "UPDATE shardd.jobs SET created_at = now() - interval '2 hours', run_at = now() - interval '2 hours' "
            "WHERE device_id = 'a'"
        )
    await claim(jobs, epoch, "a")
    depth = await Counts(database).depth()
    # Of the first page: those of the others are of a paused campaign, or not due.
    assert depth.pop("oldest_due_age") == pytest.approx(7200, abs=60)
    assert depth == {
        "queued": 4,
        "scheduled": 2,
        "sending": 1,
        "paused_jobs": 2,
        "waits": {"its turn": 2, "its campaign: paused": 2},
    }
