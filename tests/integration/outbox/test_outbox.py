"""The outbox: what writes an event, its content, and that a reader misses none, whatever the order of commits."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg import errors

from shardd.config import EventsConfig
from shardd.event_kinds import EventKind
from shardd.queue.database import Database
from shardd.queue.events import Events
from shardd.queue.jobs import Jobs
from shardd.queue.webhooks import WebhookAdmin
from shardd.states import JobState
from shardd.supervisor.outbox.upkeep import EventUpkeep
from tests.support.queue_rows import add_devices, claim, connect, finish, insert_jobs, take_epoch

Connection = psycopg.Connection[Any]
END = "SELECT shardd.end_jobs(array[%s]::bigint[], %s, 'because', 'cancelled')"


def read(
    connection: Connection, after: str | None = None, most: int = 100, kinds: list[str] | None = None
) -> list[Any]:
    """Rows of (position, id, kind, job, data)."""
    return connection.execute(
        "SELECT position, id, kind, job_id, data FROM shardd.read_events(%s, %s, %s)", [after, most, kinds]
    ).fetchall()


def kinds_of(connection: Connection, job: int) -> list[str]:
    return [kind for _, _, kind, about, _ in read(connection) if about == job]


@pytest.fixture
def owner(dsn: str) -> Iterator[Connection]:
    add_devices(dsn, "a")
    with connect(dsn) as connection:
        yield connection


async def test_a_sent_job_tells_a_program_all_that_it_needs(owner: Connection, dsn: str, database: Database) -> None:
    owner.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring')")
    (job,) = insert_jobs(dsn, "a", campaign="spring", reference="order-7", metadata=json.dumps({"cart": [1, None]}))
    jobs = Jobs(database)
    (claimed,) = await claim(jobs, await take_epoch(database), "a", lane="spring/marketing")
    await jobs.cycle(finish(claimed, JobState.SENT, "3EB0"), [])

    (_, _, _, _, device), (position, number, kind, about, data) = read(owner)
    assert (kind, about) == (EventKind.JOB_SENT, job)
    for name in ("created_at", "run_at", "settled_at"):
        assert data[name].endswith("Z")
        assert datetime.fromisoformat(data.pop(name)).tzinfo is not None
    assert data == {
        "job_id": job, "reference": "order-7", "recipient": "+6281234567", "device_id": "a", "device_group": None,
        "campaign": "spring", "class": "marketing", "kind": "text", "state": "sent", "message_id": "3EB0", "error": None,
        "error_class": None, "metadata": {"cart": [1, None]}, "attempt": 1, "failures": 0, "delivered_at": None,
        "read_at": None, "resend_of": None, "unreadable_at": None, "unreadable_why": None, "resent_as": None, "revokes": None,
        "members_without_keys": None,
    }  # fmt: skip
    assert device == {
        "device_id": "a", "transport": "sandbox", "label": None, "from": None, "to": "ready", "state": "ready",
        "reason": None, "until": None,
    }  # fmt: skip
    assert read(owner, position) == []
    assert owner.execute("SELECT kind, reference, campaign FROM shardd.events WHERE id = %s", [number]).fetchall() == [
        ("job.sent", "order-7", "spring")
    ]


@pytest.mark.parametrize("state", ["failed", "cancelled", "in_doubt", "expired", "opted_out"])
def test_every_other_end_is_an_event(owner: Connection, dsn: str, state: str) -> None:
    (job,) = insert_jobs(dsn, "a")
    owner.execute(END, [job, state])
    (_, _, kind, _, data) = read(owner)[-1]
    assert (kind, data["state"], data["error"]) == (f"job.{state}", state, "because")
    assert kind in list(EventKind)


def test_receipts_are_events_once_and_reading_implies_delivery(owner: Connection, dsn: str) -> None:
    one, two = insert_jobs(dsn, "a", 2)
    for job in (one, two):
        owner.execute(END, [job, "sent"])
    news = "UPDATE shardd.archive SET delivered_at = {0}, read_at = {1} WHERE id = %s"
    for delivered, seen in (
        ("now()", "NULL"),
        ("now() - interval '1s'", "NULL"),
        ("now()", "now()"),
        ("now()", "now()"),
    ):
        owner.execute(news.format(delivered, seen), [one])
    owner.execute(news.format("now()", "now()"), [two])
    assert kinds_of(owner, one) == ["job.sent", "job.delivered", "job.read"]
    assert kinds_of(owner, two) == ["job.sent", "job.delivered", "job.read"]
    data = read(owner)[-1][4]
    assert data["delivered_at"] is not None
    assert data["read_at"] is not None


def test_a_resolved_doubt_and_a_later_failure_are_events(owner: Connection, dsn: str) -> None:
    (job,) = insert_jobs(dsn, "a")
    owner.execute(END, [job, "in_doubt"])
    owner.execute("UPDATE shardd.archive SET state = 'sent' WHERE id = %s", [job])
    owner.execute("UPDATE shardd.archive SET state = 'failed', error = 'no such number' WHERE id = %s", [job])
    assert kinds_of(owner, job) == ["job.in_doubt", "job.sent", "job.failed"]
    assert read(owner)[-1][4]["error"] == "no such number"


def test_a_retry_is_an_event_and_retention_is_not(owner: Connection, dsn: str) -> None:
    old, back = insert_jobs(dsn, "a", 2)
    for job in (old, back):
        owner.execute(END, [job, "failed"])
    owner.execute("DELETE FROM shardd.archive WHERE id = %s", [old])
    owner.execute(
        "WITH back AS (DELETE FROM shardd.archive WHERE id = %s RETURNING *) "
        "INSERT INTO shardd.jobs (id, device_id, recipient, body) OVERRIDING SYSTEM VALUE "
        "SELECT id, device_id, recipient, body FROM back",
        [back],
    )
    assert kinds_of(owner, old) == ["job.failed"]
    assert kinds_of(owner, back) == ["job.failed", "job.retried"]
    assert read(owner)[-1][4]["state"] == "queued"


def test_a_changed_device_state_is_an_event_and_nothing_else_is(owner: Connection) -> None:
    for change in (
        "state = 'banned', reason = 'spam', state_until = '2030-01-02 03:04:05+00'",
        "reason = 'spam, still'",
        "label = 'Bandung'",
        "paused_at = now(), paused_why = 'holiday'",
        "state = 'ready', reason = NULL, state_until = NULL",
        "paused_at = NULL, paused_why = NULL",
        "removed_at = now()",
    ):
        owner.execute(f"UPDATE shardd.devices SET {change} WHERE id = 'a'")
    told = [(d["from"], d["to"], d["state"], d["reason"], d["until"]) for *_, d in read(owner, kinds=["device.state"])]
    assert told == [
        (None, "ready", "ready", None, None),
        ("ready", "banned", "banned", "spam", "2030-01-02T03:04:05.000000Z"),
        ("banned", "paused", "banned", "holiday", None),
        ("paused", "paused", "ready", "holiday", None),
        ("paused", "ready", "ready", None, None),
        ("ready", "removed", "ready", None, None),
    ]


def test_kinds_are_patterns_whose_underscore_is_itself(owner: Connection, dsn: str) -> None:
    (job,) = insert_jobs(dsn, "a")
    for state in ("failed", "in_doubt"):
        owner.execute("DELETE FROM shardd.archive")
        owner.execute(
            "INSERT INTO shardd.jobs (id, device_id, recipient, body) OVERRIDING SYSTEM VALUE "
            "VALUES (%s, 'a', '+628123456', 'x') ON CONFLICT DO NOTHING",
            [job],
        )
        owner.execute(END, [job, state])
    found = {
        kinds: [row[2] for row in read(owner, kinds=kinds.split())]
        for kinds in ("job.*", "job.in_doubt", "job.in*", "job_failed", "*", "device.state job.failed")
    }
    assert found == {
        "job.*": ["job.failed", "job.in_doubt"],
        "job.in_doubt": ["job.in_doubt"],
        "job.in*": ["job.in_doubt"],
        "job_failed": [],
        "*": ["device.state", "job.failed", "job.in_doubt"],
        "device.state job.failed": ["device.state", "job.failed"],
    }


def test_nothing_is_missed_when_transactions_commit_out_of_order(owner: Connection, dsn: str) -> None:
    first, second, third = insert_jobs(dsn, "a", 3)
    begin = owner.execute("SELECT shardd.events_end()").fetchone()[0]  # type: ignore[index]  # it has a row
    with connect(dsn) as early, connect(dsn) as late:
        early.execute("BEGIN")
        early.execute(END, [first, "sent"])  # the lower id
        late.execute("BEGIN")
        late.execute(END, [second, "sent"])
        late.execute("COMMIT")
        # A reader that went by ids would see the second now, and never the first.
        assert read(owner, begin) == []
        assert owner.execute("SELECT job_id FROM shardd.events WHERE job_id > 0").fetchall() == [(second,)]
        early.execute("COMMIT")
        rows = read(owner, begin)
        assert [row[3] for row in rows] == [first, second]
        early.execute("BEGIN")
        early.execute(END, [third, "sent"])
        early.execute("ROLLBACK")
    assert read(owner, rows[-1][0]) == []


def test_a_reader_beside_many_writers_sees_each_event_once(owner: Connection, dsn: str) -> None:
    writers, each = 6, 40
    ids = insert_jobs(dsn, "a", writers * each)
    begin = owner.execute("SELECT shardd.events_end()").fetchone()[0]  # type: ignore[index]  # it has a row

    def write(mine: list[int]) -> None:
        with connect(dsn) as connection:
            for index, job in enumerate(mine):
                connection.execute("BEGIN")
                connection.execute(END, [job, "sent"])
                connection.execute("SELECT pg_sleep(random() * 0.004)")  # so that commits overtake each other
                connection.execute("ROLLBACK" if index % 5 == 4 else "COMMIT")

    threads = [threading.Thread(target=write, args=(ids[n::writers],)) for n in range(writers)]
    for thread in threads:
        thread.start()
    seen: list[int] = []
    after = begin
    while True:
        # Also the server's own transactions, such as an ANALYZE, hold events back; the last ones wait for their end.
        ended = not any(thread.is_alive() for thread in threads) and len(seen) >= writers * each * 4 // 5
        rows = read(owner, after, 7)
        seen += [row[3] for row in rows]
        after = rows[-1][0] if rows else after
        if ended and not rows:
            break
    committed = [row[0] for row in owner.execute("SELECT id FROM shardd.archive").fetchall()]
    assert sorted(seen) == sorted(committed)
    assert len(committed) == writers * each * 4 // 5


def test_a_restored_copy_delivers_what_its_counter_has_not_reached(owner: Connection, dsn: str) -> None:
    ids = insert_jobs(dsn, "a", 3)
    for job in ids:
        owner.execute(END, [job, "sent"])
    owner.execute("SELECT set_config('shardd.maintains_outbox', 'yes', false)")
    owner.execute("UPDATE shardd.outbox SET xid = '900000000000000' WHERE job_id IS NOT NULL")
    owner.execute("SELECT set_config('shardd.maintains_outbox', '', false)")
    owner.execute(
        "INSERT INTO shardd.webhook_cursors (name, xid, id, kinds, target, node, incarnation, expires_at) "
        "SELECT 'crm', xid, id, '{*}', '', 'n', gen_random_uuid(), now() FROM shardd.outbox WHERE job_id = %s",
        [ids[0]],
    )
    assert [row[3] for row in read(owner)] == [None]
    assert owner.execute("SELECT shardd.reposition_restored_events()").fetchone() == (3,)
    assert owner.execute("SELECT shardd.reposition_restored_events()").fetchone() == (0,)
    assert {row[3] for row in read(owner)} == {None, *ids}
    (cursor,) = owner.execute("SELECT xid || '-' || id FROM shardd.webhook_cursors").fetchall()[0]
    assert [row[3] for row in read(owner, cursor)][:2] == ids[1:]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param("'900000000000000'", id="far away"),
        # Plus one: the UPDATE takes a number itself.
        pytest.param("(pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1)::text::xid8", id="the next one"),
    ],
)
async def test_a_restored_copy_is_not_reported_as_held_back(owner: Connection, dsn: str, number: str) -> None:
    """Its events wait for a transaction of the server that was dumped, whose number this one has not given yet."""
    (job,) = insert_jobs(dsn, "a", 1)
    owner.execute(END, [job, "sent"])
    owner.execute("SELECT set_config('shardd.maintains_outbox', 'yes', false)")
    owner.execute(f"UPDATE shardd.outbox SET xid = {number}, at = at - interval '1 hour' WHERE job_id IS NOT NULL")
    async with Database(dsn) as database:
        upkeep = EventUpkeep(Events(database), WebhookAdmin(database), EventsConfig)
        await upkeep.check()
        assert list(upkeep.problems()) == []
        await upkeep.purge()
    assert job in {row[3] for row in read(owner)}


def test_an_event_id_is_not_used_again_when_a_restored_copy_issues_the_same_numbers(
    owner: Connection, dsn: str
) -> None:
    """Receivers keep the ids of a database's events from before it was restored, and those of other databases."""
    first, second = insert_jobs(dsn, "a", 2)
    owner.execute(END, [first, "sent"])
    (number, before) = owner.execute("SELECT id, event_id FROM shardd.events WHERE job_id = %s", [first]).fetchall()[0]
    owner.execute("SELECT set_config('shardd.maintains_outbox', 'yes', false)")
    owner.execute("DELETE FROM shardd.outbox")  # as in a backup that was made before the first job ended
    owner.execute("SELECT set_config('shardd.maintains_outbox', '', false)")
    owner.execute(f"ALTER TABLE shardd.outbox ALTER COLUMN id RESTART WITH {number}")
    owner.execute(END, [second, "sent"])
    (again, after) = owner.execute("SELECT id, event_id FROM shardd.events WHERE job_id = %s", [second]).fetchall()[0]
    assert (number, before.rpartition("_")[0]) == (again, after.rpartition("_")[0])
    assert before != after
    assert [row[-1] for row in owner.execute("SELECT * FROM shardd.read_events()").fetchall()] == [after]


@pytest.mark.parametrize("position", ["", "7", "x-1", "1-", "-1-1", "1-1; DROP", "99999999999999999-1"])
def test_an_invalid_position_is_refused_with_a_fix(owner: Connection, position: str) -> None:
    with pytest.raises(errors.InvalidParameterValue) as caught:
        read(owner, position)
    assert repr(position)[1:-1] in (caught.value.diag.message_primary or "")
    assert "NULL" in (caught.value.diag.message_hint or "")


def test_old_and_surplus_events_go_in_chunks_and_webhooks_learn_what_they_miss(owner: Connection, dsn: str) -> None:
    for job in insert_jobs(dsn, "a", 10):
        owner.execute(END, [job, "sent"])
    owner.execute(
        "INSERT INTO shardd.webhook_cursors (name, xid, id, kinds, target, node, incarnation, expires_at) "
        "SELECT name, '0', 0, kinds::text[], '', 'n', gen_random_uuid(), now() "
        "  FROM (VALUES ('all', '{*}'), ('jobs', '{job.*}'), ('other', '{job.read}')) v(name, kinds)"
    )
    purge = "SELECT shardd.purge_events(%s, %s, 4)"
    assert owner.execute(purge, ["7d", 100]).fetchone() == (0,)
    counts: list[int] = []
    while counts[-1:] != [0]:
        counts.append(owner.execute(purge, ["7d", 5]).fetchone()[0])  # type: ignore[index]  # it has a row
    assert counts == [4, 2, 0]
    assert len(read(owner)) == 5
    missed = dict(owner.execute("SELECT name, missed FROM shardd.webhook_cursors").fetchall())
    assert missed == {"all": 6, "jobs": 5, "other": 0}
    assert owner.execute(purge, ["0", 100]).fetchone() == (4,)
    assert owner.execute(purge, ["0", 100]).fetchone() == (1,)
    assert read(owner) == []


@pytest.mark.parametrize(
    "statement", ["UPDATE shardd.outbox SET kind = 'x'", "DELETE FROM shardd.outbox", "TRUNCATE shardd.outbox"]
)
def test_events_are_append_only(owner: Connection, statement: str) -> None:
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="cannot be changed or deleted"):
        owner.execute(statement)
    # Nor does a purge open the door for what follows it in its transaction.
    owner.execute("BEGIN")
    owner.execute("SELECT shardd.purge_events('7d', 100, 10)")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="cannot be changed or deleted"):
        owner.execute(statement)


def test_keep_0_writes_nothing(owner: Connection, dsn: str) -> None:
    owner.execute("INSERT INTO shardd.settings (name, value) VALUES ('events.keep', '0')")
    before = read(owner)
    (job,) = insert_jobs(dsn, "a")
    owner.execute(END, [job, "in_doubt"])
    owner.execute("UPDATE shardd.archive SET state = 'sent', delivered_at = now()")
    owner.execute("UPDATE shardd.devices SET state = 'banned'")
    assert read(owner) == before


def test_a_producer_reads_events_and_hears_of_them_but_writes_none(
    owner: Connection, dsn: str, producer_dsn: str
) -> None:
    with connect(producer_dsn) as producer:
        producer.execute("LISTEN shardd_events")
        (job,) = producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('a', '+628123456', 'x') RETURNING id"
        ).fetchone()  # type: ignore[misc]  # RETURNING has a row
        owner.execute(END, [job, "sent"])
        assert [note.channel for note in producer.notifies(timeout=30, stop_after=1)] == ["shardd_events"]
        assert read(producer)[-1][2:4] == ("job.sent", job)
        assert producer.execute("SELECT kind FROM shardd.events WHERE job_id = %s", [job]).fetchall() == [("job.sent",)]
        for statement in (
            "SELECT * FROM shardd.outbox",
            "INSERT INTO shardd.outbox (kind) VALUES ('job.sent')",
            "INSERT INTO shardd.events (kind) VALUES ('job.sent')",
            "DELETE FROM shardd.events",
            "SELECT shardd.purge_events('0', 0, 1)",
            "SELECT shardd.reposition_restored_events()",
            "SELECT * FROM shardd.webhook_cursors",
            "SELECT * FROM shardd.webhook_failures",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                producer.execute(statement)
