"""The events of a job are found among many, in a bounded time."""

from __future__ import annotations

from typing import Any

import pytest

from shardd.queue import job_story
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin
from shardd.queue.job_story import BUDGET, JobEvents, JobStories
from tests.support.queue_rows import add_devices, connect, insert_jobs
from tests.support.statements import SteppingClock, recording

OTHERS = "INSERT INTO shardd.outbox (kind, job_id, state) SELECT 'job.sent', 1000000 + n, 'sent' FROM generate_series(1, %s) n"


@pytest.fixture
def job(dsn: str) -> int:
    """It failed, was retried, and failed again: its events are between thousands of others, of few transactions."""
    add_devices(dsn, "a")
    with connect(dsn) as connection:
        connection.execute(OTHERS, [700])
        (job,) = insert_jobs(connection, "a")
        for _ in range(2):
            connection.execute(OTHERS, [400])
            connection.execute("SELECT shardd.end_jobs(array[%s::bigint], 'failed', 'why', 'timeout')", [job])
            connection.execute(OTHERS, [300])
            connection.execute("SELECT shardd.retry_jobs(array[%s::bigint])", [job])
        connection.execute(OTHERS, [900])
    return job


async def find(database: Database, job: int) -> JobEvents:
    row = await JobAdmin(database).show(job)
    assert row is not None
    return await JobStories(database).events_of(row)


async def test_all_events_of_a_job_are_found_in_windows_that_end_within_a_transaction(
    database: Database, job: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_story, "FIRST_WINDOW", 70)
    monkeypatch.setattr(JobStories, "clock", SteppingClock(BUDGET / 1000))
    found = await find(database, job)
    assert found.whole
    assert [one.kind for one in found.events] == ["job.failed", "job.retried", "job.failed", "job.retried"]


async def test_a_search_ends_when_its_time_is_up_however_much_one_transaction_wrote(
    dsn: str, job: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_story, "FIRST_WINDOW", 70)
    monkeypatch.setattr(JobStories, "clock", SteppingClock(BUDGET))
    made = recording()
    async with made(dsn) as database:
        found = await find(database, job)
    assert (found.events, found.whole) == ([], False)
    windows: list[Any] = [one.params["events"] for one in made.asked if one.name == "position_after"]
    assert windows == [70]
