"""The way of opt-outs to the list, and the final check of numbers that the database cannot resolve."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from shardd import incoming_spool
from shardd.config import Config, parse_config
from shardd.errors import DatabaseError
from shardd.incoming import Incoming
from shardd.incoming_spool import OPT_OUT, IncomingSpool
from shardd.ipc import Arrived, JobSpec
from shardd.queue.database import Database
from shardd.queue.inbox import Inbox
from shardd.queue.opt_outs import OptedOut, OptOuts
from shardd.queue.records import ClaimedJob
from shardd.queue.settle import Claim
from shardd.supervisor.inbound.inbox import InboxWriter
from shardd.supervisor.inbound.media.downloads import MediaDownloads
from shardd.supervisor.inbound.opt_outs import MOST_OF_ONE, OptOutCheck, OptOutInbox
from shardd.supervisor.inbound.platform_reports import read_report
from shardd.supervisor.pools import INBOUND_LOCK_TIMEOUT
from shardd.supervisor.services import Step
from tests.support.queue_rows import add_devices, connect

TO = "+6281234567890"
NOON = 1_700_000_000.0


def config(more: str = "", **opt_outs: str) -> Config:
    lines = "".join(f"  {name}: {value}\n" for name, value in opt_outs.items())
    return parse_config(
        f"opt_outs:\n{lines or '  {}'}\ntransports: {{whatsapp: {{default_region: ID}}}}\n{more}",
        "x.yaml",
        {"HOME": "/home/x"},
    )


InboxOf = Callable[..., OptOutInbox]


@pytest.fixture
def inbox_of() -> InboxOf:
    def make(database: Database, **opt_outs: str) -> OptOutInbox:
        return OptOutInbox(OptOuts(database), config(**opt_outs))

    return make


class Node:
    """The ways of an opt-out in a supervisor; the next one with the same folder is the node after its end."""

    def __init__(self, database: Database, folder: Path, more: str = "", **opt_outs: str) -> None:
        now = config(more, **opt_outs)
        self.spool = IncomingSpool(folder)
        self.opt_outs = OptOutInbox(OptOuts(database), now)
        self.inbox = InboxWriter(
            Inbox(database),
            self.spool,
            OptOuts(database),
            opt_outs=self.opt_outs,
            media=MediaDownloads(Inbox(database), self.spool, Step("x"), config=now, device_of=lambda _: None),
            config=now,
            spool_errors=list,
            has_device=lambda _: True,
        )

    def hear(self, recipient: str, words: str = "stop", at: float = 5.0, message_id: str | None = None) -> None:
        """A worker has written it to the spool."""
        message = Incoming(
            device_id="d1",
            message_id=message_id or f"{recipient}{at}",
            addresses=(recipient,),
            text=words,
            at=at,
            opt_out=True,
        )
        self.inbox.arrived(Arrived(self.spool.keep(message)))

    async def store(self) -> bool:
        """Whether everything is stored."""
        await self.inbox.close()
        return await self.opt_outs.flush()


def from_platform(number: str, text: str) -> Incoming:
    return Incoming(device_id="d1", message_id=number, addresses=(number,), text=text, at=5.0)


def rows(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with connect(dsn) as connection:
        return connection.execute(statement).fetchall()


async def test_the_configs_settings_are_stored(dsn: str, database: Database, inbox_of: InboxOf) -> None:
    inbox = inbox_of(database, exempt="service, reply")
    await inbox.configure_database()
    settings = (
        "SELECT name, value FROM shardd.settings WHERE name IN ('default_codes', 'opt_outs.exempt') ORDER BY name"
    )
    assert rows(dsn, settings) == [("default_codes", {"whatsapp": "62"}), ("opt_outs.exempt", ["service", "reply"])]
    inbox.configure(config())
    running = asyncio.create_task(inbox.run())
    async with asyncio.timeout(20):
        while rows(dsn, settings)[1] != ("opt_outs.exempt", []):  # noqa: ASYNC110 - rows tell nobody
            await asyncio.sleep(0.02)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_text_from_a_platform_is_an_opt_out_only_with_a_word(
    dsn: str, database: Database, tmp_path: Path
) -> None:
    add_devices(dsn, "d1")
    node = Node(database, tmp_path, words="halt", confirm="Bye.")
    texts = {"+6281100001": "Halt!", "+6281100002": "stop", "+6281100003": "don't halt"}
    await node.inbox.receive([from_platform(number, text) for number, text in texts.items()])
    assert node.opt_outs.contains("6281100001", 0.0)
    assert await node.store()
    assert rows(dsn, "SELECT address, words, source FROM shardd.opt_outs") == [("6281100001", "Halt!", "message")]
    assert rows(dsn, "SELECT recipient, body, confirms FROM shardd.jobs") == [("+6281100001", "Bye.", True)]
    found = rows(dsn, "SELECT sender, opt_out FROM shardd.inbox ORDER BY id")
    assert found == [("+6281100001", True), ("+6281100002", False), ("+6281100003", False)]
    assert node.spool.names() == []


async def test_a_request_is_synchronised_beside_the_loop_and_its_opt_outs_need_no_spare_room(
    dsn: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(database, tmp_path)
    fsync, threads = os.fsync, []

    def record(fd: int) -> None:
        threads.append(threading.current_thread())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    await node.inbox.receive([from_platform(f"+628110000{number}", "hi") for number in range(5)])
    assert len(threads) == 6, "a file each, and the folder once"
    assert threading.main_thread() not in threads
    monkeypatch.setattr(incoming_spool, "SPARE", 1 << 62)
    with pytest.raises(OSError, match="No space"):  # the platform repeats them
        await node.inbox.receive([from_platform("+6281100007", "hi"), from_platform("+6281100008", "stop")])
    assert await node.store()
    assert rows(dsn, "SELECT address FROM shardd.opt_outs") == [("6281100008",)]
    assert rows(dsn, "SELECT count(*) FROM shardd.inbox") == [(6,)]


async def test_one_that_the_database_refuses_blocks_no_other(dsn: str, database: Database, inbox_of: InboxOf) -> None:
    inbox = inbox_of(database)
    inbox.add(OptedOut("d1", ("nobody",), "stop", 5.0))
    inbox.add(OptedOut("d1", (TO,), "stop", 5.0))
    assert await inbox.flush()
    assert rows(dsn, "SELECT address FROM shardd.opt_outs") == [("6281234567890",)]


@pytest.fixture
async def impatient(dsn: str) -> AsyncIterator[Database]:
    """A database as the inbox of a node has it."""
    async with Database(dsn, statement_timeout=20.0, max_size=2, lock_timeout=INBOUND_LOCK_TIMEOUT) as database:
        yield database


async def test_they_wait_for_a_locked_table_and_keep_their_order(dsn: str, impatient: Database, tmp_path: Path) -> None:
    node = Node(impatient, tmp_path)
    await node.opt_outs.configure_database()
    node.hear(TO, "stop", 5.0)
    node.hear(TO, "stop now", 6.0)
    with psycopg.connect(dsn) as nobody_can_write:
        nobody_can_write.execute("LOCK TABLE shardd.opt_outs IN EXCLUSIVE MODE")
        assert not await node.store()
    # The node dies, and comes back.
    node = Node(impatient, tmp_path)
    node.hear("+6281100001", "stop", 7.0)
    assert await node.store()
    assert node.spool.names() == []
    assert rows(dsn, "SELECT words FROM shardd.opt_out_log ORDER BY id") == [("stop",), ("stop now",), ("stop",)]
    assert rows(dsn, "SELECT count(*) FROM shardd.inbox") == [(3,)]


async def test_one_that_a_transaction_blocks_is_kept_and_blocks_no_other(
    dsn: str, producer_dsn: str, impatient: Database, tmp_path: Path
) -> None:
    node = Node(impatient, tmp_path)
    with psycopg.connect(producer_dsn) as producer:
        producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s), ('+6281100009')", [TO])
        for number, recipient in enumerate([TO, "+6281100001", "+6281100009", "+6281100002"]):
            node.hear(recipient, at=float(number))
        assert not await node.store()
        stored = "SELECT address FROM shardd.opt_outs ORDER BY address"
        assert rows(dsn, stored) == [("6281100001",), ("6281100002",)]
        # What is heard later is not behind those that are blocked, and the node's death loses none of them.
        node.hear("+6281100003", at=9.0)
        assert not await node.store()
        assert ("6281100003",) in rows(dsn, stored)
        node = Node(impatient, tmp_path)
        assert all(node.opt_outs.contains(address, 0.0) for address in ("6281234567890", "6281100009"))
        assert not await node.store()
        assert len(node.spool.names()) == 2
        producer.rollback()
    assert await node.store()
    assert len(rows(dsn, stored)) == 5
    assert node.spool.names() == []


async def test_a_blocked_confirmation_does_not_block_its_opt_out(
    dsn: str, producer_dsn: str, impatient: Database, inbox_of: InboxOf
) -> None:
    add_devices(dsn, "d1")
    inbox = inbox_of(impatient, confirm="Bye.")
    with psycopg.connect(producer_dsn) as producer:
        producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body, dedupe_key) "
            "VALUES ('d1', '+6281100009', 'hello', 'opt-out:6281234567890:5')"
        )
        inbox.add(OptedOut("d1", (TO,), "stop", 5.0))
        assert not await inbox.flush()
        assert await inbox.flush()
    assert rows(dsn, "SELECT address FROM shardd.opt_outs") == [("6281234567890",)]


async def test_repetitions_take_no_room(dsn: str, producer_dsn: str, impatient: Database, tmp_path: Path) -> None:
    node = Node(impatient, tmp_path)
    with psycopg.connect(producer_dsn) as producer:
        producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s)", [TO])
        for number in range(50):
            node.hear(TO, at=float(number))
        assert not await node.store()
        assert len(node.spool.names()) == MOST_OF_ONE
    assert rows(dsn, "SELECT count(*) FROM shardd.inbox") == [(50,)]


async def test_one_whose_file_cannot_be_read_once_reaches_the_list(
    dsn: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(database, tmp_path)
    read, fails = node.spool.read, [OSError(errno.EMFILE, os.strerror(errno.EMFILE))] * 2

    def read_or_fail(name: str) -> Incoming | None:
        if name.endswith(OPT_OUT) and fails:
            raise fails.pop()
        return read(name)

    monkeypatch.setattr(node.spool, "read", read_or_fail)
    node.hear(TO)  # fails
    node.spool.keep(Incoming(device_id="d1", message_id="later", addresses=("+6281100001",), text="hi", at=6.0))
    await node.inbox.close()  # fails again, and costs the other message nothing
    assert rows(dsn, "SELECT message_id FROM shardd.inbox") == [("later",)]
    assert await node.store()
    assert rows(dsn, "SELECT address FROM shardd.opt_outs") == [("6281234567890",)]
    assert rows(dsn, "SELECT opt_out FROM shardd.inbox ORDER BY id") == [(False,), (True,)]
    assert node.spool.names() == []


async def test_the_latest_of_many_holds_against_a_start_between_them(
    dsn: str, producer_dsn: str, impatient: Database, tmp_path: Path
) -> None:
    node = Node(impatient, tmp_path)
    with psycopg.connect(producer_dsn) as producer:
        producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s)", [TO])
        node.hear(TO, at=1.0)
        node.hear(TO, at=2.0)
        start = Incoming(device_id="d1", message_id="start", addresses=(TO,), text="start", at=3.0, take_back=True)
        node.inbox.arrived(Arrived(node.spool.keep(start)))
        node.hear(TO, at=4.0)
        node.hear(TO, at=0.5)  # a late one changes nothing
        assert not await node.store()
        # The node dies, and comes back.
        node = Node(impatient, tmp_path)
        producer.rollback()
    assert await node.store()
    assert await node.store()
    assert rows(dsn, "SELECT address FROM shardd.opt_outs") == [("6281234567890",)]
    assert rows(dsn, "SELECT count(*) FROM shardd.inbox") == [(5,)]
    assert node.spool.names() == []


async def test_opt_outs_do_not_wait_for_the_sessions_that_may_know_their_numbers(dsn: str, database: Database) -> None:
    listed = "SELECT address FROM shardd.opt_outs ORDER BY address"
    asked: list[tuple[list[str], list[tuple[Any, ...]]]] = []

    async def numbers_of(addresses: Sequence[str]) -> dict[str, str]:
        asked.append((list(addresses), rows(dsn, listed)))
        if len(asked) == 1:
            raise DatabaseError("the session store does not answer")
        return {"770012345677@lid": "6281100001"}

    inbox = OptOutInbox(OptOuts(database), config(), numbers_of)
    inbox.add(OptedOut("d1", ("770012345677@lid",), "stop", 5.0))
    inbox.add(OptedOut("d1", ("770012345678@lid",), "stop", 5.0))
    inbox.add(OptedOut("d1", (TO, "770012345679@lid"), "stop", 5.0))
    assert await inbox.flush()
    stored = [("6281234567890",), ("770012345677@lid",), ("770012345678@lid",), ("770012345679@lid",)]
    assert asked == [(["770012345677@lid", "770012345678@lid"], stored)]
    assert await inbox.flush()
    assert len(asked) == 1, "asked again at once"
    inbox._ask_at = 0.0
    assert await inbox.flush()
    assert rows(dsn, listed) == [("6281100001",), *stored]
    assert await inbox.flush()
    assert len(asked) == 2


def taken(job: int, recipient: str, address: str) -> ClaimedJob:
    claim = Claim(job, 1, 1, 9, "d1", 0, 5, "hold", address=address)
    return ClaimedJob(JobSpec(job, 1, 1, 9, "d1", recipient), claim)


async def test_an_opt_out_that_is_not_stored_yet_holds_unless_the_class_is_exempt(
    database: Database, inbox_of: InboxOf
) -> None:
    inbox = inbox_of(database)
    heard: list[list[str]] = []
    inbox.on_heard = lambda addresses: heard.append(list(addresses))
    inbox.add(OptedOut("d1", (TO, "77@lid"), "stop", 5.0))
    assert heard == [["6281234567890", "77@lid"]]
    check = OptOutCheck(inbox.contains)
    jobs = [
        taken(1, TO, "6281234567890"),
        taken(3, "77@lid", "77@lid"),
        taken(4, "+6281234567891", "6281234567891"),
    ]
    exempt = taken(5, TO, "6281234567890")
    exempt = replace(exempt, spec=msgspec.structs.replace(exempt.spec, heeds_opt_outs=False))
    assert await check([*jobs, exempt], 0.0) == {1, 3}
    assert await inbox.flush()
    # They may have been claimed just before it was stored.
    assert await check([*jobs, exempt], 0.0) == {1, 3}
    # Of a later claim the database knows more: the person may have taken it back.
    assert await check([jobs[0]], time.monotonic()) == set()


def posted(transport: str, text: str, now: float, **fields: str) -> Incoming:
    """What a platform posts at `now`."""
    body = {"id": "", "phone": TO, "from": TO, "message": text, **fields}
    found = read_report(transport, "d1", body, now)
    assert isinstance(found, Incoming)
    return found


@pytest.mark.parametrize("keep", ["30d", "0"])
@pytest.mark.parametrize(
    "fields",
    [
        {"id": "M1", "timestamp": ""},
        {"id": "M1", "timestamp": "2023-11-14 12:00:00"},
        {"timestamp": "2023-11-14 12:00:00"},
        {"timestamp": ""},
    ],
)
@pytest.mark.parametrize("transport", ["wablas", "whacenter"])
async def test_a_repeated_message_takes_nothing_back_and_opts_nobody_out(
    *, dsn: str, database: Database, tmp_path: Path, transport: str, fields: dict[str, str], keep: str
) -> None:
    """A platform repeats what was not answered with 200, and neither gives a time that can be read."""
    add_devices(dsn, "d1")
    node = Node(database, tmp_path, f"inbox: {{keep: {keep}}}", take_back_words="start")
    listed = "SELECT address FROM shardd.opt_outs"
    start = {"message": "start", **fields}
    stop = fields | {"id": "M2"} if "id" in fields else fields | {"timestamp": "2023-11-14 12:00:01"}
    for at, text, what in ((NOON, "start", start), (NOON + 60, "stop", stop), (NOON + 120, "start", start)):
        await node.inbox.receive([posted(transport, text, at, **what)])
        assert await node.store()
    assert rows(dsn, listed) == [("6281234567890",)]
    if keep == "0" or "id" not in fields:
        return
    # Said for the first time, it counts; and the repetition of what it took back does not.
    await node.inbox.receive([posted(transport, "start", NOON + 180, **start | {"id": "M3"})])
    assert await node.store()
    assert rows(dsn, listed) == []
    await node.inbox.receive([posted(transport, "stop", NOON + 240, **stop)])
    assert await node.store()
    assert rows(dsn, listed) == []


async def test_a_message_is_recognised_before_its_first_copy_is_stored(
    dsn: str, database: Database, tmp_path: Path
) -> None:
    add_devices(dsn, "d1")
    node = Node(database, tmp_path, take_back_words="start")
    for at, text, name in ((NOON, "start", "M1"), (NOON + 60, "stop", "M2"), (NOON + 120, "start", "M1")):
        await node.inbox.receive([posted("wablas", text, at, id=name)])
    assert await node.opt_outs.flush()
    assert await node.store()
    assert rows(dsn, "SELECT address FROM shardd.opt_outs") == [("6281234567890",)]


@pytest.mark.parametrize("transport", ["wablas", "whacenter"])
async def test_what_is_dated_in_the_future_counts_as_of_its_arrival(
    dsn: str, database: Database, tmp_path: Path, transport: str
) -> None:
    """A `start` would disable every `stop` until then, and a `stop` every `start`."""
    node = Node(database, tmp_path, take_back_words="start")
    expected = {"start": [], "stop": [("6281234567890",)]}
    for number, text in enumerate(("start", "stop", "start", "stop")):
        stamp = str(int(time.time()) + 7 * 3600 - number)
        await node.inbox.receive([posted(transport, text, time.time(), id=f"M{number}", timestamp=stamp)])
        assert await node.store()
        assert rows(dsn, "SELECT address FROM shardd.opt_outs") == expected[text]
    assert rows(dsn, "SELECT count(*) FROM shardd.opt_out_log WHERE said_at > clock_timestamp()") == [(0,)]


@pytest.mark.parametrize("keep", ["30d", "0"])
async def test_an_opt_out_follows_a_changed_number(dsn: str, database: Database, tmp_path: Path, keep: str) -> None:
    node = Node(database, tmp_path, f"inbox: {{keep: {keep}}}")
    node.hear(TO)
    changed = Incoming(
        device_id="d1", message_id="M1", addresses=(TO,), at=6.0, kind="other", new_number="+6281234567899"
    )
    await node.inbox.receive([changed])
    assert await node.store()
    assert rows(dsn, "SELECT address FROM shardd.opt_outs ORDER BY 1") == [("6281234567890",), ("6281234567899",)]
    assert rows(dsn, "SELECT address, other, moved FROM shardd.same_person") == [
        ("6281234567890", "6281234567899", True)
    ]
    assert rows(dsn, "SELECT count(*) FROM shardd.messages") == [(0 if keep == "0" else 2,)]
    assert node.spool.names() == []
