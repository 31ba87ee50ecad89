"""Opt-outs on their way to the list, and the last look at numbers that the database cannot tell for sure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shardd.config import Config, parse_config
from shardd.errors import DatabaseError
from shardd.ipc import JobSpec, OptedOut
from shardd.queue.cycle import ClaimedJob
from shardd.queue.database import Database
from shardd.queue.opt_outs import OptOuts
from shardd.queue.settle import Claim
from shardd.supervisor.inbound.opt_out_spool import OptOutSpool
from shardd.supervisor.inbound.opt_outs import OptOutCheck, OptOutInbox, needs_parsing
from tests.queue_rows import add_devices, connect, insert_jobs

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


async def test_what_the_config_says_is_known_to_the_database(
    dsn: str, database: Database, inbox_of: Callable[..., OptOutInbox]
) -> None:
    inbox = inbox_of(database, exempt="service, reply")
    await inbox.tell()
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


async def test_one_that_the_database_refuses_keeps_no_other_back(
    dsn: str, database: Database, inbox_of: Callable[..., OptOutInbox]
) -> None:
    inbox = inbox_of(database)
    inbox.add(OptedOut("d1", ["nobody"], "stop", 5.0))
    inbox.add(OptedOut("d1", [TO], "stop", 5.0))
    assert await inbox.flush()
    assert rows(dsn, "SELECT address FROM shardd.opt_outs") == [("6281234567890",)]


async def test_they_wait_for_a_database_that_is_away_and_keep_their_order(
    dsn: str, database: Database, inbox_of: Callable[..., OptOutInbox], tmp_path: Path
) -> None:
    inbox = inbox_of(database)
    await inbox.tell()
    inbox.add(OptedOut("d1", [TO], "stop", 5.0))
    inbox.add(OptedOut("d1", [TO], "stop now", 6.0))
    database.statement_timeout = 0.3
    with psycopg.connect(dsn) as nobody_can_write:
        nobody_can_write.execute("LOCK TABLE shardd.opt_outs IN EXCLUSIVE MODE")
        assert not await inbox.flush()
    database.statement_timeout = 20.0
    # The node dies, and comes back.
    inbox = inbox_of(database)
    inbox.add(OptedOut("d1", ["+6281100001"], "stop", 7.0))
    assert await inbox.flush()
    assert OptOutSpool(tmp_path).load() == []
    assert rows(dsn, "SELECT words FROM shardd.opt_out_log ORDER BY id") == [("stop",), ("stop now",), ("stop",)]


def taken(job: int, recipient: str, address: str) -> ClaimedJob:
    claim = Claim(job, 1, 1, 9, "d1", 0, 5, "hold", address=address)
    return ClaimedJob(JobSpec(job, 1, 1, 9, "d1", recipient), claim)


@pytest.mark.parametrize(
    ("recipient", "region", "unclear"),
    [
        ("+6281234567890", "ID", False),
        ("+6281234567890", None, False),
        ("006281234567890", "ID", False),
        ("6281234567890", None, False),
        ("6281234567890", "ID", True),
        ("0812 3456 7890", "ID", True),
        ("+49 (0)151 2345678", None, True),
        ("0049 (0)151 2345678", None, True),
        ("(+62) 0812 3456 7890", None, True),
        ("6281234567890@s.whatsapp.net", "ID", False),
        ("12345678@lid", "ID", False),
    ],
)
def test_only_unclear_numbers_are_looked_at(recipient: str, region: str | None, unclear: bool) -> None:
    assert needs_parsing(recipient, region) is unclear


async def test_a_job_is_judged_by_the_number_that_its_worker_will_send_to(dsn: str, database: Database) -> None:
    add_devices(dsn, "d1")
    with connect(dsn) as connection:
        connection.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s), ('+491512345678')", [TO])
    spellings = ["0812 3456 7890", "081234567890", "0812 3456 7891", "+49 (0)151 2345678", "+49 (0)151 2345679"]
    jobs = {insert_jobs(dsn, "d1", recipient=spelling)[0]: spelling for spelling in spellings}
    states = dict(rows(dsn, "SELECT id, address FROM shardd.jobs"))
    screen = OptOutCheck(OptOuts(database), lambda _: "ID")
    unwanted = await screen([taken(job, spelling, states[job]) for job, spelling in jobs.items()])
    assert {jobs[job] for job in unwanted} == {"0812 3456 7890", "081234567890", "+49 (0)151 2345678"}
    abroad = OptOutCheck(OptOuts(database), lambda _: None)
    unwanted = await abroad([taken(job, spelling, states[job]) for job, spelling in jobs.items()])
    assert {jobs[job] for job in unwanted} == {"+49 (0)151 2345678"}


async def test_without_a_database_nobody_knows(dsn: str, database: Database) -> None:
    await database.close()
    screen = OptOutCheck(OptOuts(database), lambda _: "ID")
    assert await screen([taken(1, TO, "6281234567890")]) == set(), "nothing unclear, nothing asked"
    with pytest.raises(DatabaseError):
        await screen([taken(1, "081234567890", "081234567890")])
