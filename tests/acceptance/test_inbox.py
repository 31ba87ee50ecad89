"""Incoming messages with the daemon running: what somebody writes to a device becomes a row and an event."""

from __future__ import annotations

from tests.fixtures.whatsapp_fleet import Fleet


async def test_a_reply_is_a_row_and_an_event(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon()
    await daemon.start()
    job = fleet.send(phone, "Do you want more?", person)
    await fleet.job_is(job, "sent")
    message_id = fleet.server.control.write(phone.name, person, "yes please, send me two")
    await fleet.until(lambda: fleet.rows("SELECT 1 FROM shardd.inbox"))
    (row,) = fleet.rows("SELECT * FROM shardd.inbox")
    assert (row["device_id"], row["message_id"], row["number"]) == (phone.id, message_id, f"+{person}")
    assert (row["kind"], row["text"], row["name"]) == ("text", "yes please, send me two", f"Phone {person}")
    (event,) = fleet.rows("SELECT * FROM shardd.read_events(kinds => '{message.received}')")
    assert event["device_id"] == phone.id
    assert event["data"]["id"] == row["id"]
    assert await daemon.stop() == 0
    assert not list((daemon.state_dir / "inbox").iterdir())
