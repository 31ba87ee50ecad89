"""Faults of messages, and their effect on the rows of jobs and devices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.fixtures.whatsapp_faults import ABSENT, RESTRICTED_FOR, Cases, Faults, Running
from tests.fixtures.whatsapp_fleet import Phone

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

CASES = Cases()


# ---- answers to a message


@CASES.add
async def error_479_is_tried_again(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "message", code=479)
    job, body = f.send(phone)
    row = await f.fleet.job_is(job, "sent")
    assert row["failures"] == 1
    assert f.arrivals(body) == ["error 479", "ack"]


@CASES.add
async def error_479_for_ever_fails_the_job_and_not_the_device(f: Faults, phone: Phone) -> None:
    stranger = f.fleet.stranger()
    f.strike(phone, "error", "message", code=479, recipient=stranger, times=None)
    job, body = f.send(phone, stranger)
    row = await f.fleet.job_is(job, "failed")
    assert (row["failures"], row["max_attempts"]) == (5, 5)
    assert "479" in row["error"]
    assert f.arrivals(body) == ["error 479"] * 5
    await f.works(phone)


@CASES.add
async def error_429_rests_the_device(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "message", code=429)
    job, _ = f.send(phone)
    await f.waits(phone, job, "429")
    assert f.fleet.device(phone)["state"] == "ready"


@CASES.add
async def error_403_fails_the_job(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "message", code=403)
    job, _ = f.send(phone)
    assert "403" in (await f.fleet.job_is(job, "failed"))["error"]
    await f.works(phone)


@CASES.add
async def a_late_ack_is_waited_for_and_receipts_before_it_are_kept(f: Faults, phone: Phone) -> None:
    f.strike(phone, "delay", "message", seconds=8)
    job, body = f.send(phone)
    row = await f.fleet.job_is(job, "sent")
    (message,) = f.fleet.seen(body)
    assert row["message_id"] == message.id
    await f.fleet.until(lambda: f.fleet.job(job)["delivered_at"])
    assert f.fleet.job(job)["delivered_at"] < row["settled_at"]


@CASES.add
async def no_ack_is_in_doubt(f: Faults, phone: Phone) -> None:
    f.strike(phone, "ignore", "message", accepted=True)
    job, body = f.send(phone)
    row = await f.fleet.job_is(job, "in_doubt")
    assert row["waits_for"].startswith("a person")
    assert row["error_class"] == "timeout"
    await f.works(phone)
    assert f.arrivals(body) == ["ignore"]


@CASES.add
async def no_ack_is_retried_if_the_producer_said_so(f: Faults, phone: Phone) -> None:
    f.strike(phone, "ignore", "message", accepted=False)
    job, body = f.send(phone, on_doubt="retry")
    assert (await f.fleet.job_is(job, "sent"))["failures"] == 1
    assert f.arrivals(body) == ["ignore", "ack"]


@CASES.add
async def a_connection_that_dies_with_the_message_taken_is_in_doubt(f: Faults, phone: Phone) -> None:
    await f.works(phone)
    f.strike(phone, "drop", "message", accepted=True)
    job, body = f.send(phone)
    await f.fleet.job_is(job, "in_doubt")
    await f.works(phone)
    assert f.arrivals(body) == ["drop"]


@CASES.add
async def a_connection_that_dies_with_the_message_lost_is_in_doubt(f: Faults, phone: Phone) -> None:
    f.strike(phone, "drop", "message", accepted=False)
    job, body = f.send(phone)
    await f.fleet.job_is(job, "in_doubt")
    await f.works(phone)
    assert f.arrivals(body) == ["drop"]


@CASES.add
async def a_connection_that_goes_mute_with_the_message_is_in_doubt(f: Faults, phone: Phone) -> None:
    f.strike(phone, "mute", "message", accepted=True)
    job, body = f.send(phone)
    await f.fleet.job_is(job, "in_doubt")
    await f.works(phone)
    assert f.arrivals(body) == ["mute"]


@CASES.add
async def error_515_at_the_message_is_in_doubt(f: Faults, phone: Phone) -> None:
    f.strike(phone, "stream_error", "message", code=515)
    job, body = f.send(phone)
    await f.fleet.job_is(job, "in_doubt")
    await f.works(phone)
    assert f.arrivals(body) == ["stream_error"]


@CASES.add
async def a_number_without_whatsapp_fails_its_job(f: Faults, phone: Phone) -> None:
    job, body = f.send(phone, ABSENT)
    row = await f.fleet.job_is(job, "failed")
    assert row["error"] == f"+{ABSENT} is not on WhatsApp"
    await f.works(phone)
    assert f.arrivals(body) == []


@CASES.add
async def usync_429_rests_the_device(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "usync", code=429)
    job, body = f.send(phone)
    await f.waits(phone, job, "429")
    assert f.fleet.device(phone)["state"] == "ready"
    assert f.arrivals(body) == []


@CASES.add
async def a_usync_that_fails_is_tried_again(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "usync", code=500)
    job, body = f.send(phone)
    assert (await f.fleet.job_is(job, "sent"))["failures"] == 1
    assert f.arrivals(body) == ["ack"]


# ---- a message that nobody could read (nothing in the stanza for the recipient, which WhatsApp acknowledges all the same)


async def is_sent_once_it_is_readable(f: Faults, phone: Phone, fault: int, error_class: str, *words: str) -> None:
    """As long as the fault lasts, tries fail with these words and leave no trace at WhatsApp."""
    job, body = f.send(phone)
    await f.fleet.until(lambda: f.fleet.job(job)["error"])
    row = f.fleet.job(job)
    assert row["error_class"] == error_class, row
    assert all(word in row["error"] for word in words), row
    assert f.control.messages(sender=phone.number, accepted_only=False) == []
    f.control.remove_fault(fault)
    row = await f.fleet.job_is(job, "sent")
    assert row["failures"] > 0
    (message,) = f.control.messages(sender=phone.number, accepted_only=False)
    assert (message.text, message.id, message.copies) == (body, row["message_id"], 1)


@CASES.add
async def prekeys_429_rests_the_device(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "prekeys", code=429)
    job, _ = f.send(phone)
    await f.waits(phone, job, "429")
    assert f.fleet.device(phone)["state"] == "ready"
    assert f.fleet.job(job)["error_class"] == "rate_limit"
    assert f.control.messages(sender=phone.number, accepted_only=False) == []


@CASES.add
async def prekeys_503_is_tried_again(f: Faults, phone: Phone) -> None:
    fault = f.strike(phone, "error", "prekeys", code=503, times=None)
    await is_sent_once_it_is_readable(f, phone, fault, "server", "503")


@CASES.add
async def prekeys_without_the_user_are_tried_again(f: Faults, phone: Phone) -> None:
    fault = f.strike(phone, "omit", "prekeys", times=None)
    await is_sent_once_it_is_readable(f, phone, fault, "recipient", "no keys")


@CASES.add
async def prekeys_refused_for_the_user_are_tried_again(f: Faults, phone: Phone) -> None:
    fault = f.strike(phone, "refuse", "prekeys", code=404, times=None)
    await is_sent_once_it_is_readable(f, phone, fault, "recipient", "404")


@CASES.add
async def a_recipient_without_devices_is_tried_again(f: Faults, phone: Phone) -> None:
    fault = f.strike(phone, "omit", "usync", times=None)
    await is_sent_once_it_is_readable(f, phone, fault, "recipient", "no device")


@CASES.add
async def prekeys_that_are_not_answered_are_no_doubt(f: Faults, phone: Phone) -> None:
    await waits_for_an_answer(f, phone, "prekeys")


@CASES.add
async def a_device_list_that_is_not_answered_is_no_doubt(f: Faults, phone: Phone) -> None:
    await waits_for_an_answer(f, phone, "usync")


async def waits_for_an_answer(f: Faults, phone: Phone, at: str) -> None:
    f.strike(phone, "ignore", at)
    job, body = f.send(phone)
    await f.fleet.until(lambda: f.fleet.job(job)["error"])
    row = f.fleet.job(job)
    assert (row["error_class"], row["failures"]) == ("timeout", 0), row
    await f.fleet.job_is(job, "sent")
    assert f.arrivals(body) == ["ack"]


@CASES.add
async def a_connection_that_dies_at_the_prekeys_is_no_doubt(f: Faults, phone: Phone) -> None:
    f.strike(phone, "drop", "prekeys")
    job, _ = f.send(phone)
    row = await f.fleet.job_is(job, "sent")
    assert row["failures"] == 0
    assert len(f.control.messages(sender=phone.number, accepted_only=False)) == 1


@CASES.add
async def late_prekeys_are_waited_for(f: Faults, phone: Phone) -> None:
    f.strike(phone, "delay", "prekeys", seconds=3)
    job, body = f.send(phone)
    assert (await f.fleet.job_is(job, "sent"))["failures"] == 0
    assert f.arrivals(body) == ["ack"]


@CASES.add
async def one_device_with_keys_is_enough(f: Faults, phone: Phone) -> None:
    """A recipient with a phone and a linked device, whose phone's keys cannot be had."""
    other = f.witness
    await f.works(other)
    f.strike(phone, "refuse", "prekeys", code=404, recipient=f"{other.number}:0")
    job, _ = f.send(phone, other.number)
    row = await f.fleet.job_is(job, "sent")
    (message,) = f.control.messages(message_id=row["message_id"])
    assert message.copies_for == [other.name]


@CASES.add
async def a_message_to_the_own_number_needs_a_reader_too(f: Faults, phone: Phone) -> None:
    fault = f.strike(phone, "omit", "prekeys", recipient=phone.number, times=None)
    job, _ = f.send(phone, phone.number)
    await f.fleet.until(lambda: f.fleet.job(job)["error"])
    assert f.control.messages(sender=phone.number, accepted_only=False) == []
    f.control.remove_fault(fault)
    row = await f.fleet.job_is(job, "sent")
    (message,) = f.control.messages(message_id=row["message_id"])
    assert set(message.copies_for) == {f"{phone.number}:0"}


@CASES.add
async def keys_that_never_come_fail_the_job_and_not_the_device(f: Faults, phone: Phone) -> None:
    stranger = f.fleet.stranger()
    f.strike(phone, "omit", "prekeys", recipient=stranger, times=None)
    job, _ = f.send(phone, stranger)
    row = await f.fleet.job_is(job, "failed")
    assert (row["failures"], row["error_class"]) == (5, "recipient")
    await f.works(phone)
    assert len(f.control.messages(sender=phone.number, accepted_only=False)) == 1


@CASES.add
async def a_group_counts_the_members_without_keys(f: Faults, phone: Phone) -> None:
    reader, deaf = f.fleet.stranger(), f.fleet.stranger()
    group = f.control.create_group("friends", [phone.number, reader, deaf])
    f.strike(phone, "omit", "prekeys", recipient=deaf)
    job, body = f.send(phone, f"{group}@g.us")
    row = await f.fleet.job_is(job, "sent")
    assert (row["members_without_keys"], row["failures"]) == (1, 0)
    other, _ = f.send(phone, f"{group}@g.us")
    assert (await f.fleet.job_is(other, "sent"))["members_without_keys"] == 0
    first, second = f.control.messages(recipient=group)
    assert (first.text, first.arrivals[0].copies) == (body, 1)
    assert sorted(second.read_by) == sorted([reader, deaf])


# ---- new contacts


@CASES.add
async def error_463_holds_jobs_to_new_contacts_until_it_ends(f: Faults, phone: Phone) -> None:
    known = f.fleet.stranger()
    await f.works(phone, known)
    f.control.restrict(phone.number, RESTRICTED_FOR - 2)
    first, body = f.send(phone)
    row = await f.fleet.device_is(phone, "restricted")
    assert "463" in row["reason"]
    assert 0 < (row["state_until"] - datetime.now(UTC)).total_seconds() <= RESTRICTED_FOR
    second, other = f.send(phone)
    third, _ = f.send(phone, known)
    await f.fleet.job_is(third, "sent")
    assert f.fleet.device(phone)["state"] == "restricted"
    held = [f.fleet.job(job) for job in (first, second)]
    assert [(job["state"], job["failures"]) for job in held] == [("scheduled", 0)] * 2
    assert all("463" in job["waits_for"] for job in held)
    assert f.arrivals(body) + f.arrivals(other) == ["error 463"], "another stranger was tried in vain"
    for job in (first, second):
        await f.fleet.job_is(job, "sent")
    assert (await f.fleet.device_is(phone, "ready"))["reason"] is None
    assert f.arrivals(body)[-1] == f.arrivals(other)[-1] == "ack"


@CASES.add
async def the_end_of_a_restriction_that_whatsapp_reports_is_believed(f: Faults, phone: Phone) -> None:
    """The library has an event for it, which its Python side does not pass on: whatsmeow, NotifyAccountReachoutTimelock."""
    f.control.restrict(phone.number, 3600)
    job, body = f.send(phone)
    await f.fleet.device_is(phone, "restricted")
    f.control.cut(phone.name)
    await f.fleet.until(lambda: f.control.events("disconnect", device=phone.name))
    # Longer than `restricted_for`: nothing is tried meanwhile.
    f.control.report_restriction(phone.name, active=True, seconds=3600)
    f.control.add_contacts(phone.number, known := f.fleet.stranger())
    f.fleet.rows(
        "INSERT INTO shardd_sessions.whatsmeow_contacts (our_jid, their_jid, full_name) VALUES (%s, %s, 'Known')",
        *(f"{phone.name}@s.whatsapp.net", f"{known}@s.whatsapp.net"),
    )
    other, _ = f.send(phone, known)
    await f.fleet.job_is(other, "sent")
    await f.fleet.until(lambda: f.fleet.device(phone)["state_until"] > datetime.now(UTC) + timedelta(minutes=50))
    f.control.forgive(phone.number)
    f.control.report_restriction(phone.name, active=False)
    await f.fleet.job_is(job, "sent")
    assert f.arrivals(body) == ["error 463", "ack"]
    await f.fleet.device_is(phone, "ready")


@CASES.add
async def error_463_for_a_contact_that_the_store_knows_fails_that_job_alone(f: Faults, phone: Phone) -> None:
    known = f.fleet.stranger()
    await f.works(phone, known)
    f.control.write(phone.name, known, "yes please")
    await f.fleet.until(lambda: f.knows(phone, known))
    f.strike(phone, "error", "message", code=463)
    job, body = f.send(phone, known)
    row = await f.fleet.job_is(job, "failed")
    assert "463" in row["error"]
    assert "new" not in row["error"]
    assert row["error_class"] == "recipient"
    assert f.arrivals(body) == ["error 463"]
    assert f.fleet.device(phone)["state"] == "ready"
    await f.works(phone)
    await f.works(phone, known)


@CASES.add
async def error_463_for_somebody_who_never_replied_restricts_the_device(f: Faults, phone: Phone) -> None:
    """One message makes nobody a contact: only the store says who is one."""
    silent = f.fleet.stranger()
    await f.works(phone, silent)
    assert not f.knows(phone, silent)
    f.strike(phone, "error", "message", code=463)
    first, body = f.send(phone, silent)
    assert "463" in (await f.fleet.device_is(phone, "restricted"))["reason"]
    second, other = f.send(phone, silent)
    await f.fleet.until(lambda: "463" in (f.fleet.job(second)["waits_for"] or ""))
    assert (f.fleet.job(first)["state"], f.fleet.job(first)["failures"]) == ("scheduled", 0)
    assert f.arrivals(body) + f.arrivals(other) == ["error 463"], "it was tried again in vain"
    for job in (first, second):
        await f.fleet.job_is(job, "sent")
    await f.fleet.device_is(phone, "ready")


@pytest.mark.parametrize("name", CASES)
async def test_fault(running: Running, name: str) -> None:
    await running.tasks[name]


async def test_all_of_them_left_nothing_behind(running: Running) -> None:
    await running.end()
