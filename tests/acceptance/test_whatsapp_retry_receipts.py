"""A phone that cannot decrypt a message asks for it: the open client answers, and otherwise a new job sends it again."""

from __future__ import annotations

import base64
import re
from typing import Any

import psycopg
import pytest

from tests.fixtures.whatsapp_fleet import Fleet, Phone
from tests.support.command import Command
from tests.support.daemon import Daemon

CLOSES_SOON = {"whatsapp": {"idle_close": "1s", "probe_after": "1s", "linger": "0", "visit_every": "never"}}
RESENT = "the phone of the recipient could not decrypt it; sent again as job "
REPORTED = "the phone of the recipient could not decrypt it; not sent again: "


def insert(fleet: Fleet, phone: Phone, to: str, body: str, **columns: Any) -> int:
    """A job with any columns."""
    columns = {"device_id": phone.id, "recipient": to if "@" in to else f"+{to}", "body": body, **columns}
    statement = (
        f"INSERT INTO shardd.jobs ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))}) RETURNING id"
    )
    return int(fleet.rows(statement, *columns.values())[0]["id"])


def readers(fleet: Fleet, body: str) -> list[tuple[str, str]]:
    """Who could read a message with this text: (message id, number), each once."""
    return [(message.id, number) for message in fleet.seen(body) for number in message.read_by]


async def unreadable(fleet: Fleet, daemon: Daemon, to: str, *jobs: int) -> None:
    """The recipient's phone, which was off, tries to decrypt messages, in vain, when their client is closed."""
    for job in jobs:
        await fleet.job_is(job, "sent")
    await fleet.asleep(daemon)
    await fleet.control.reinstall(to)
    await fleet.control.switch_on(to)


async def resent(fleet: Fleet, job: int) -> dict[str, Any]:
    """The job that sends the message of this one again."""
    await fleet.until(lambda: fleet.job(job)["resent_as"])
    return fleet.job(fleet.job(job)["resent_as"])


@pytest.mark.timeout(240)
async def test_what_a_phone_cannot_decrypt_is_sent_again_when_its_device_is_heard_again(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    fleet.rows("UPDATE shardd.devices SET daily_limit = 100")
    to = fleet.stranger()
    daemon = fleet.daemon(transports=CLOSES_SOON)
    await daemon.start()
    await fleet.control.switch_off(to)
    text = insert(fleet, phone, to, "first", order_group="g")
    note = "data:text/plain;base64," + base64.b64encode(b"what was ordered").decode()
    file = insert(fleet, phone, to, "second", kind="document", media=note, file_name="order.txt")
    await unreadable(fleet, daemon, to, text, file)
    # A device is heard again when it has something else to send, or at a visit.
    fleet.send(phone, "other")
    for job, body in ((text, "first"), (file, "second")):
        child = await resent(fleet, job)
        # The phone's new keys are unknown to the session: the library answers its next retry receipts while the client is open.
        await fleet.until(lambda child=child: fleet.job(child["id"])["delivered_at"])  # type: ignore[misc]
        row, child = fleet.job(job), fleet.job(child["id"])
        assert (row["state"], row["delivered_at"], row["unreadable_why"]) == ("sent", None, f"{RESENT}{child['id']}")
        assert (child["state"], child["resend_of"], child["order_group"]) == ("sent", job, None)
        assert readers(fleet, body) == [(child["message_id"], to)]
    (media,) = [one.media for one in fleet.seen("second") if one.read_by]
    assert media is not None
    assert (media.intact, media.file_name) == (True, "order.txt")
    counted = await daemon.until(lambda status: status["queue"] is not None and status["queue"]["resent"] == 2)
    assert counted["queue"]["unreadable"] == 2
    shardd = Command(daemon.config_file)
    listed = (await shardd("job", "list", "--unreadable", "--json")).json
    assert [(one["id"], one["resend_of"], one["resent_as"] is None) for one in listed] == [
        (file, None, False),
        (text, None, False),
    ]
    again = fleet.job(text)["resent_as"]
    assert re.search(rf"^sent again as +job {again}\b", (await shardd("job", "show", text)).out, re.MULTILINE)
    assert re.search(rf"^repeats +job {text}\b", (await shardd("job", "show", again)).out, re.MULTILINE)
    assert "unreadable  2 messages in the last 24 hours, 2 sent again" in (await shardd("status")).out
    sent = fleet.rows("SELECT sum(sent) AS sent FROM shardd.device_days WHERE device_id = %s", phone.id)
    assert sent == [{"sent": 5}], "what is sent again counts towards the limits"
    kinds = "SELECT count(*) AS told FROM shardd.events WHERE kind = 'job.unreadable' AND job_id = ANY (%s)"
    assert fleet.rows(kinds, [text, file]) == [{"told": 2}]


@pytest.mark.timeout(240)
async def test_a_client_stays_open_while_its_message_is_undelivered_and_answers(fleet: Fleet) -> None:
    phone, other = fleet.add(2)
    to = fleet.stranger()
    whatsapp = CLOSES_SOON["whatsapp"] | {"linger": "60s"}
    daemon = fleet.daemon(shards=1, transports={"whatsapp": whatsapp})
    await daemon.start()
    await fleet.control.switch_off(to)
    job = fleet.send(phone, "first", to)
    await fleet.job_is(job, "sent")
    await fleet.job_is(fleet.send(other, "delivered"), "sent")
    # The other client, whose message is delivered, is closed; this one is not.
    await fleet.until(lambda: fleet.server.control.stats()["devices"] == [phone.name])
    await fleet.control.reinstall(to)
    await fleet.control.switch_on(to)
    await fleet.until(lambda: fleet.job(job)["delivered_at"])
    assert len(fleet.logins(phone)) == 1
    # A phone may ask before WhatsApp has acknowledged the message, so that its id is not known yet.
    await fleet.control.reinstall(to)
    fleet.server.control.fault("delay", "message", device=phone.name, seconds=2.0)
    early = fleet.send(phone, "second", to)
    await fleet.until(lambda: fleet.job(early)["delivered_at"])
    await fleet.asleep(daemon)
    assert await daemon.stop() == 0  # every receipt that waited for a row is tried once more
    assert [event.details["count"] for event in fleet.server.control.events("retry_receipt")] == [1, 2, 1, 2]
    for sent, body in ((job, "first"), (early, "second")):
        row = fleet.job(sent)
        assert readers(fleet, body) == [(row["message_id"], to)]
        assert (row["unreadable_at"], row["resent_as"]) == (None, None)
    assert fleet.rows("SELECT count(*) AS jobs FROM shardd.outcomes") == [{"jobs": 3}]


@pytest.mark.timeout(240)
async def test_what_the_open_client_fails_to_encrypt_again_is_sent_again(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    to = fleet.stranger()
    daemon = fleet.daemon(transports={"whatsapp": CLOSES_SOON["whatsapp"] | {"linger": "60s"}})
    await daemon.start()
    await fleet.control.switch_off(to)
    job = fleet.send(phone, "first", to)
    await fleet.job_is(job, "sent")
    # Without a session the library asks for keys, in vain, and says so only in its log (whatsmeow, retry.go).
    fleet.rows("DELETE FROM shardd_sessions.whatsmeow_sessions")
    fleet.server.control.fault("error", "prekeys", device=phone.name, code=503)
    await fleet.control.reinstall(to)
    await fleet.control.switch_on(to)
    child = await resent(fleet, job)
    await fleet.until(lambda: fleet.job(child["id"])["delivered_at"])
    assert readers(fleet, "first") == [(fleet.job(child["id"])["message_id"], to)]
    assert len(fleet.logins(phone)) == 1


@pytest.mark.timeout(240)
async def test_what_must_not_be_sent_again_is_reported(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    people = {name: fleet.stranger() for name in ("report", "linked", "inactive", "stopped", "own")}
    group = await fleet.control.create_group("friends", [phone.number, fleet.stranger()])
    daemon = fleet.daemon(transports=CLOSES_SOON, queue={"on_unreadable": "report"})
    await daemon.start()
    for to in people.values():
        await fleet.control.switch_off(to)
    # The policy of a job takes precedence over the config's.
    jobs = {
        name: insert(fleet, phone, to, name, on_unreadable=None if name == "report" else "resend")
        for name, to in people.items()
    }
    jobs["group"] = insert(fleet, phone, f"{group}@g.us", "group")
    for job in jobs.values():
        await fleet.job_is(job, "sent")
    await fleet.asleep(daemon)
    fleet.rows("INSERT INTO shardd.opt_outs (recipient) VALUES (%s)", f"+{people['stopped']}")

    async def receipt(name: str, kind: str, message_id: str | None = None, **fields: Any) -> None:
        to = fields.pop("to", people.get(name, ""))
        message_id = message_id or fleet.job(jobs[name])["message_id"]
        await fleet.control.receipt(phone.name, to, message_id, kind=kind, **fields)

    for name in ("report", "inactive", "stopped"):
        await receipt(name, "retry")
    await receipt("linked", "retry", by=2)
    # A linked device that its owner does not use has the message: whatsmeow sends such receipts (receipt.go, sendMessageReceipt).
    await receipt("inactive", "inactive", by=1)
    await receipt("group", "retry", to=group, participant=people["report"])
    await receipt("own", "retry", to=phone.number)
    await receipt("report", "retry", "WRITTEN-ON-THE-PHONE")
    await fleet.job_is(fleet.send(phone, "other"), "sent")
    expected = {
        "report": f"{REPORTED}on_unreadable is report",
        "inactive": f"{REPORTED}another device of the recipient has it",
        "stopped": f"{REPORTED}the recipient opted out",
        "linked": "linked device 2 of the recipient could not decrypt it",
        "group": "a member of the group could not decrypt it",
    }
    await fleet.until(lambda: all(fleet.job(jobs[name])["unreadable_why"] for name in expected))
    rows = {name: fleet.job(job) for name, job in jobs.items()}
    assert {name: row["unreadable_why"] for name, row in rows.items() if row["unreadable_at"]} == expected
    assert {(row["state"], row["resent_as"]) for row in rows.values()} == {("sent", None)}
    counted = await daemon.until(lambda status: status["queue"]["unreadable"] == len(expected))
    assert counted["queue"]["resent"] == 0
    assert fleet.rows("SELECT count(*) AS jobs FROM shardd.outcomes") == [{"jobs": len(jobs) + 1}]


@pytest.mark.timeout(240)
async def test_a_crash_right_after_the_retry_receipt_loses_nothing_and_sends_nothing_twice(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    to = fleet.stranger()
    daemon = fleet.daemon(transports=CLOSES_SOON)
    await daemon.start()
    await fleet.control.switch_off(to)
    job = fleet.send(phone, "first", to)
    await unreadable(fleet, daemon, to, job)
    with psycopg.connect(fleet.dsn) as blocking:
        # Nothing can be written to the row.
        blocking.execute("LOCK TABLE shardd.archive IN EXCLUSIVE MODE")
        other = fleet.send(phone, "other")
        spool = daemon.home / "receipts.spool"
        await fleet.until(spool.exists)
        daemon.kill()
        await daemon.wait_end()
    await daemon.start()
    child = await resent(fleet, job)
    await fleet.until(lambda: fleet.job(child["id"])["delivered_at"])
    await fleet.job_is(other, "sent")
    assert readers(fleet, "first") == [(fleet.job(child["id"])["message_id"], to)]
    assert fleet.rows("SELECT count(*) AS jobs FROM shardd.outcomes") == [{"jobs": 3}]
    await fleet.until(lambda: not spool.exists())
