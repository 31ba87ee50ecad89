"""What programs do with a sending token: inserts that meet others, and reading what is rare among much, a part at a time."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from shardd.queue import sending
from shardd.queue.database import Database
from shardd.queue.events import EventRow
from shardd.queue.sending import EventPage, Sending
from tests.fixtures.postgres import Cluster
from tests.fixtures.producers import Tenants
from tests.support.queue_rows import add_devices, connect, insert_jobs
from tests.support.statements import SteppingClock

WAITS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def job(key: str) -> dict[str, str | None]:
    return {"device_id": "d1", "recipient": "+4915112345678", "body": "x", "dedupe_key": key}


async def test_a_deadlock_with_another_insert_is_no_error(postgres: Cluster, dbname: str) -> None:
    dsn = postgres.dsn(dbname, "postgres")
    # Whoever waits this long first looks for a deadlock, and is the one that ends.
    mine, others = (make_conninfo(dsn, options=f"-c deadlock_timeout={time}") for time in ("2s", "1h"))
    with psycopg.connect(others) as other:
        other.execute("INSERT INTO shardd.devices (id, transport) VALUES ('d1', 'sandbox')")
        other.commit()
        insert = (
            "INSERT INTO shardd.jobs (device_id, recipient, body, dedupe_key) VALUES ('d1', '+4915112345678', 'x', %s)"
        )
        other.execute(insert, ["b"])
        async with Database(mine) as database:
            inserting = asyncio.create_task(Sending(database, None).insert([job("a"), job("b"), job("c")]))
            with psycopg.connect(others, autocommit=True) as watching:
                while not watching.execute(WAITS).fetchone():  # noqa: ASYNC110  # another session's state
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(other.execute, insert, ["a"])
            other.commit()
            assert [one.duplicate for one in await inserting] == [True, True, False]


END = "SELECT shardd.end_jobs(%s::bigint[], %s, 'because', 'cancelled')"


async def read_to_the_end(programs: Sending, after: str | None, most: int, kinds: list[str]) -> list[EventPage]:
    """All answers; the last one is finished."""
    pages: list[EventPage] = []
    while not pages or pages[-1].unfinished:
        pages.append(await programs.events(pages[-1].position if pages else after, most, kinds))
    return pages


def jobs_of(pages: list[EventPage]) -> list[int | None]:
    told: list[EventRow] = [event for page in pages for event in page.events]
    return [event.job_id for event in told]


async def test_a_rare_kind_is_looked_for_a_part_at_a_time_and_none_is_missed(
    database: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "AMONG", 4)
    add_devices(dsn, "a")
    ids, programs = insert_jobs(dsn, "a", 20), Sending(database, None)
    with connect(dsn) as owner, connect(dsn) as late:
        for number in ids[:15]:
            owner.execute(END, [[number], "failed" if number == ids[9] else "cancelled"])
        rare = await read_to_the_end(programs, None, 100, ["job.failed"])
        assert jobs_of(rare) == [ids[9]]
        assert len(rare) > 3
        assert jobs_of(await read_to_the_end(programs, None, 1, ["job.cancelled"])) == [*ids[:9], *ids[10:15]]
        # What is written by a transaction that began earlier comes later, and before what follows.
        with late.transaction():
            late.execute(END, [[ids[15]], "failed"])
            for number in ids[16:]:
                owner.execute(END, [[number], "failed" if number == ids[19] else "cancelled"])
            waiting = await read_to_the_end(programs, rare[-1].position, 100, ["job.failed"])
            assert jobs_of(waiting) == []
        assert jobs_of(await read_to_the_end(programs, waiting[-1].position, 100, ["job.failed"])) == [ids[15], ids[19]]


async def test_a_role_with_few_jobs_finds_them_a_window_at_a_time(
    tenants: Tenants, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "FIRST_WINDOW", 2)
    monkeypatch.setattr(Sending, "clock", SteppingClock(sending.BUDGET))
    role = tenants.role("alpha")
    tenants.bind(role, "a1")
    with tenants.cluster.superuser() as superuser:
        superuser.execute(f"GRANT {role} TO shardd".encode())
    mine = insert_jobs(tenants.dsn, "a1", 2)
    insert_jobs(tenants.dsn, "b1", 5)
    mine += insert_jobs(tenants.dsn, "a1", 1)
    insert_jobs(tenants.dsn, "b1", 3)
    found, pages = list[int](), 0
    page = await Sending(database, role).newest(10)
    while True:
        found += [one.id for one in page.jobs]
        pages += 1
        if page.older is None:
            break
        assert page.unfinished
        page = await Sending(database, role).newest(10, page.older)
    assert found == mine[::-1]
    assert pages > 3
    full = await Sending(database, None).newest(1)
    assert (full.older, full.unfinished) == (full.jobs[0].id, False)
