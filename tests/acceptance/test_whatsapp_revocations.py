"""A revocation from the row to the phones: they decrypt it, find their message by its key, and do not show it any more."""

from __future__ import annotations

from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from tests.fixtures.whatsapp_fleet import Fleet, Phone
from tests.whatsapp_server.record import Message
from tests.whatsapp_server.seed import seed_postgres


def revoke(fleet: Fleet, job: int) -> int:
    (row,) = fleet.rows("INSERT INTO shardd.jobs (kind, revokes) VALUES ('revoke', %s) RETURNING id", job)
    return int(row["id"])


def message_of(fleet: Fleet, job: int) -> Message:
    (message,) = fleet.server.control.messages(message_id=fleet.job(job)["message_id"])
    return message


async def sent(fleet: Fleet, phone: Phone, to: str, body: str) -> int:
    job = fleet.send(phone, body, to)
    await fleet.job_is(job, "sent")
    return job


async def test_phones_do_not_show_any_more_what_was_revoked(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person, member, off = fleet.stranger(), fleet.stranger(), fleet.stranger()
    group = await fleet.control.create_group("friends", [phone.number, member])
    fleet.server.control.settings(receipts="read")
    await fleet.control.switch_off(off)
    daemon = fleet.daemon()
    await daemon.start()
    wrong = [
        await sent(fleet, phone, to, body)
        for to, body in ((person, "to a person"), (f"{group}@g.us", "to a group"), (off, "to a phone that is off"))
    ]
    kept = await sent(fleet, phone, person, "right")
    readers = (person, member, off)
    ids = [fleet.job(job)["message_id"] for job in wrong]
    assert [(await fleet.control.screen(reader))[0] for reader in (person, member)] == ids[:2]

    revocations = [revoke(fleet, job) for job in wrong]
    for job, revocation in zip(wrong, revocations, strict=True):
        row = await fleet.job_is(revocation, "sent")
        message = message_of(fleet, revocation) if job != wrong[2] else None
        if message is not None:
            assert (message.kind, message.edit, message.revokes) == ("revoke", "7", fleet.job(job)["message_id"])
        assert row["message_id"] != fleet.job(job)["message_id"]
        assert fleet.job(job)["revoked_by"] == revocation
    await fleet.control.switch_on(off)
    for revocation in revocations:
        # Its receipts come back as those of any message.
        await fleet.until(lambda revocation=revocation: fleet.job(revocation)["read_at"])  # type: ignore[misc]
    assert [await fleet.control.screen(reader) for reader in readers] == [[fleet.job(kept)["message_id"]], [], []]
    assert [sorted(message_of(fleet, job).deleted_by) for job in wrong] == [
        [phone.number, person],
        [member],
        [phone.number, off],
    ], "the phone of the account, too, is told"
    told = fleet.server.control.events("revocation")
    assert {event.details["ignored"] for event in told} == {""}
    assert fleet.job(wrong[0])["state"] == "sent"
    assert await daemon.stop() == 0


async def test_the_account_revokes_whichever_of_its_devices_sent_the_message(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon()
    await daemon.start()
    job = await sent(fleet, phone, person, "from the first device")
    fleet.rows("UPDATE shardd.devices SET session = NULL, state = 'unpaired' WHERE id = %s", phone.id)
    fleet.rows("DELETE FROM shardd_sessions.whatsmeow_lid_map")
    (session,) = seed_postgres(sessions_dsn(fleet.dsn), [phone.number], index=2)
    fleet.rows("UPDATE shardd.devices SET session = %s, state = 'ready' WHERE id = %s", session, phone.id)
    revocation = revoke(fleet, job)
    await fleet.until(lambda: fleet.job(revocation)["delivered_at"])
    message = message_of(fleet, revocation)
    assert (message.sender_device, message_of(fleet, job).sender_device) == (f"{phone.number}:2", phone.name)
    assert await fleet.control.screen(person) == []
    assert await daemon.stop() == 0
