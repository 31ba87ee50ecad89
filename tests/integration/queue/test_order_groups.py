"""Order groups in the database: at most one job of each is in a lane, whoever inserts, retries or moves jobs meanwhile."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.queue.jobs import Jobs
from shardd.states import JobState
from tests.support.queue_rows import add_devices, claim, connect, finish, insert_jobs, row_of, run_blocked, take_epoch

HANG = 30.0  # seconds; no test waits that long, it only keeps a broken one from hanging


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
async def epoch(dsn: str, database: Database) -> int:
    add_devices(dsn, "a", "b")
    return await take_epoch(database)


def held(dsn: str) -> dict[int, bool]:
    with connect(dsn) as connection:
        return dict(connection.execute("SELECT id, held FROM shardd.jobs ORDER BY id").fetchall())


async def retry(database: Database, *ids: int) -> list[int]:
    return [one.id async for chunk in JobAdmin(database).retry(Traits(), ids) for one in chunk if one.done]


async def test_only_the_first_stands_in_line(dsn: str, epoch: int) -> None:
    first, second, third = insert_jobs(dsn, "a", 3, order_group="g")
    (elsewhere,) = insert_jobs(dsn, "b", order_group="g")
    (other,) = insert_jobs(dsn, "a", order_group="h")
    (free,) = insert_jobs(dsn, "a")
    assert held(dsn) == {first: False, second: True, third: True, elsewhere: True, other: False, free: False}
    assert (row_of(dsn, second)["state"], row_of(dsn, second)["waits_for"]) == (
        "scheduled",
        "the job before it in its order group",
    )


async def test_a_held_job_of_the_future_waits_for_both(dsn: str, jobs: Jobs, epoch: int) -> None:
    (first,) = insert_jobs(dsn, "a", order_group="g")
    later = datetime.now(UTC) + timedelta(hours=1)
    (second,) = insert_jobs(dsn, "a", order_group="g", run_at=later)
    (its_claim,) = await claim(jobs, epoch, "a")
    assert its_claim.id == first
    await jobs.cycle(finish(its_claim), [])
    assert held(dsn) == {second: False}
    assert (row_of(dsn, second)["waits_for"], row_of(dsn, second)["due_at"]) == ("its time", later)
    assert await claim(jobs, epoch, "a") == []


async def test_the_next_joins_only_after_the_one_before_was_sent(dsn: str, jobs: Jobs, epoch: int) -> None:
    first, second = insert_jobs(dsn, "a", 2, order_group="g")
    (its_claim,) = await claim(jobs, epoch, "a")
    assert (its_claim.id, await claim(jobs, epoch, "a")) == (first, [])
    await jobs.cycle(finish(its_claim), [])
    (its_claim,) = await claim(jobs, epoch, "a")
    assert its_claim.id == second


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.IN_DOUBT, JobState.EXPIRED])
async def test_what_was_not_sent_holds_the_rest_back(dsn: str, jobs: Jobs, epoch: int, state: JobState) -> None:
    first, second = insert_jobs(dsn, "a", 2, order_group="g")
    (its_claim,) = await claim(jobs, epoch, "a")
    await jobs.cycle(finish(its_claim, state), [])
    (third,) = insert_jobs(dsn, "a", order_group="g")
    assert held(dsn) == {second: True, third: True}
    assert await claim(jobs, epoch, "a") == []
    assert row_of(dsn, first)["state"] == state


async def test_a_retried_job_takes_its_place_again(dsn: str, database: Database, jobs: Jobs, epoch: int) -> None:
    first, second = insert_jobs(dsn, "a", 2, order_group="g")
    (its_claim,) = await claim(jobs, epoch, "a")
    await jobs.cycle(finish(its_claim, JobState.FAILED), [])
    assert await retry(database, first) == [first]
    assert held(dsn) == {first: False, second: True}
    order = []
    while claims := await claim(jobs, epoch, "a"):
        order.append(claims[0].id)
        await jobs.cycle(finish(claims[0]), [])
    assert order == [first, second]


async def test_many_retried_at_once_keep_their_order(dsn: str, database: Database, epoch: int) -> None:
    ids = insert_jobs(dsn, "a", 4, order_group="g")
    with connect(dsn) as connection:
        connection.execute("SELECT shardd.end_jobs(%s, 'cancelled', NULL, 'cancelled')", [ids])
    assert await retry(database, *reversed(ids)) == ids
    assert held(dsn) == dict(zip(ids, (False, True, True, True), strict=True))


async def test_one_that_is_retried_late_waits_for_those_in_line(dsn: str, database: Database, epoch: int) -> None:
    """The group went on without it, as its producer's new order: at most one stands in line all the same."""
    first, second = insert_jobs(dsn, "a", 2, order_group="g")
    with connect(dsn) as connection:
        connection.execute("SELECT shardd.end_jobs(ARRAY[%s::bigint], 'cancelled', NULL, 'cancelled')", [first])
        connection.execute("UPDATE shardd.jobs SET held = false, scheduled = false WHERE id = %s", [second])
    assert await retry(database, first) == [first]
    assert held(dsn) == {first: True, second: False}


@pytest.mark.parametrize("first_commits", [True, False])
async def test_two_transactions_see_each_other(dsn: str, producer_dsn: str, epoch: int, first_commits: bool) -> None:
    def add(connection: psycopg.Connection[Any]) -> None:
        connection.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body, order_group) VALUES ('a', '+628123456', 'x', 'g')"
        )

    with psycopg.connect(producer_dsn) as first, psycopg.connect(producer_dsn) as second:
        add(first)
        # Only at the end of the first is known which of them comes first.
        run_blocked(dsn, first, second, lambda: add(second), commits=first_commits)
    assert list(held(dsn).values()) == ([False, True] if first_commits else [False])


async def test_moved_to_another_device_it_stays_held(dsn: str, database: Database, epoch: int) -> None:
    first, second = insert_jobs(dsn, "a", 2, order_group="g")
    assert await JobAdmin(database).move(old="a", new="b") == 2
    assert held(dsn) == {first: False, second: True}
    assert row_of(dsn, second)["device_id"] == "b"


def test_a_transaction_may_add_to_any_number_of_groups(dsn: str, producer_dsn: str) -> None:
    """One lock for each, which the server's table of locks had no room for."""
    add_devices(dsn, "a")
    with psycopg.connect(producer_dsn) as producer:
        cursor = producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body, order_group) "
            "SELECT 'a', '+628123456', 'x', 'g' || n FROM generate_series(1, 20000) n"
        )
        assert cursor.rowcount == 20_000


@pytest.mark.parametrize("committed", [True, False])
def test_of_two_that_wait_for_each_other_one_is_told_so_and_nothing_is_lost(
    dsn: str, producer_dsn: str, committed: bool
) -> None:
    add_devices(dsn, "a")
    insert = "INSERT INTO shardd.jobs (device_id, recipient, body, order_group) VALUES ('a', '+628123456', %s, %s)"
    if committed:  # the groups are known already
        with psycopg.connect(producer_dsn) as producer:
            producer.cursor().executemany(insert, [("old", "g"), ("old", "h")])
    deadlocks: list[str] = []

    def add(connection: psycopg.Connection[Any], who: str, group: str) -> None:
        try:
            connection.execute(insert, [who, group])
            connection.commit()
        except psycopg.errors.DeadlockDetected:
            connection.rollback()
            deadlocks.append(who)

    with psycopg.connect(producer_dsn) as first, psycopg.connect(producer_dsn) as second:
        first.execute(insert, ["first", "g"])
        second.execute(insert, ["second", "h"])
        waiter = threading.Thread(target=add, args=(first, "first", "h"))
        waiter.start()
        add(second, "second", "g")
        waiter.join(HANG)
    (victim,) = deadlocks
    winner = "second" if victim == "first" else "first"
    with connect(dsn) as connection:
        rows = connection.execute(
            "SELECT body, order_group FROM shardd.jobs WHERE body <> 'old' ORDER BY id"
        ).fetchall()
    assert sorted(rows) == [(winner, "g"), (winner, "h")]
    # The victim tries again, as its producer would.
    with psycopg.connect(producer_dsn) as again:
        again.cursor().executemany(insert, [(victim, "g"), (victim, "h")])
    assert len(held(dsn)) == (6 if committed else 4)
    assert sum(not waits for waits in held(dsn).values()) == 2
