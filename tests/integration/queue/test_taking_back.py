"""Taking an opt-out back: only by the person's own message, and in the order in which they spoke."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import errors

from shardd.queue.database import Database
from shardd.queue.opt_outs import NewOptOut, OptedOut, OptOutAdmin, OptOuts
from tests.support.queue_rows import add_devices, connect, insert_jobs, row_of, run_blocked

Connection = psycopg.Connection[Any]

TO, ADDRESS, HIDDEN = "+6281234567890", "6281234567890", "123456@lid"
NOON = 1_700_000_000.0
WELCOME = "You get our messages again."


@pytest.fixture
def owner(dsn: str) -> Iterator[Connection]:
    with connect(dsn) as connection:
        yield connection


def said(at: float, *recipients: str, words: str = "STOP", device: str = "d1") -> OptedOut:
    return OptedOut(device, recipients or (TO, HIDDEN), words, NOON + at)


def listed(owner: Connection) -> list[str]:
    return [address for (address,) in owner.execute("SELECT address FROM shardd.opt_outs ORDER BY 1").fetchall()]


async def test_the_person_takes_it_back_and_can_opt_out_again(dsn: str, database: Database, owner: Connection) -> None:
    add_devices(dsn, "d1")
    opt_outs, admin = OptOuts(database), OptOutAdmin(database)
    assert await opt_outs.store(said(0), "Bye.")
    assert row_of(dsn, insert_jobs(dsn, "d1", 1, recipient=TO)[0])["state"] == "opted_out"
    assert sorted(await opt_outs.take_back(said(60, words="Start!"), WELCOME)) == [HIDDEN, ADDRESS]
    assert listed(owner) == []
    (job,) = insert_jobs(dsn, "d1", 1, recipient=TO)
    assert row_of(dsn, job)["state"] == "queued"
    trail = [(one.kind, one.source, one.device_id, one.words) for one in await admin.trail(ADDRESS)]
    assert trail == [("opted_out", "message", "d1", "STOP"), ("taken_back", "message", "d1", "Start!")]

    assert await opt_outs.store(said(120, words="stop"), "Bye.")
    assert listed(owner) == [HIDDEN, ADDRESS]
    assert [one.kind for one in await admin.trail(ADDRESS)] == ["opted_out", "taken_back", "opted_out"]
    bodies = owner.execute("SELECT body, class, confirms FROM shardd.jobs WHERE id <> %s ORDER BY id", [job]).fetchall()
    # What welcomes somebody is not sent to who has opted out meanwhile.
    assert bodies == [("Bye.", "reply", True), (WELCOME, "reply", False), ("Bye.", "reply", True)]
    claimed = owner.execute(
        "SELECT shardd.opted_out(address, class, confirms) FROM shardd.jobs WHERE body = %s", [WELCOME]
    )
    assert claimed.fetchall() == [(True,)]


@pytest.mark.parametrize("heard_at", [60.0, 61.0])
async def test_one_that_was_said_before_the_opt_out_takes_nothing_back(
    dsn: str, database: Database, owner: Connection, heard_at: float
) -> None:
    """Of the same time counts as before."""
    add_devices(dsn, "d1")
    opt_outs = OptOuts(database)
    assert await opt_outs.store(said(0), None)
    assert not await opt_outs.store(said(heard_at, TO), None)
    assert await opt_outs.take_back(said(60.0, words="start"), WELCOME) == []
    assert listed(owner) == [HIDDEN, ADDRESS], "all of the person's addresses stay, or none"
    assert await opt_outs.take_back(said(62.0, words="start"), None) != []
    assert listed(owner) == []


async def test_an_opt_out_that_is_heard_late_does_not_undo_a_later_start(
    dsn: str, database: Database, owner: Connection
) -> None:
    """Such as one that is stored twice after a crash, or that waited at a device that was offline."""
    add_devices(dsn, "d1")
    opt_outs = OptOuts(database)
    await opt_outs.store(said(0), None)
    await opt_outs.take_back(said(60, words="start"), None)
    assert not await opt_outs.store(said(0), "Bye.")
    assert not await opt_outs.store(said(59), "Bye.")
    assert listed(owner) == []
    assert await opt_outs.store(said(60), None), "of the same time, the opt-out counts"
    assert listed(owner) == [HIDDEN, ADDRESS]


async def test_whoever_opted_somebody_out_the_person_takes_it_back(
    dsn: str, producer_dsn: str, database: Database, owner: Connection
) -> None:
    add_devices(dsn, "d1")
    opt_outs, admin = OptOuts(database), OptOutAdmin(database)
    (now,) = owner.execute("SELECT extract(epoch FROM now())::double precision").fetchall()[0]
    with connect(producer_dsn) as producer:
        producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s)", [TO])
    await admin.add([NewOptOut(HIDDEN)], source="operator", created_by="ada")
    before = OptedOut("d1", (TO, HIDDEN), "start", now - 1)
    assert await opt_outs.take_back(before, None) == []
    assert len(await opt_outs.take_back(OptedOut("d1", (TO, HIDDEN), "start", now + 60), None)) == 2


async def test_every_known_address_of_the_person_is_taken_back(database: Database, owner: Connection) -> None:
    """The hidden id was learned from somewhere else; the person writes from it without their number."""
    opt_outs = OptOuts(database)
    await opt_outs.learn([(ADDRESS, HIDDEN), ("5511987654321", HIDDEN)])
    await opt_outs.store(said(0, TO), None)
    assert listed(owner) == [HIDDEN, "5511987654321", ADDRESS]
    assert len(await opt_outs.take_back(said(60, HIDDEN, words="start"), None)) == 3
    # One of the person's that was said before, and is heard now under another address, does not come back to any.
    assert not await opt_outs.store(said(30, "+551187654321"), None)
    await opt_outs.learn([("447700900001", "447700900002")])
    await opt_outs.store(said(40, "+447700900002"), None)
    await opt_outs.learn([("447700900001", ADDRESS)])
    assert listed(owner) == ["447700900001", "447700900002"]
    assert len(await opt_outs.take_back(said(61, TO, words="start"), None)) == 2


P, Q = "111111111111111@lid", "222222222222222@lid"
N, N2 = "6281100001", "6281100002"


@pytest.mark.parametrize("with_id", [True, False])
async def test_who_gets_a_number_takes_back_nothing_of_who_had_it(
    database: Database, owner: Connection, with_id: bool
) -> None:
    """P wrote with N, then with N2, and opted out; N is Q's now, who may be heard without their id."""
    opt_outs = OptOuts(database)
    await opt_outs.learn([(N, P)])
    await opt_outs.store(said(0, f"+{N2}", P), None)
    assert listed(owner) == [P, N, N2]
    heard = (f"+{N}", Q) if with_id else (f"+{N}",)
    assert await opt_outs.take_back(said(60, *heard, words="start"), None) == [N]
    await opt_outs.learn([(N, Q)])
    await opt_outs.refresh()
    assert listed(owner) == [P, N2]
    assert await opt_outs.opted_out([P, Q, N, N2]) == {P, N2}
    # Q's next one, now that both ids of the number are known, and from the id alone.
    for addresses in ((f"+{N}", Q), (Q,)):
        await opt_outs.take_back(said(90, *addresses, words="start"), None)
        assert listed(owner) == [P, N2]
    # And the person themselves.
    assert await opt_outs.take_back(said(120, f"+{N2}", P, words="start"), None) == [P, N2]
    assert listed(owner) == []


async def test_who_has_another_number_does_not_free_the_earlier_one(database: Database, owner: Connection) -> None:
    """Whether it is somebody else's by now is not known."""
    opt_outs = OptOuts(database)
    await opt_outs.store(said(0, f"+{N}", P), None)
    assert await opt_outs.take_back(said(60, f"+{N2}", P, words="start"), None) == [P]
    assert listed(owner) == [N]
    # Unless they write from it again.
    await opt_outs.learn([(N2, P)])
    assert N in await opt_outs.take_back(said(90, f"+{N}", P, words="start"), None)
    assert listed(owner) == []


async def test_a_number_that_was_changed_carries_an_opt_out_and_frees_nothing(
    database: Database, owner: Connection
) -> None:
    """Meta reports it. It may have been known otherwise that both are one person's."""
    opt_outs = OptOuts(database)
    await opt_outs.store(said(0, f"+{N}"), None)
    await opt_outs.learn([(N, N2)])
    await opt_outs.learn([(N, N2)], moved=True)
    assert listed(owner) == [N, N2]
    # Who has the old one now.
    assert await opt_outs.take_back(said(60, f"+{N}", words="start"), None) == [N]
    await opt_outs.refresh()
    assert listed(owner) == [N2]
    assert await opt_outs.take_back(said(90, f"+{N2}", words="start"), None) == [N2]


async def test_a_number_that_the_directory_lists_otherwise_is_the_same_one(
    database: Database, owner: Connection
) -> None:
    opt_outs = OptOuts(database)
    await opt_outs.learn([(N, N2), (N, P)])
    await opt_outs.learn([(N2, P)])
    await opt_outs.store(said(0, f"+{N2}", P), None)
    assert listed(owner) == [P, N, N2]
    assert await opt_outs.take_back(said(60, f"+{N2}", P, words="start"), None) == [P, N, N2]


async def test_who_has_not_opted_out_takes_nothing_back_but_an_earlier_opt_out_is_void(
    dsn: str, database: Database, owner: Connection
) -> None:
    """The opt-out waits at a device that is offline."""
    add_devices(dsn, "d1")
    opt_outs = OptOuts(database)
    assert await opt_outs.take_back(said(60, words="start"), WELCOME) == []
    # Strangers cannot fill the log.
    for at in (60, 61, 59):
        assert await opt_outs.take_back(said(at, words="start"), WELCOME) == []
    counts = (
        "SELECT (SELECT count(*) FROM shardd.jobs), (SELECT count(*) FROM shardd.opt_out_log), "
        "(SELECT count(*) FROM shardd.outbox WHERE kind = 'opt_out.taken_back')"
    )
    assert owner.execute(counts).fetchall() == [(0, 2, 0)], "one entry of each address"
    assert not await opt_outs.store(said(0), "Bye.")
    assert listed(owner) == []
    assert await opt_outs.store(said(60), None), "of the same time, the opt-out counts"
    assert listed(owner) == [HIDDEN, ADDRESS]


async def test_an_import_that_is_repeated_does_not_undo_a_later_start(
    producer_dsn: str, database: Database, owner: Connection
) -> None:
    opt_outs, admin = OptOuts(database), OptOutAdmin(database)
    file = [NewOptOut(TO, said_at=datetime.fromtimestamp(NOON - 86400, UTC))]
    assert len(await admin.add(file, source="import", created_by="ada")) == 1
    assert await opt_outs.take_back(said(0, TO, words="start"), None) == [ADDRESS]
    assert len(await admin.add(file, source="import", created_by="ada")) == 0
    assert listed(owner) == []
    later = [NewOptOut(TO, said_at=datetime.fromtimestamp(NOON + 60, UTC))]
    assert len(await admin.add(later, source="import", created_by="ada")) == 1
    assert await opt_outs.take_back(said(90, TO, words="start"), None) == [ADDRESS]
    with connect(producer_dsn) as producer:
        producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s)", [TO])
    assert listed(owner) == [ADDRESS], "without a time, it is one of now"


async def test_programs_are_told(dsn: str, producer_dsn: str, database: Database, owner: Connection) -> None:
    add_devices(dsn, "d1")
    opt_outs = OptOuts(database)
    await opt_outs.learn([(ADDRESS, "5511987654321")])
    await opt_outs.store(said(0), None)
    assert "5511987654321" in await opt_outs.take_back(said(60, words="start"), None)
    with connect(producer_dsn) as producer:
        (event,) = producer.execute("SELECT device_id, data FROM shardd.read_events(kinds => '{opt_out.*}')").fetchall()
    assert event == (
        "d1",
        {
            "recipient": TO,
            "addresses": [HIDDEN, ADDRESS],
            "device_id": "d1",
            "said_at": "2023-11-14T22:14:20.000000Z",
        },
    ), "neither the words nor an address that was learned elsewhere"


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM shardd.opt_outs",
        "UPDATE shardd.opt_outs SET heard_at = '2000-01-01'",
        "TRUNCATE shardd.opt_outs",
        "UPDATE shardd.opt_out_log SET ended = true",
        "SELECT shardd.take_back(array['+6281234567890'], 'd1', 'start', now())",
        "INSERT INTO shardd.opt_out_log (address, kind, source, created_by) VALUES ('x', 'taken_back', 'message', 'x')",
    ],
)
async def test_no_producer_takes_one_back(
    producer_dsn: str, database: Database, owner: Connection, statement: str
) -> None:
    await OptOuts(database).store(said(0), None)
    with connect(producer_dsn) as producer:
        # A name of a setting is nobody's: the rights decide.
        producer.execute("SET shardd.maintains_opt_outs = 'yes'")
        with pytest.raises(errors.InsufficientPrivilege):
            producer.execute(statement)
    assert listed(owner) == [HIDDEN, ADDRESS]


async def test_an_operator_cannot_delete_one(database: Database, owner: Connection) -> None:
    await OptOuts(database).store(said(0), None)
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="only the person can take an opt-out back"):
        owner.execute("DELETE FROM shardd.opt_outs")
    assert listed(owner) == [HIDDEN, ADDRESS]


def test_an_opt_out_that_meets_its_taking_back_is_not_lost(dsn: str, database: Database, owner: Connection) -> None:
    """Both at once, from two devices: the later word counts, whichever is first."""
    hear = (
        "INSERT INTO shardd.opt_outs (recipient, source, said_at) VALUES (%s, 'message', to_timestamp(%s)) "
        "ON CONFLICT DO NOTHING"
    )
    owner.execute(hear, [TO, NOON])
    with psycopg.connect(dsn) as first, psycopg.connect(dsn) as second:
        first.execute("SELECT shardd.take_back(%s, 'd1', 'start', to_timestamp(%s))", [[TO], NOON + 60])
        run_blocked(dsn, first, second, lambda: second.execute(hear, [TO, NOON + 90]), commits=True)
    assert listed(owner) == [ADDRESS]
