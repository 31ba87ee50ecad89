"""The way of incoming messages from the spool into the database: each once, whatever is wrong with another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors

from shardd.config import parse_config
from shardd.incoming import Incoming, IncomingMedia
from shardd.incoming_spool import IncomingSpool
from shardd.ipc import Arrived
from shardd.queue.database import Database
from shardd.queue.inbox import Inbox
from shardd.queue.opt_outs import OptOuts
from shardd.supervisor.inbound import inbox as inbox_module
from shardd.supervisor.inbound.inbox import InboxWriter
from shardd.supervisor.inbound.media.downloads import MediaDownloads
from shardd.supervisor.inbound.opt_outs import OptOutInbox
from shardd.supervisor.pools import INBOUND_LOCK_TIMEOUT
from shardd.supervisor.services import Step
from tests.fixtures.producers import Tenants, insert
from tests.support.queue_rows import add_devices, connect, insert_jobs

PERSON = "+6281234567890"
LID = "770012345678@lid"


def writer(database: Database, folder: Path, text: str = "") -> InboxWriter:
    config = parse_config(text, "x.yaml", {"HOME": "/home/x"})
    opt_outs = OptOutInbox(OptOuts(database), config)
    spool = IncomingSpool(folder)
    media = MediaDownloads(Inbox(database), spool, Step("x"), config=config, device_of=lambda _: None)
    return InboxWriter(
        Inbox(database),
        spool,
        OptOuts(database),
        opt_outs=opt_outs,
        media=media,
        config=config,
        spool_errors=list,
        has_device=lambda _: True,
    )


def message(message_id: str = "A1", **fields: Any) -> Incoming:
    whole = {"device_id": "d1", "message_id": message_id, "addresses": (PERSON, LID), "text": "hi", "at": 5.0}
    return Incoming(**{**whole, **fields})


def stored(dsn: str, columns: str = "message_id") -> list[tuple[Any, ...]]:
    with connect(dsn) as connection:
        return connection.execute(f"SELECT {columns} FROM shardd.messages ORDER BY id").fetchall()  # type: ignore[call-overload]  # names of this test


async def test_one_that_the_database_refuses_is_set_aside_and_blocks_no_other(
    dsn: str, database: Database, tmp_path: Path
) -> None:
    with connect(dsn) as connection:
        connection.execute(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE data_exception; END$$; "
            "CREATE TRIGGER strange BEFORE INSERT ON shardd.messages FOR EACH ROW WHEN (NEW.message_id = 'A2') "
            "EXECUTE FUNCTION no()"
        )
    spool = IncomingSpool(tmp_path)
    for number in range(5):
        spool.keep(message(f"A{number}"))
    inbox = writer(database, tmp_path)
    await inbox.close()
    assert stored(dsn) == [("A0",), ("A1",), ("A3",), ("A4",)]
    assert spool.names() == []
    (problem,) = inbox.problems()
    assert "cannot be stored: 1" in problem.text


LOCKS = {
    "the message": "INSERT INTO shardd.messages (device_id, message_id, sender, own, status, kind, text, opt_out, written_at) "
    "VALUES ('d1', 'A2', '+6281234567892', false, false, 'text', 'x', false, now())",
    "the addresses": "INSERT INTO shardd.same_person (address, other) VALUES ('6281234567892', '770012345672@lid')",
}


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
async def test_one_whose_rows_another_transaction_has_locked_waits_alone(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: LiteralString
) -> None:
    monkeypatch.setattr(inbox_module, "BLOCKED_RETRY", (0.1, 0.1))
    monkeypatch.setattr(inbox_module, "REPORT_AFTER", 0.0)
    spool = IncomingSpool(tmp_path)
    for number in range(7):
        spool.keep(message(f"A{number}", addresses=(f"+628123456789{number}", f"77001234567{number}@lid")))
    async with Database(dsn, statement_timeout=20.0, max_size=2, lock_timeout=INBOUND_LOCK_TIMEOUT) as database:
        inbox = writer(database, tmp_path)
        with psycopg.connect(dsn) as other:
            other.execute(lock)
            running = asyncio.create_task(inbox.serve())
            await until(lambda: len(stored(dsn)) == 6)
            spool.keep(message("later"))
            await until(lambda: ("later",) in stored(dsn))
            named = f"pid {other.info.backend_pid}"
            await until(lambda: any("stored: 1," in one.text and named in one.text for one in inbox.problems()))
            assert ("A2",) not in stored(dsn)
            other.rollback()
        await until(lambda: ("A2",) in stored(dsn) and not list(inbox.problems()))
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert spool.names() == []


async def test_a_locked_table_is_tried_with_a_few_messages_only(dsn: str, tmp_path: Path) -> None:
    spool = IncomingSpool(tmp_path)
    for number in range(20):
        spool.keep(message(f"A{number}"))
    async with Database(dsn, statement_timeout=20.0, max_size=2, lock_timeout=INBOUND_LOCK_TIMEOUT) as database:
        inbox = writer(database, tmp_path)
        with psycopg.connect(dsn) as other:
            other.execute("LOCK TABLE shardd.messages IN SHARE MODE")
            await inbox.close()
        assert sum(one.tries for one in inbox._waiting) == inbox_module.BLOCKED_MOST
        await inbox.close()
    assert len(stored(dsn)) >= 20 - inbox_module.BLOCKED_MOST  # the others are tried again later


async def until(true: Callable[[], bool]) -> None:
    """Rows tell nobody."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)


async def test_the_same_message_is_told_once_and_a_sender_cannot_occupy_anothers_id(
    dsn: str, database: Database, tmp_path: Path
) -> None:
    spool = IncomingSpool(tmp_path)
    for addresses in ((PERSON,), (PERSON, LID), ("+6281234567891",)):
        spool.keep(message("SAME", addresses=addresses))
    await writer(database, tmp_path).close()
    spool.keep(message("SAME"))
    await writer(database, tmp_path).close()
    assert stored(dsn, "sender") == [(PERSON,), ("+6281234567891",)]
    assert list(spool.folder.iterdir()) == []
    with connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM shardd.outbox WHERE kind = 'message.received'").fetchone() == (
            2,
        )
        assert connection.execute("SELECT address, other FROM shardd.same_person").fetchall() == [
            ("6281234567890", LID)
        ]


async def test_an_answer_waits_a_moment_for_the_job_that_it_answers(
    dsn: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_devices(dsn, "d1")
    (job,) = insert_jobs(dsn, "d1")
    inbox = writer(database, tmp_path)
    await inbox.receive([message(quoted_id="3EB0"), message("A2", quoted_id="of the phone")])
    await inbox.close()
    assert stored(dsn) == []
    with connect(dsn) as connection:  # the settlement comes after the answer
        connection.execute("SELECT shardd.end_jobs(array[%s::bigint], 'failed', 'x', 'x')", [job])
        connection.execute("UPDATE shardd.archive SET message_id = '3EB0' WHERE id = %s", [job])
    monkeypatch.setattr(inbox_module, "JOB_WAIT", 0.0)
    await writer(database, tmp_path).close()
    again = writer(database, tmp_path)
    await again.close()
    await again.close()
    assert stored(dsn, "message_id, job_id") == [("A1", job), ("A2", None)]


async def test_without_an_inbox_only_opt_outs_are_kept(dsn: str, database: Database, tmp_path: Path) -> None:
    spool = IncomingSpool(tmp_path)
    spool.keep(message())  # of before
    inbox = writer(database, tmp_path, "inbox: {keep: 0}")
    await inbox.receive([message("A2"), message("A3", text="STOP")])
    assert [one.endswith(".stop") for one in spool.names()] == [False, True]
    await inbox.close()
    await inbox._opt_outs.flush()
    assert (stored(dsn), spool.names()) == ([], [])
    with connect(dsn) as connection:
        assert len(connection.execute("SELECT 1 FROM shardd.opt_outs").fetchall()) == 2


async def test_one_that_is_only_in_memory_is_stored_too(dsn: str, database: Database, tmp_path: Path) -> None:
    inbox = writer(database, tmp_path)
    media = IncomingMedia(mime_type="image/png", size=9, name="a.png")
    inbox.arrived(Arrived(None, message(kind="image", media=media, details={"x": "\0"})))
    inbox.arrived(Arrived(None, message("A2", text="stop", opt_out=True)))
    await inbox.close()
    assert stored(dsn, "message_id, kind, media_type, media_size") == [("A2", "text", None, None)]


async def test_a_reported_message_is_taken_by_its_name_and_others_by_time(
    dsn: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "POLL", 3600.0)
    spool = IncomingSpool(tmp_path)
    inbox = writer(database, tmp_path)
    spool.keep(message("by time"))
    running = asyncio.create_task(inbox.serve())
    inbox.arrived(Arrived(spool.keep(message("by name"))))
    await until(lambda: bool(stored(dsn)))
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert stored(dsn) == [("by name",)]
    await inbox.close()
    assert stored(dsn) == [("by name",), ("by time",)]


# ---- answering


@pytest.fixture
async def written(tenants: Tenants) -> int:
    """A message to device a1."""
    async with Database(tenants.dsn) as database:
        await Inbox(database).store([message(device_id="a1")], {})
    return 1


@pytest.mark.parametrize(
    ("fields", "column"),
    [
        ({"reply_to": 2}, "reply_to"),
        ({"device_id": "a2"}, "device_id"),
        ({"device_group": "ga"}, "device_group"),
        ({"recipient": "+6281234567891"}, "recipient"),
        ({"recipient": "770012345679@lid"}, "recipient"),
    ],
)
def test_an_answer_that_fits_no_message_is_refused(
    tenants: Tenants, written: int, fields: dict[str, Any], column: str
) -> None:
    reader = tenants.role("reader", "shardd_inbox")
    with tenants.session(reader) as session, pytest.raises(errors.IntegrityError) as refused:
        insert(session, **{"reply_to": written, "recipient": None, **fields})
    assert refused.value.diag.column_name == column
    assert refused.value.diag.message_hint


async def test_what_has_no_id_of_the_platform_is_answered_without_a_quote(tenants: Tenants) -> None:
    async with Database(tenants.dsn) as database:
        named = {"device_id": "a1", "addresses": ("US.1@bsuid",)}
        await Inbox(database).store([message("no-id-5f", **named), message("p", kind="preference", **named)], {})
    with connect(tenants.dsn) as owner:
        owner.execute("INSERT INTO shardd.jobs (reply_to, body) SELECT id, 'thanks' FROM shardd.messages")
        found = owner.execute("SELECT quote, recipient, address FROM shardd.jobs").fetchall()
    assert found == [({}, "US.1@bsuid", "US.1@bsuid")] * 2


def test_an_answer_takes_device_and_recipient_from_its_message(
    tenants: Tenants, alpha: str, beta: str, written: int
) -> None:
    with tenants.session(alpha) as session:
        for recipient in (None, PERSON, LID, "+62 812-3456-7890"):
            assert insert(session, reply_to=written, recipient=recipient) is not None
        row = session.execute(
            "SELECT device_id, recipient, reply_to FROM shardd.outcomes ORDER BY id LIMIT 1"
        ).fetchone()
        assert row == ("a1", PERSON, written)
    with tenants.session(beta) as session, pytest.raises(errors.ForeignKeyViolation, match="not a message that beta"):
        insert(session, reply_to=written, recipient=None)
    with connect(tenants.dsn) as owner:
        quotes = owner.execute("SELECT DISTINCT quote, producer FROM shardd.jobs").fetchall()
    assert quotes == [({"id": "A1", "sender": LID, "text": "hi", "kind": "text"}, alpha)]
