"""What follows when a device of a recipient cannot decrypt a message: a new job, or a report."""

from __future__ import annotations

from typing import Any

import pytest

from shardd.ipc import Receipt
from shardd.queue.cycle import Settlement
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.queue.jobs import Counts, Jobs
from shardd.queue.records import ClaimRequest
from shardd.supervisor.scheduling.device_queue import FIRST_POSITION
from tests.support.queue_rows import (
    add_campaigns,
    add_devices,
    add_group,
    claim,
    connect,
    finish,
    insert_jobs,
    row_of,
    states,
    take_epoch,
)

RESENT = "the phone of the recipient could not decrypt it; sent again as job "
REPORTED = "the phone of the recipient could not decrypt it; not sent again: "


class Sender:
    """Sends jobs of a device in a database, and receives receipts."""

    def __init__(self, dsn: str, jobs: Jobs, epoch: int) -> None:
        self.dsn = dsn
        self.jobs = jobs
        self.epoch = epoch

    async def sent(self, message_id: str, lane: str = "/marketing", **fields: Any) -> int:
        (job,) = insert_jobs(self.dsn, fields.pop("device", "a"), **fields)
        assert await self.send(message_id, lane) == job
        return job

    async def send(self, message_id: str, lane: str = "/marketing") -> int:
        """Send the next job."""
        (its_claim,) = await claim(self.jobs, self.epoch, "a", lane=lane)
        await self.jobs.cycle(finish(its_claim, message_id=message_id), [])
        return its_claim.id

    async def receipt(self, kind: str, message_id: str, *, by: int = 0) -> int:
        # WhatsApp keeps it for weeks: that a phone asked long ago does not make it old news.
        return await self.jobs.save_receipt(Receipt("a", [message_id], kind, 100.0, by=by))

    async def decide(self, policy: str = "resend", max_resends: int = 2) -> list[tuple[int, int | None]]:
        """Let the delay be over, and decide."""
        with connect(self.dsn) as connection:
            connection.execute("UPDATE shardd.archive SET resend_at = now() WHERE resend_at IS NOT NULL")
        return [(one.id, one.resent_as) for one in await self.jobs.resend_unreadable(policy, max_resends, 100)]

    def row(self, job: int) -> dict[str, Any]:
        return row_of(self.dsn, job)

    def columns(self, job: int, *names: str) -> tuple[Any, ...]:
        """Of the table in which the job is."""
        with connect(self.dsn) as connection:
            rows = connection.execute(
                f"SELECT {', '.join(names)} FROM shardd.jobs WHERE id = %s "
                f"UNION ALL SELECT {', '.join(names)} FROM shardd.archive WHERE id = %s",
                [job, job],
            ).fetchall()
        return tuple(rows[0])


@pytest.fixture
async def sender(dsn: str, database: Database) -> Sender:
    add_devices(dsn, "a", "b")
    return Sender(dsn, Jobs(database), await take_epoch(database))


async def test_a_new_job_sends_the_same_message_on_the_same_device_in_no_order_group(dsn: str, sender: Sender) -> None:
    add_campaigns(dsn, "c1")
    content = {
        "recipient": "+6281234567", "kind": "image", "body": "hello {name}", "media": "https://example.com/a.png",
        "file_name": "a.png", "mime_type": "image/png", "class": "service", "campaign": "c1", "priority": 7,
        "max_attempts": 3, "on_doubt": "retry", "reference": "order-7",
    }  # fmt: skip
    (job,) = insert_jobs(
        dsn, "a", **content, variables='{"name": "Ada"}', metadata='{"n": 1}', dedupe_key="k1", order_group="g1",
        run_at="2026-01-01 00:00:00+00", expires_at="2099-01-01 00:00:00+00", on_unreadable="resend",
    )  # fmt: skip
    await sender.send("M1", "c1/service")
    assert await sender.receipt("unreadable", "M1") == 1
    assert await sender.jobs.resend_unreadable("report", 2, 100) == [], "another receipt may follow"
    assert sender.row(job)["unreadable_at"] is not None
    ((decided, child),) = await sender.decide("report")
    assert decided == job
    assert child is not None
    row = sender.row(job)
    assert (row["state"], row["resent_as"], row["unreadable_why"]) == ("sent", child, f"{RESENT}{child}")
    assert row["message_id"] == "M1"
    same = (
        *content,
        "variables",
        "metadata",
        "device_id",
        "producer",
        "run_at",
        "expires_at",
        "on_unreadable",
        "rendered",
    )
    assert sender.columns(child, *same) == sender.columns(job, *same)
    assert sender.columns(child, "body") == ("hello Ada",)
    assert sender.columns(child, "resend_of", "resends", "dedupe_key", "order_group") == (job, 1, None, None)
    # It is a job like any other, which the same node can send now.
    assert await sender.send("M2", "c1/service") == child
    assert sender.row(child)["state"] == "sent"


async def test_however_often_a_phone_asks_one_job_sends_it_again(dsn: str, sender: Sender) -> None:
    job = await sender.sent("M1")
    for _ in range(3):
        await sender.receipt("unreadable", "M1")
    ((_, child),) = await sender.decide()
    heard_at = sender.row(job)["unreadable_at"]
    assert await sender.receipt("unreadable", "M1") == 1
    assert await sender.decide() == []
    assert states(dsn) == {job: "sent", child: "queued"}
    assert sender.row(job)["unreadable_at"] == heard_at


async def test_two_nodes_that_decide_at_once_make_one_job(dsn: str, sender: Sender) -> None:
    await sender.sent("M1")
    await sender.receipt("unreadable", "M1")
    statement = "SELECT resent_as FROM shardd.resend_unreadable('resend', 2, 10)"
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.archive SET resend_at = now()")
    with connect(dsn) as first, connect(dsn) as second:
        first.autocommit = second.autocommit = False
        assert len(first.execute(statement).fetchall()) == 1
        assert second.execute(statement).fetchall() == []
        second.rollback()
        first.rollback()
        # The first node died before its commit: nothing is lost, and nothing is there twice.
        assert len(second.execute(statement).fetchall()) == 1
        second.commit()
    assert sorted(states(dsn).values()) == ["queued", "sent"]


async def test_the_job_that_sends_it_again_may_be_unreadable_too_up_to_a_limit(sender: Sender) -> None:
    first = await sender.sent("M1")
    await sender.receipt("unreadable", "M1")
    ((_, second),) = await sender.decide()
    await sender.send("M2")
    await sender.receipt("unreadable", "M2")
    ((_, third),) = await sender.decide()
    await sender.send("M3")
    await sender.receipt("unreadable", "M3")
    assert await sender.decide() == [(third, None)]
    row = sender.row(third or 0)
    assert (row["resend_of"], row["unreadable_why"]) == (second, f"{REPORTED}it was sent 3 times")
    assert sender.row(first)["resent_as"] == second


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        ("SELECT", "on_unreadable is report"),
        ("UPDATE shardd.archive SET delivered_at = now()", "another device of the recipient has it"),
        ("UPDATE shardd.archive SET read_at = now()", "another device of the recipient has it"),
        ("UPDATE shardd.archive SET expires_at = now()", "its expires_at has passed"),
        ("INSERT INTO shardd.opt_outs (recipient) VALUES ('+6281234567')", "the recipient opted out"),
        ("UPDATE shardd.archive SET confirms = true", "the recipient opted out"),
        ("UPDATE shardd.archive SET state = 'failed'", "it is failed"),
        ("UPDATE shardd.devices SET removed_at = now()", "device_id 'a' is removed"),
        ("UPDATE shardd.campaigns SET state = 'cancelled'", "campaign 'c1' is cancelled"),
    ],
)
async def test_what_must_not_be_sent_again_is_reported(dsn: str, sender: Sender, prepare: str, why: str) -> None:
    add_campaigns(dsn, "c1")
    job = await sender.sent("M1", "c1/marketing", campaign="c1")
    await sender.receipt("unreadable", "M1")
    with connect(dsn) as connection:
        connection.execute(prepare)
    assert await sender.decide("report" if "report" in why else "resend") == [(job, None)]
    assert sender.row(job)["unreadable_why"] == REPORTED + why
    assert list(states(dsn)) == [job]
    # The next receipt changes nothing.
    await sender.receipt("unreadable", "M1")
    await sender.decide("report" if "report" in why else "resend")
    assert sender.row(job)["unreadable_why"] == REPORTED + why


async def test_the_policy_of_a_job_takes_precedence(sender: Sender) -> None:
    job = await sender.sent("M1", on_unreadable="report")
    await sender.receipt("unreadable", "M1")
    assert await sender.decide("resend") == [(job, None)]


async def test_an_opt_out_stops_it_whatever_its_class_and_until_the_last_moment(dsn: str, sender: Sender) -> None:
    with connect(dsn) as connection:
        connection.execute(
            "INSERT INTO shardd.settings VALUES ('opt_outs.exempt', '[\"service\"]') "
            "ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"
        )
    await sender.sent("M1", "/service", **{"class": "service"})
    await sender.receipt("unreadable", "M1")
    ((_, child),) = await sender.decide()
    with connect(dsn) as connection:
        connection.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+6281234567')")
    (original,) = insert_jobs(dsn, "a", **{"class": "service"})
    cycle = await sender.jobs.cycle(Settlement(), [ClaimRequest("a", "/service", sender.epoch, FIRST_POSITION, 5)])
    assert {one.claim.id: (one.opted_out, one.spec.heeds_opt_outs) for one in cycle.claimed} == {
        child: (True, True), original: (False, False),
    }  # fmt: skip


async def test_a_job_of_a_device_group_stays_with_the_device_that_wrote(dsn: str, sender: Sender) -> None:
    add_group(dsn, "crew", "a", "b")
    (job,) = insert_jobs(dsn, None, device_group="crew")  # type: ignore[arg-type] # it gets its device later
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.jobs SET device_id = 'a'")
    assert await sender.send("M1") == job
    await sender.receipt("unreadable", "M1")
    ((_, child),) = await sender.decide()
    assert child is not None
    assert sender.columns(child, "device_id", "device_group") == ("a", None)


@pytest.mark.parametrize(
    ("recipient", "by", "why"),
    [
        ("+6281234567", 3, "linked device 3 of the recipient could not decrypt it"),
        ("120363041234567890@g.us", 0, "a member of the group could not decrypt it"),
    ],
)
async def test_a_linked_device_and_a_group_are_reported(sender: Sender, recipient: str, by: int, why: str) -> None:
    job = await sender.sent("M1", recipient=recipient)
    assert await sender.receipt("unreadable", "M1", by=by) == 1
    assert await sender.decide() == []
    assert sender.row(job)["unreadable_why"] == why


async def test_a_phone_that_asks_after_its_linked_device_gets_the_message_again(sender: Sender) -> None:
    await sender.sent("M1")
    await sender.receipt("unreadable", "M1", by=3)
    await sender.receipt("unreadable", "M1", by=0)
    ((_, child),) = await sender.decide()
    assert child is not None


async def test_a_receipt_finds_only_a_sent_message_of_its_device(dsn: str, sender: Sender) -> None:
    assert await sender.receipt("unreadable", "M1") == 0, "not settled yet"
    await sender.sent("M1")
    assert await sender.jobs.save_receipt(Receipt("b", ["M1"], "unreadable", 100.0)) == 0
    assert await sender.receipt("unreadable", "written on the phone itself") == 0
    assert await sender.decide() == []


@pytest.mark.parametrize("kind", ["delivered", "read"])
async def test_a_message_that_is_delivered_after_all_is_not_sent_again(dsn: str, sender: Sender, kind: str) -> None:
    job = await sender.sent("M1")
    await sender.receipt("unreadable", "M1")
    ((_, child),) = await sender.decide()
    assert await sender.receipt(kind, "M1") == 1
    row = sender.row(child or 0)
    assert (row["state"], row["error"]) == (
        "cancelled", f"the message of job {job}, which it repeats, was delivered after all",
    )  # fmt: skip
    assert await sender.receipt(kind, "M1") == 1


async def test_a_receipt_does_not_end_a_job_that_is_in_flight(dsn: str, sender: Sender) -> None:
    await sender.sent("M1")
    await sender.receipt("unreadable", "M1")
    ((_, child),) = await sender.decide()
    await claim(sender.jobs, sender.epoch, "a")
    await sender.receipt("delivered", "M1")
    assert sender.row(child or 0)["state"] == "sending"


async def test_an_event_tells_of_each_decision_with_both_ids(dsn: str, sender: Sender) -> None:
    job = await sender.sent("M1")
    reported = await sender.sent("M2", on_unreadable="report")
    for message_id in ("M1", "M1", "M2"):
        await sender.receipt("unreadable", message_id)
    decided = dict(await sender.decide())
    await sender.send("M3")
    with connect(dsn) as connection:
        events = connection.execute(
            "SELECT kind, job_id, data ->> 'resent_as', data ->> 'resend_of', data ->> 'message_id', "
            "data ->> 'unreadable_why' FROM shardd.events WHERE job_id IS NOT NULL ORDER BY id"
        ).fetchall()
    child = decided[job]
    assert events == [
        ("job.sent", job, None, None, "M1", None),
        ("job.sent", reported, None, None, "M2", None),
        ("job.unreadable", job, str(child), None, "M1", f"{RESENT}{child}"),
        ("job.unreadable", reported, None, None, "M2", f"{REPORTED}on_unreadable is report"),
        ("job.sent", child, None, str(job), "M3", None),
    ]


async def test_they_are_counted_for_a_day_and_listed(dsn: str, database: Database, sender: Sender) -> None:
    for message_id, policy in (("M1", "resend"), ("M2", "report"), ("M3", "report")):
        await sender.sent(message_id, on_unreadable=policy)
    unread = await sender.sent("M4")
    await sender.decide()
    for message_id in ("M1", "M2", "M3"):
        await sender.receipt("unreadable", message_id)
    await sender.decide()
    assert await Counts(database).unreadable() == {"unreadable": 3, "resent": 1}
    with connect(dsn) as connection:
        connection.execute(
            "UPDATE shardd.archive SET unreadable_at = now() - interval '25 hours' WHERE message_id = 'M2'"
        )
    assert await Counts(database).unreadable() == {"unreadable": 2, "resent": 1}
    listed = await JobAdmin(database).newest(10, Traits(), unreadable=True)
    assert len(listed) == 3
    assert unread not in {row.id for row in listed}
