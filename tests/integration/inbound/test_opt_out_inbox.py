"""The way of opt-outs to the list, and the final check of numbers that the database cannot resolve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from shardd.config import Config, parse_config
from shardd.errors import DatabaseError
from shardd.ipc import JobSpec, OptedOut
from shardd.queue.database import Database
from shardd.queue.opt_outs import OptOuts
from shardd.queue.records import ClaimedJob
from shardd.queue.settle import Claim
from shardd.supervisor.inbound.opt_out_spool import OptOutSpool
from shardd.supervisor.inbound.opt_outs import MOST_OF_ONE, OptOutCheck, OptOutInbox
from shardd.supervisor.pools import OPT_OUT_LOCK_TIMEOUT
from tests.support.queue_rows import add_devices, connect, insert_jobs

TO = "+6281234567890"


def config(**opt_outs: str) -> Config:
    lines = "".join(f"  {name}: {value}\n" for name, value in opt_outs.items())
    return parse_config(
        f"opt_outs:\n{lines or '  {}'}\ntransports: {{whatsapp: {{default_region: ID}}}}", "x.yaml", {"HOME": "/home/x"}
    )


@pytest.fixture
def inbox_of(tmp_path: Path) -> Callable[..., OptOutInbox]:
    """Makes the inbox of a node; the next one is the node after its end."""

    def make(database: Database, **opt_outs: str) -> OptOutInbox:
        return OptOutInbox(OptOuts(database), config(**opt_outs), OptOutSpool(tmp_path))

    return make


def rows(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with connect(dsn) as connection:
        return connection.execute(statement).fetchall()


async def test_the_configs_settings_are_stored(
    dsn: str, database: Database, inbox_of: Callable[..., OptOutInbox]
) -> None:
    inbox = inbox_of(database, exempt="service, reply")
    await inbox.configure_database()
    settings = "SELECT name, value FROM shardd.settings ORDER BY name"
    assert rows(dsn, settings) == [("opt_outs.country_codes", ["62"]), ("opt_outs.exempt", ["service", "reply"])]
    inbox.configure(config())
    running = asyncio.create_task(inbox.run())
    async with asyncio.timeout(20):
        while rows(dsn, settings)[1] != ("opt_outs.exempt", []):  # noqa: ASYNC110 - rows tell nobody
            await asyncio.sleep(0.02)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_text_from_a_platform_is_an_opt_out_only_with_a_word(
    dsn: str, database: Database, inbox_of: Callable[..., OptOutInbox]
) -> None:
    add_devices(dsn, "d1")
    inbox = inbox_of(database, words="halt", confirm="Bye.")
    for number, text in (("6281100001", "Halt!"), ("6281100002", "stop"), ("6281100003", "don't halt")):
        inbox.incoming("d1", number, text)
    assert await inbox.flush()
    assert rows(dsn, "SELECT address, words, source FROM shardd.opt_outs") == [("6281100001", "Halt!", "message")]
    assert rows(dsn, "SELECT recipient, body, confirms FROM shardd.jobs") == [("+6281100001", "Bye.", True)]


async def test_one_that_the_database_refuses_blocks_no_other(
    dsn: str, database: Database, inbox_of: Callable[..., OptOutInbox]
) -> None:
    inbox = inbox_of(database)
    inbox.add(OptedOut("d1", ("nobody",), "stop", 5.0))
    inbox.add(OptedOut("d1", (TO,), "stop", 5.0))
    assert await inbox.flush()
    assert rows(dsn, "SELECT address FROM shardd.opt_outs") == [("6281234567890",)]


@pytest.fixture
async def impatient(dsn: str) -> AsyncIterator[Database]:
    """A database as the inbox of a node has it."""
    async with Database(dsn, statement_timeout=20.0, max_size=2, lock_timeout=OPT_OUT_LOCK_TIMEOUT) as database:
        yield database


async def test_they_wait_for_a_locked_table_and_keep_their_order(
    dsn: str, impatient: Database, inbox_of: Callable[..., OptOutInbox], tmp_path: Path
) -> None:
    inbox = inbox_of(impatient)
    await inbox.configure_database()
    inbox.add(OptedOut("d1", (TO,), "stop", 5.0))
    inbox.add(OptedOut("d1", (TO,), "stop now", 6.0))
    with psycopg.connect(dsn) as nobody_can_write:
        nobody_can_write.execute("LOCK TABLE shardd.opt_outs IN EXCLUSIVE MODE")
        assert not await inbox.flush()
    # The node dies, and comes back.
    inbox = inbox_of(impatient)
    inbox.add(OptedOut("d1", ("+6281100001",), "stop", 7.0))
    assert await inbox.flush()
    assert OptOutSpool(tmp_path).load() == []
    assert rows(dsn, "SELECT words FROM shardd.opt_out_log ORDER BY id") == [("stop",), ("stop now",), ("stop",)]


async def test_one_that_a_transaction_blocks_is_kept_and_blocks_no_other(
    dsn: str, producer_dsn: str, impatient: Database, inbox_of: Callable[..., OptOutInbox], tmp_path: Path
) -> None:
    inbox = inbox_of(impatient)
    with psycopg.connect(producer_dsn) as producer:
        producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s), ('+6281100009')", [TO])
        for number, recipient in enumerate([TO, "+6281100001", "+6281100009", "+6281100002"]):
            inbox.add(OptedOut("d1", (recipient,), "stop", float(number)))
        assert not await inbox.flush()
        stored = "SELECT address FROM shardd.opt_outs ORDER BY address"
        assert rows(dsn, stored) == [("6281100001",), ("6281100002",)]
        # What is heard later is not behind those that are blocked, and the node's death loses none of them.
        inbox.add(OptedOut("d1", ("+6281100003",), "stop", 9.0))
        assert not await inbox.flush()
        assert ("6281100003",) in rows(dsn, stored)
        inbox = inbox_of(impatient)
        assert not await inbox.flush()
        assert all(map(inbox.contains, ["6281234567890", "6281100009", "6281100001"]))
        assert {one.recipients[0] for one in OptOutSpool(tmp_path).load()} >= {TO, "+6281100009"}
        producer.rollback()
    assert await inbox.flush()
    assert len(rows(dsn, stored)) == 5
    assert OptOutSpool(tmp_path).load() == []


async def test_a_blocked_confirmation_does_not_block_its_opt_out(
    dsn: str, producer_dsn: str, impatient: Database, inbox_of: Callable[..., OptOutInbox]
) -> None:
    add_devices(dsn, "d1")
    inbox = inbox_of(impatient, confirm="Bye.")
    with psycopg.connect(producer_dsn) as producer:
        producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body, dedupe_key) "
            "VALUES ('d1', '+6281100009', 'hello', 'opt-out:6281234567890')"
        )
        inbox.add(OptedOut("d1", (TO,), "stop", 5.0))
        assert not await inbox.flush()
        assert await inbox.flush()
    assert rows(dsn, "SELECT address FROM shardd.opt_outs") == [("6281234567890",)]


async def test_repetitions_take_no_room(
    producer_dsn: str, impatient: Database, inbox_of: Callable[..., OptOutInbox], tmp_path: Path
) -> None:
    inbox = inbox_of(impatient)
    with psycopg.connect(producer_dsn) as producer:
        producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s)", [TO])
        for number in range(50):
            inbox.add(OptedOut("d1", (TO,), "stop", float(number)))
        assert len(OptOutSpool(tmp_path).load()) == MOST_OF_ONE


def taken(job: int, recipient: str, address: str) -> ClaimedJob:
    claim = Claim(job, 1, 1, 9, "d1", 0, 5, "hold", address=address)
    return ClaimedJob(JobSpec(job, 1, 1, 9, "d1", recipient), claim)


async def test_a_job_is_checked_by_the_number_that_its_worker_will_send_to(dsn: str, database: Database) -> None:
    add_devices(dsn, "d1")
    with connect(dsn) as connection:
        connection.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s), ('+491512345678')", [TO])
    spellings = ["0812 3456 7890", "081234567890", "0812 3456 7891", "+49 (0)151 2345678", "+49 (0)151 2345679"]
    jobs = {insert_jobs(dsn, "d1", recipient=spelling)[0]: spelling for spelling in spellings}
    states = dict(rows(dsn, "SELECT id, address FROM shardd.jobs"))
    check = OptOutCheck(OptOuts(database), lambda _: "ID")
    unwanted = await check([taken(job, spelling, states[job]) for job, spelling in jobs.items()])
    assert {jobs[job] for job in unwanted} == {"0812 3456 7890", "081234567890", "+49 (0)151 2345678"}
    abroad = OptOutCheck(OptOuts(database), lambda _: None)
    unwanted = await abroad([taken(job, spelling, states[job]) for job, spelling in jobs.items()])
    assert {jobs[job] for job in unwanted} == {"+49 (0)151 2345678"}


async def test_an_opt_out_that_is_not_stored_yet_holds_under_every_spelling_unless_the_class_is_exempt(
    database: Database, inbox_of: Callable[..., OptOutInbox]
) -> None:
    inbox = inbox_of(database)
    inbox.add(OptedOut("d1", (TO, "77@lid"), "stop", 5.0))
    check = OptOutCheck(OptOuts(database), lambda _: "ID", inbox.contains)
    jobs = [
        taken(1, TO, "6281234567890"),
        taken(2, "0812 3456 7890", "081234567890"),
        taken(3, "77@lid", "77@lid"),
        taken(4, "+6281234567891", "6281234567891"),
    ]
    exempt = taken(5, TO, "6281234567890")
    exempt = replace(exempt, spec=msgspec.structs.replace(exempt.spec, heeds_opt_outs=False))
    assert await check([*jobs, exempt]) == {1, 2, 3}
    assert await inbox.flush()
    # They may have been claimed just before it was stored.
    assert await check([*jobs, exempt]) == {1, 2, 3}


async def test_without_a_database_the_check_fails(dsn: str, database: Database) -> None:
    await database.close()
    check = OptOutCheck(OptOuts(database), lambda _: "ID")
    assert await check([taken(1, TO, "6281234567890")]) == set(), "nothing unclear, nothing asked"
    with pytest.raises(DatabaseError):
        await check([taken(1, "081234567890", "081234567890")])
