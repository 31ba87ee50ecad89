"""Forgetting a person: nothing of them is left in the database, and nothing is sent to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from shardd.incoming import Incoming
from shardd.ipc import Receipt
from shardd.queue import forgetting
from shardd.queue.database import Database
from shardd.queue.forgetting import Forgetting, Progress
from shardd.queue.inbox import Inbox
from shardd.queue.jobs import Jobs
from shardd.queue.opt_outs import NewOptOut, OptedOut, OptOutAdmin, OptOuts
from tests.support.queue_rows import add_devices, connect, insert_jobs, row_of

Connection = psycopg.Connection[Any]

TO, ADDRESS, HIDDEN, OTHER = "+6281234567890", "6281234567890", "999888777666@lid", "+6281100001"
NOON = 1_700_000_000.0
TRACES = ("6281234567890", "999888777666", "Adelheid", "secret text", "81234567890")


@pytest.fixture
def owner(dsn: str) -> Iterator[Connection]:
    with connect(dsn) as connection:
        yield connection


def traces(owner: Connection, pattern: str = "|".join(TRACES)) -> list[str]:
    """Tables with a row that has something of the person in it, whatever the column."""
    tables = owner.execute(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'shardd'::regnamespace AND c.relkind = 'r'"
    ).fetchall()
    return [
        table
        for (table,) in tables
        if owner.execute(f"SELECT 1 FROM shardd.{table} t WHERE t::text ~ %s LIMIT 1", [pattern]).fetchone()
    ]


async def know(dsn: str, database: Database, owner: Connection) -> dict[str, int]:
    """A person of whom every table knows something; returns their jobs."""
    add_devices(dsn, "d1")
    given = {
        "recipient": TO,
        "reference": "order of 6281234567890",
        "dedupe_key": "a 62 812-3456-7890",
        "body": "secret text",
    }
    (sent,) = insert_jobs(dsn, "d1", 1, metadata='{"name": "Adelheid"}', order_group=ADDRESS, **given)
    owner.execute(
        "SELECT shardd.end_jobs(%s, 'failed', 'wamid.6281234567890 is not on WhatsApp', 'recipient')", [[sent]]
    )
    owner.execute("UPDATE shardd.archive SET message_id = 'wamid.6281234567890'")
    (waits,) = insert_jobs(dsn, "d1", 1, recipient="0062 812 3456 7890", body="secret text", reference="order-2")
    message = Incoming(
        device_id="d1",
        message_id="A1",
        addresses=(HIDDEN, TO),
        at=NOON,
        text="secret text",
        name="Adelheid",
        quoted_id="x",
    )
    await Inbox(database).store([message], {})
    hidden_only = Incoming(device_id="d1", message_id="A2", addresses=(HIDDEN,), at=NOON, text="secret text")
    await Inbox(database).store([hidden_only], {})
    opt_outs = OptOuts(database)
    await opt_outs.store(OptedOut("d1", (TO, HIDDEN), "stop", NOON), None)
    await opt_outs.take_back(OptedOut("d1", (TO, HIDDEN), "start", NOON + 5), "secret text")
    await OptOutAdmin(database).add([NewOptOut(HIDDEN, "Adelheid")], source="operator", created_by="ada")
    owner.execute("INSERT INTO shardd.device_groups (id) VALUES ('g')")
    owner.execute("INSERT INTO shardd.contacts (device_group, address, device_id) VALUES ('g', %s, 'd1')", [ADDRESS])
    owner.execute(
        "INSERT INTO shardd.webhook_cursors (name, kinds, target, node, incarnation, expires_at) "
        "VALUES ('crm', '{*}', 'x', 'n', gen_random_uuid(), now())"
    )
    owner.execute(
        "INSERT INTO shardd.webhook_failures (name, id, event_id, at, kind, body, tries, error) "
        "SELECT 'crm', id, event_id, at, kind, jsonb_build_object('type', kind, 'data', data)::text, 9, 'HTTP 500' "
        "FROM shardd.all_events"
    )
    return {"sent": sent, "waits": waits}


async def test_nothing_of_the_person_is_left_and_what_others_have_stays(
    dsn: str, database: Database, owner: Connection
) -> None:
    jobs = await know(dsn, database, owner)
    (theirs,) = insert_jobs(dsn, "d1", 1, recipient=OTHER, body="for another", reference="order-3")
    events = owner.execute("SELECT count(*) FROM shardd.outbox").fetchall()
    assert {"jobs", "messages", "outbox", "same_person", "contacts", "webhook_failures", "opt_out_log"} <= set(
        traces(owner)
    )
    done = await Forgetting(database).forget([ADDRESS], created_by="ada")
    assert done.addresses == [ADDRESS, HIDDEN]
    assert (done.messages, done.in_flight) == (2, 0)
    assert traces(owner) == []
    assert row_of(dsn, theirs)["recipient"] == OTHER
    assert row_of(dsn, jobs["waits"])["state"] == "opted_out"
    assert row_of(dsn, jobs["waits"])["reference"] == "order-2", "a key of the producer without the number"
    assert row_of(dsn, jobs["sent"])["recipient"] == "forgotten"
    # The events are there, for readers that have not come so far.
    assert owner.execute("SELECT count(*) FROM shardd.outbox").fetchall() >= events
    assert (await Forgetting(database).forget([ADDRESS], created_by="ada")).jobs == 0


@pytest.mark.parametrize(
    ("address", "forms"),
    [
        ("525512345678", {"525512345678", "5215512345678", "5205512345678", "52015512345678"}),
        ("5491123456789", {"5491123456789", "541123456789", "54111523456789", "54112153456789", "54112315456789"}),
        ("5511987654321", {"5511987654321", "551187654321"}),
        ("2290197123456", {"2290197123456", "22997123456"}),
        ("6281234567890", {"6281234567890", "62081234567890"}),
    ],
)
async def test_a_number_is_looked_for_in_every_form(
    owner: Connection, database: Database, address: str, forms: set[str]
) -> None:
    (spellings,) = owner.execute("SELECT shardd.spellings(%s)", [[address]]).fetchone() or ([],)
    assert forms <= set(spellings)
    assert all(spelling.startswith(address[:2]) for spelling in spellings), "texts of others may have shorter numbers"
    (locally,) = owner.execute("SELECT shardd.spellings(%s, NULL)", [[address]]).fetchone() or ([],)
    assert len(locally) > len(spellings)
    # Each form means the person.
    for form in forms:
        read = owner.execute("SELECT address FROM shardd.read_number(%s)", [form]).fetchall()
        assert read in ([(address,)], [(None,)]) or form.startswith("54")


@pytest.mark.parametrize(
    ("numbers", "keys"),
    [
        (("+5215512345678", "5512345678", "+525512345678"), ["cust-5215512345678", "order 55 1234 5678", "5512345678"]),
        (("+5491123456789", "23456789", "+541123456789"), ["cust-541123456789", "011 15 2345-6789", "9 11 2345 6789"]),
        (("+5511987654321", "87654321", "+551187654321"), ["cust-551187654321", "(11) 98765-4321", "+55 11 8765-4321"]),
        (("+22997123456", "97123456", "+2290197123456"), ["cust-22997123456", "0197123456", "97 12 34 56"]),
        (("0812-3456-7890", "81234567890", "+6281234567890"), ["cust-081234567890", "a0812.3456.7890", "81234567890"]),
    ],
)
async def test_keys_have_the_number_in_another_form(
    dsn: str, database: Database, owner: Connection, numbers: tuple[str, str, str], keys: list[str]
) -> None:
    to, form, again = numbers
    add_devices(dsn, "d1")
    owner.execute(
        "INSERT INTO shardd.settings (name, value) VALUES ('default_codes', '{\"sandbox\": \"62\"}') "
        "ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"
    )
    (sent,) = insert_jobs(dsn, "d1", 1, recipient=to, reference=keys[0], dedupe_key=keys[1], order_group=keys[2])
    # No finished job says whose this event is: it is recognised by the recipient.
    (gone,) = insert_jobs(dsn, "d1", 1, recipient=to, reference=keys[0])
    owner.execute(
        "SELECT shardd.end_jobs(%s, 'failed', 'no such account: ' || %s, 'recipient')", [[sent, gone], keys[2]]
    )
    owner.execute("DELETE FROM shardd.archive WHERE id = %s", [gone])
    (theirs,) = insert_jobs(dsn, "d1", 1, recipient=OTHER, reference=f"friend of {keys[0]}")
    (address,) = [row[0] for row in owner.execute("SELECT address FROM shardd.archive WHERE id = %s", [sent])]
    done = await Forgetting(database).forget([address], created_by="ada")
    assert (done.jobs, done.addresses) == (1, [address])
    (new,) = insert_jobs(dsn, "d1", 1, recipient=again, reference=keys[0], dedupe_key=keys[1], order_group=keys[2])
    assert row_of(dsn, new)["state"] == "opted_out"
    # What others' jobs have of the person is not searched.
    assert row_of(dsn, theirs)["reference"] == f"friend of {keys[0]}"
    owner.execute("UPDATE shardd.jobs SET reference = NULL WHERE id = %s", [theirs])
    assert traces(owner, form) == []


async def test_a_reply_to_a_group_does_not_quote_them_any_more(dsn: str, database: Database, owner: Connection) -> None:
    add_devices(dsn, "d1")
    group = "120363041234567890@g.us"
    others = "111222333444@lid"
    for message_id, addresses in (("A1", (HIDDEN, TO)), ("A2", (TO,)), ("A3", (others,))):
        message = Incoming(
            device_id="d1",
            message_id=message_id,
            addresses=addresses,
            at=NOON,
            text=f"secret text {message_id}",
            group=group,
        )
        await Inbox(database).store([message], {})
    ids = [row[0] for row in owner.execute("SELECT id FROM shardd.messages ORDER BY id")]
    jobs = [
        row[0]
        for message in ids
        for _ in range(2)
        for row in owner.execute("INSERT INTO shardd.jobs (reply_to, body) VALUES (%s, 'ok') RETURNING id", [message])
    ]
    owner.execute("SELECT shardd.end_jobs(%s, 'failed', NULL, 'recipient')", [jobs[::2]])
    done = await Forgetting(database).forget([ADDRESS], created_by="ada")
    assert (done.messages, done.quotes, done.jobs, done.ended) == (2, 4, 0, 0)
    rows = [row_of(dsn, job) for job in jobs]
    assert [row["recipient"] for row in rows] == [group] * 6
    assert [row["state"] for row in rows] == ["failed", "queued"] * 3, "they are for the group"
    stored = "SELECT id, quote FROM shardd.jobs UNION ALL SELECT id, quote FROM shardd.archive"
    quotes = dict(owner.execute(stored).fetchall())
    assert [quotes[job] for job in jobs[:4]] == [{}] * 4
    assert [quotes[job]["sender"] for job in jobs[4:]] == [others] * 2
    assert traces(owner, "secret text A[12]|" + "|".join(TRACES[:2])) == []


async def test_states_of_devices_do_not_name_them(dsn: str, database: Database, owner: Connection) -> None:
    add_devices(dsn, "d1", "d2")
    for device, reason in (("d1", f"+{ADDRESS} is new (463)"), ("d2", f"{OTHER} is new (463)")):
        owner.execute(
            "UPDATE shardd.devices SET state = 'restricted', reason = %s, backoff_reason = %s WHERE id = %s",
            [reason, reason, device],
        )
    await Forgetting(database).forget([ADDRESS], created_by="ada")
    assert traces(owner) == []
    assert owner.execute("SELECT reason FROM shardd.devices ORDER BY id").fetchall() == [
        ("forgotten",),
        (f"{OTHER} is new (463)",),
    ]
    told = "SELECT detail ->> 'to', detail ->> 'reason' FROM shardd.outbox WHERE detail ->> 'to' = 'restricted' ORDER BY id"
    assert owner.execute(told).fetchall() == [("restricted", "forgotten"), ("restricted", f"{OTHER} is new (463)")]


async def test_messages_are_still_stopped_and_their_inserts_leave_no_trace(
    dsn: str, producer_dsn: str, database: Database, owner: Connection
) -> None:
    await know(dsn, database, owner)
    await Forgetting(database).forget([HIDDEN], created_by="ada")
    with connect(producer_dsn) as producer:
        for recipient in (TO, "+62 (0)812-3456-7890", HIDDEN):
            (row,) = producer.execute(
                "INSERT INTO shardd.jobs (device_id, recipient, body, metadata, reference, dedupe_key, order_group) "
                "VALUES ('d1', %s, 'secret text', '{\"name\": \"Adelheid\"}', 'order-9', %s, %s) RETURNING id",
                [recipient, f"for {recipient}", recipient],
            ).fetchall()
            job = row_of(dsn, row[0])
            assert (job["state"], job["recipient"], job["reference"]) == ("opted_out", "forgotten", "order-9")
    assert traces(owner) == []
    assert await OptOuts(database).opted_out([ADDRESS, HIDDEN, "6281100001"]) == {ADDRESS, HIDDEN}
    # Their STOP is in force already, and what is learned about them is not kept.
    opt_outs = OptOuts(database)
    assert not await opt_outs.store(OptedOut("d1", (TO,), "stop", NOON + 9), None)
    await opt_outs.learn([(ADDRESS, "111222333444@lid")])
    assert owner.execute("SELECT count(*) FROM shardd.same_person").fetchall() == [(0,)]
    assert await opt_outs.opted_out(["111222333444@lid"]) == {"111222333444@lid"}


async def test_another_name_of_theirs_that_a_platform_reports_is_forgotten_too(
    dsn: str, database: Database, owner: Connection
) -> None:
    """By the status of a message of an exempt class, which still reaches them."""
    add_devices(dsn, "d1")
    opt_outs = OptOuts(database)
    await opt_outs.configure(["service"], {})
    await Forgetting(database).forget([ADDRESS], created_by="ada")
    (job,) = insert_jobs(dsn, "d1", 1, recipient=TO, **{"class": "service"})
    owner.execute("SELECT shardd.end_jobs(%s, 'sent', NULL, NULL)", [[job]])
    owner.execute("UPDATE shardd.archive SET message_id = 'M1'")
    report = Receipt("d1", ["M1"], "delivered", NOON, addresses=("+6281234567891", TO))
    assert await Jobs(database).save_receipt(report) == 1
    assert owner.execute("SELECT count(*) FROM shardd.same_person").fetchall() == [(0,)]
    (marketing,) = insert_jobs(dsn, "d1", 1, recipient="+6281234567891")
    assert row_of(dsn, marketing)["state"] == "opted_out"


async def test_the_person_takes_it_back(dsn: str, database: Database, owner: Connection) -> None:
    add_devices(dsn, "d1")
    opt_outs = OptOuts(database)
    await opt_outs.learn([(ADDRESS, HIDDEN)])
    await Forgetting(database).forget([ADDRESS], created_by="ada")
    (now,) = owner.execute("SELECT extract(epoch FROM now())::double precision").fetchall()[0]
    assert await opt_outs.take_back(OptedOut("d1", (TO, HIDDEN), "start", now - 60), None) == []
    assert await Forgetting(database).since(ADDRESS) is not None
    assert len(await opt_outs.take_back(OptedOut("d1", (TO, HIDDEN), "start", now + 60), None)) == 2
    assert await Forgetting(database).since(ADDRESS) is None
    assert row_of(dsn, insert_jobs(dsn, "d1", 1, recipient=TO)[0])["state"] == "queued"


async def test_what_was_erased_cannot_be_sent_again(dsn: str, database: Database, owner: Connection) -> None:
    jobs = await know(dsn, database, owner)
    await Forgetting(database).forget([ADDRESS], created_by="ada")
    obstacles = owner.execute("SELECT obstacle FROM shardd.retries WHERE id = %s", [jobs["sent"]]).fetchall()
    assert obstacles == [("opted_out",)]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM shardd.pseudonym_key",
        "SELECT * FROM shardd.forgotten",
        "SELECT shardd.pseudonym('6281234567890')",
        "SELECT shardd.is_forgotten('6281234567890')",
        "DELETE FROM shardd.forgotten",
        "SELECT shardd.begin_forgetting('{6281234567890}', '{}', 'me')",
        "SELECT * FROM shardd.forgetting",
    ],
)
async def test_no_producer_reads_or_removes_a_pseudonym(producer_dsn: str, database: Database, statement: str) -> None:
    await Forgetting(database).forget([ADDRESS], created_by="ada")
    with connect(producer_dsn) as producer, pytest.raises(errors.InsufficientPrivilege):
        producer.execute(statement)


async def test_the_list_shows_them_as_forgotten(database: Database) -> None:
    await Forgetting(database).forget([ADDRESS], created_by="ada")
    (shown,) = await OptOutAdmin(database).newest(10)
    assert (shown.source, shown.recipient, shown.created_by) == ("forgotten", "forgotten", "ada")
    assert ADDRESS not in shown.address


class InterruptedHereError(Exception):
    """The operator's Ctrl-C, or the end of the connection."""


class Interrupting:
    """Interrupts the work after so many of its transactions."""

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self.progress = Progress()

    def __call__(self, progress: Progress) -> None:
        self.progress, self.parts = progress, self.parts - 1
        if self.parts < 0:
            raise InterruptedHereError


async def test_whoever_interrupts_it_is_told_what_is_left_and_the_next_one_continues(
    dsn: str, database: Database, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each of its transactions: the rows that connect two addresses of a person are not erased before all others."""
    monkeypatch.setattr(forgetting, "CHUNK", 2)
    monkeypatch.setattr(forgetting, "IDLE", 0.0)
    jobs = await know(dsn, database, owner)
    (theirs,) = insert_jobs(dsn, "d1", 1, recipient=OTHER, body="for another", reference="order-3")
    work = Forgetting(database)
    for parts in range(100):
        report = Interrupting(parts)
        try:
            # Nobody has to name them again.
            named = [] if await work.unfinished() else [ADDRESS]
            await work.forget(named, created_by="ada", report=report)
            break
        except InterruptedHereError:
            unfinished = await work.unfinished()
            assert bool(unfinished) == (await work.interrupted() is not None)
            if report.progress.stopped and report.progress.remaining:
                assert {ADDRESS, HIDDEN} <= set(unfinished)
                since = await work.since(ADDRESS)
                assert since is not None
                assert not since.erased
                assert await OptOuts(database).opted_out([ADDRESS, HIDDEN]) == {ADDRESS, HIDDEN}
    assert 15 < parts < 99
    assert (traces(owner), await work.unfinished(), await work.interrupted()) == ([], [], None)
    assert row_of(dsn, theirs)["recipient"] == OTHER
    assert row_of(dsn, jobs["sent"])["recipient"] == "forgotten"


async def test_who_took_it_back_meanwhile_is_not_forgotten_again(
    dsn: str, database: Database, owner: Connection
) -> None:
    await know(dsn, database, owner)

    def stop(progress: Progress) -> None:
        if progress.stopped:
            raise InterruptedHereError

    with pytest.raises(InterruptedHereError):
        await Forgetting(database).forget([ADDRESS], created_by="ada", report=stop)
    (now,) = owner.execute("SELECT extract(epoch FROM now())::double precision").fetchall()[0]
    await OptOuts(database).take_back(OptedOut("d1", (TO, HIDDEN), "start", now + 60), None)
    await OptOuts(database).store(OptedOut("d1", (HIDDEN,), "stop", now + 70), None)
    assert await Forgetting(database).unfinished() == []
    await Forgetting(database).forget(["6281100001"], created_by="ada")
    assert await Forgetting(database).since(ADDRESS) is None
    assert HIDDEN in await OptOuts(database).opted_out([HIDDEN]), "the later opt-out holds"
