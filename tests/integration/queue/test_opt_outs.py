"""The opt-out list: what is added, what remains, and which jobs it stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from shardd.queue.cycle import Settlement
from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from shardd.queue.opt_outs import NewOptOut, OptedOut, OptOutAdmin, OptOuts
from shardd.queue.records import ClaimRequest
from shardd.supervisor.scheduling.device_queue import FIRST_POSITION
from tests.support.queue_rows import add_devices, connect, insert_jobs, row_of, take_epoch

Connection = psycopg.Connection[Any]

INSERT = "INSERT INTO shardd.opt_outs (recipient) VALUES (%s)"
TO = "+6281234567890"


@pytest.fixture
def producer(producer_dsn: str) -> Iterator[Connection]:
    with connect(producer_dsn) as connection:
        yield connection


@pytest.fixture
def owner(dsn: str) -> Iterator[Connection]:
    with connect(dsn) as connection:
        yield connection


def heard(*recipients: str, device: str = "d1", words: str = "STOP") -> OptedOut:
    return OptedOut(device, recipients or (TO,), words, 1_700_000_000.0)


def of(job_class: str) -> dict[str, Any]:
    return {"class": job_class}


# ---- what comes in


@pytest.mark.parametrize(
    ("recipient", "address"),
    [
        ("+62 812-3456-7890", "6281234567890"),
        ("6281234567890", "6281234567890"),
        ("006281234567890", "6281234567890"),
        ("6281234567890@s.whatsapp.net", "6281234567890"),
        ("123456789012@lid", "123456789012@lid"),
        ("120363041234567890@g.us", "120363041234567890@g.us"),
        ("+39 06 12345678", "390612345678"),
        ("+225 07 12 34 56 78", "2250712345678"),
        ("+62 80 1234 5678", "628012345678"),
        ("+49 (0)151 2345678", "491512345678"),
        ("+52 1 55 1234 5678", "525512345678"),
    ],
)
def test_a_producer_adds_a_recipient_in_any_sure_spelling(producer: Connection, recipient: str, address: str) -> None:
    assert producer.execute(INSERT + " RETURNING address", [recipient]).fetchall() == [(address,)]
    again = producer.execute(INSERT, [recipient])
    assert again.rowcount == 0
    rows = producer.execute("SELECT address, recipient, source FROM shardd.opt_outs").fetchall()
    assert rows == [(address, recipient, "producer")]


@pytest.mark.parametrize(
    ("recipient", "message", "hint"),
    [
        ("0812 3456 7890", "cannot be resolved to a phone number without its country", "set default_region"),
        ("+62 812 34", "cannot be a phone number", "so many digits"),
        ("+999123456789", "cannot be a phone number", "No country has the code"),
        ("+628111000001.0", "is a decimal number", "as text"),
        ("somebody", "is neither a phone number nor a WhatsApp address", "+4915112345678"),
        ("", "is neither a phone number nor a WhatsApp address", "+4915112345678"),
    ],
)
def test_a_spelling_that_leaves_the_number_open_is_refused(
    producer: Connection, recipient: str, message: str, hint: str
) -> None:
    with pytest.raises(errors.CheckViolation, match=message) as refused:
        producer.execute(INSERT, [recipient])
    diagnosis = refused.value.diag
    assert (diagnosis.schema_name, diagnosis.table_name, diagnosis.column_name) == ("shardd", "opt_outs", "recipient")
    assert hint in str(diagnosis.message_hint)


def test_a_recipient_that_is_left_out_is_refused_by_its_name(producer: Connection) -> None:
    with pytest.raises(errors.NotNullViolation) as refused:
        producer.execute(INSERT, [None])
    assert (refused.value.diag.table_name, refused.value.diag.column_name) == ("opt_outs", "recipient")


async def test_without_a_plus_an_opt_out_is_read_by_the_default_regions_if_they_agree(
    database: Database, producer: Connection
) -> None:
    def added(recipient: str) -> Any:
        return producer.execute(INSERT + " RETURNING address", [recipient]).fetchone()

    await OptOuts(database).configure([], {"whatsapp": "62", "wablas": "62"})
    assert added("0812 3456 7890") == ("6281234567890",)
    assert added("12125551234") == ("12125551234",)
    await OptOuts(database).configure([], {"whatsapp": "62", "wablas": "49"})
    for text in ("0812 3456 7891", "6281234567891"):  # Buchen in Germany has the area code 06281
        with pytest.raises(errors.CheckViolation, match="could be a number of several countries"):
            producer.execute(INSERT, [text])
    assert added("+6281234567891") == ("6281234567891",)


def test_a_producer_may_neither_sign_for_others_nor_read_what_was_said(producer: Connection) -> None:
    for statement in (
        "INSERT INTO shardd.opt_outs (recipient, source) VALUES ('+628123456', 'message')",
        "INSERT INTO shardd.opt_outs (recipient, created_by) VALUES ('+628123456', 'somebody')",
        "INSERT INTO shardd.opt_outs (recipient, address) VALUES ('+628123456', '49151')",
        "SELECT words FROM shardd.opt_outs",
        "SELECT * FROM shardd.opt_out_log",
        "DELETE FROM shardd.opt_outs",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            producer.execute(statement)


@pytest.mark.parametrize("table", ["opt_outs", "opt_out_log"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET created_at = now()", "TRUNCATE {}"])
def test_what_came_in_stays(owner: Connection, table: str, statement: str) -> None:
    owner.execute(INSERT, [TO])
    with pytest.raises(
        errors.ObjectNotInPrerequisiteState, match="only the person can take an opt-out back"
    ) as refused:
        owner.execute(statement.format(f"shardd.{table}"))
    assert "take_back_words" in str(refused.value.diag.message_hint)
    assert owner.execute(f"SELECT count(*) FROM shardd.{table}").fetchall() == [(1,)]


def test_the_same_opt_out_from_two_sides_at_once_is_one(dsn: str) -> None:
    with psycopg.connect(dsn) as first, connect(dsn) as watch, psycopg.connect(dsn) as second:
        first.execute(INSERT, [TO])
        counts: list[int] = []
        waiting = threading.Thread(target=lambda: counts.append(second.execute(INSERT, [TO]).rowcount))
        waiting.start()
        while not watch.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            assert waiting.is_alive()
        first.commit()
        waiting.join(20)
        assert counts == [0]
        second.commit()
        assert watch.execute("SELECT count(*) FROM shardd.opt_outs").fetchall() == [(1,)]


def test_an_opt_out_that_is_rolled_back_was_none(dsn: str, owner: Connection) -> None:
    with psycopg.connect(dsn) as first:
        first.execute(INSERT, [TO])
        first.rollback()
    assert owner.execute(INSERT, [TO]).rowcount == 1


# ---- what it stops


def test_a_job_to_them_ends_with_its_insert(dsn: str, producer: Connection) -> None:
    add_devices(dsn, "d1")
    producer.execute(INSERT, [TO])
    row = producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d1', '62 812 3456 7890', 'x') RETURNING id"
    ).fetchone()
    assert row is not None
    outcome = row_of(dsn, row[0])
    assert (outcome["state"], outcome["error_class"]) == ("opted_out", "opted_out")
    (other,) = insert_jobs(dsn, "d1", recipient="+6281234567891")
    assert row_of(dsn, other)["state"] == "queued"


async def test_exempt_classes_are_sent_and_marketing_never(dsn: str, database: Database, owner: Connection) -> None:
    add_devices(dsn, "d1")
    owner.execute(INSERT, [TO])

    def states() -> dict[str, str]:
        jobs = {name: insert_jobs(dsn, "d1", recipient=TO, **of(name))[0] for name in ("marketing", "service", "reply")}
        return {name: row_of(dsn, job)["state"] for name, job in jobs.items()}

    assert states() == {"marketing": "opted_out", "service": "opted_out", "reply": "opted_out"}
    await OptOuts(database).configure(["service"], {})
    assert states() == {"marketing": "opted_out", "service": "queued", "reply": "opted_out"}
    await OptOuts(database).configure([], {})
    assert states() == {"marketing": "opted_out", "service": "opted_out", "reply": "opted_out"}


async def test_a_worker_is_told_what_goes_to_them_all_the_same(dsn: str, database: Database) -> None:
    add_devices(dsn, "d1")
    epoch, jobs = await take_epoch(database), Jobs(database)
    await OptOuts(database).configure(["service"], {})
    told = {}
    for name in ("marketing", "service", "reply"):
        insert_jobs(dsn, "d1", recipient=TO, **of(name))
        cycle = await jobs.cycle(Settlement(), [ClaimRequest("d1", f"/{name}", epoch, FIRST_POSITION, 1)])
        told[name] = [taken.spec.heeds_opt_outs for taken in cycle.claimed]
    assert told == {"marketing": [True], "service": [False], "reply": [True]}
    await OptOuts(database).store(heard("+6281100001"), "Bye.")
    cycle = await jobs.cycle(Settlement(), [ClaimRequest("d1", "/reply", epoch, FIRST_POSITION, 1)])
    assert [(taken.spec.body, taken.spec.heeds_opt_outs, taken.opted_out) for taken in cycle.claimed] == [
        ("Bye.", False, False)
    ]


@pytest.mark.parametrize("exempt", [[], ["service"], ["service", "reply"]])
async def test_a_claim_decides_as_the_function_does_that_admits_jobs(
    dsn: str, database: Database, owner: Connection, exempt: list[str]
) -> None:
    """The claim has the rule of shardd.opted_out in its own words."""
    add_devices(dsn, "d1")
    epoch = await take_epoch(database)
    await OptOuts(database).configure(exempt, {})
    classes = ("marketing", "service", "reply")
    opted_out, forgotten, neither = (f"+62812345678{n}" for n in range(3))
    for name in classes:
        for to in (opted_out, forgotten, neither):
            insert_jobs(dsn, "d1", 4, recipient=to, **of(name))
    owner.execute("UPDATE shardd.jobs SET confirms = id % 2 = 1, resend_of = CASE WHEN id % 4 > 1 THEN 1 END")
    owner.execute(INSERT, [opted_out])
    owner.execute("INSERT INTO shardd.pseudonym_key (inside, outside) VALUES (%s, %s)", [b"i" * 64, b"o" * 64])
    owner.execute("INSERT INTO shardd.forgotten (pseudonym) VALUES (shardd.pseudonym(%s))", [forgotten[1:]])
    rows = owner.execute(
        "SELECT id, shardd.opted_out(address, CASE WHEN resend_of IS NULL THEN class ELSE '' END, confirms) FROM shardd.jobs"
    ).fetchall()
    assert {True, False} == {is_out for _, is_out in rows}
    asks = [ClaimRequest("d1", f"/{name}", epoch, FIRST_POSITION, 20) for name in classes]
    cycle = await Jobs(database).cycle(Settlement(), asks)
    assert {taken.claim.id: taken.opted_out for taken in cycle.claimed} == dict(rows)


# ---- what devices hear


async def test_a_person_is_known_by_all_addresses_and_answered_once(
    dsn: str, database: Database, owner: Connection
) -> None:
    add_devices(dsn, "d1")
    opt_outs = OptOuts(database)
    assert await opt_outs.store(heard(TO, "123456@lid"), "You get no more messages.")
    assert not await opt_outs.store(heard(TO, "123456@lid", words="stop!!"), "You get no more messages.")
    assert await opt_outs.store(heard(TO, "777777@lid"), "You get no more messages."), "the second is new"
    rows = owner.execute("SELECT address, source, device_id, words FROM shardd.opt_outs ORDER BY address").fetchall()
    assert rows == [(address, "message", "d1", "STOP") for address in ("123456@lid", "6281234567890", "777777@lid")]
    answers = owner.execute("SELECT recipient, body, class, confirms, address FROM shardd.jobs").fetchall()
    assert answers == [(TO, "You get no more messages.", "reply", True, "6281234567890")]


async def test_without_a_text_or_a_device_nothing_is_answered(dsn: str, database: Database, owner: Connection) -> None:
    add_devices(dsn, "d1", "gone")
    owner.execute("UPDATE shardd.devices SET removed_at = now() WHERE id = 'gone'")
    opt_outs = OptOuts(database)
    assert await opt_outs.store(heard("+6281100001"), None)
    assert await opt_outs.store(heard("+6281100002", device="gone"), "Bye.")
    assert await opt_outs.store(heard("+6281100003", device="unheard of"), "Bye.")
    assert owner.execute("SELECT count(*) FROM shardd.jobs").fetchall() == [(0,)]
    assert owner.execute("SELECT count(*) FROM shardd.opt_outs").fetchall() == [(3,)]


async def test_who_has_to_say_it_again_is_on_the_trail_once_a_day(database: Database, owner: Connection) -> None:
    opt_outs, admin = OptOuts(database), OptOutAdmin(database)
    owner.execute(INSERT, [TO])
    for words, at in (("stop", 5.0), ("stop", 5.0), ("STOP!!!", 6.0)):
        assert not await opt_outs.store(OptedOut("d1", (TO,), words, at), None)
    owner.execute(INSERT, [TO])
    trail = await admin.trail("6281234567890")
    assert [(saying.kind, saying.source, saying.words) for saying in trail] == [
        ("opted_out", "producer", None),
        ("repeated", "message", "stop"),
    ]
    assert trail[0].created_by == owner.execute("SELECT session_user").fetchall()[0][0]


# ---- what an operator sees


async def test_an_operator_adds_lists_and_finds_what_was_stopped(dsn: str, database: Database) -> None:
    add_devices(dsn, "d1")
    admin = OptOutAdmin(database)
    numbers = [f"+62811{n:07}" for n in range(4500)]
    new = await admin.add([NewOptOut(number, "letter") for number in numbers], source="import", created_by="ada")
    assert len(new) == 4500
    assert await admin.add([NewOptOut(numbers[7])], source="operator", created_by="bob") == set()
    exported = [one.address async for chunk in admin.everybody() for one in chunk]
    assert exported == sorted(number.removeprefix("+") for number in numbers)
    assert len(await admin.newest(10, source="import")) == 10
    assert await admin.newest(10, source="message") == []
    job, second = insert_jobs(dsn, "d1", 2, recipient=numbers[7], reference="order-7")
    assert [stopped.id for stopped in await admin.stopped(numbers[7][1:], 10)] == [second, job]
    assert await admin.stopped(numbers[8][1:], 10) == []
    shown = await admin.show(numbers[7][1:])
    assert shown is not None
    assert (shown.source, shown.note, shown.created_by) == ("import", "letter", "ada")
    assert await admin.show("628990000000") is None
