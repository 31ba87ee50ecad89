"""From a row to a phone and back: what WhatsApp saw, and what the row says."""

from __future__ import annotations

from tests.whatsapp_fleet import Fleet

TEXT = "selamat pagi ☀ \n *bold* — 'quoted' \\n"


async def test_a_row_becomes_a_message_and_its_receipts_come_back(fleet: Fleet) -> None:
    fleet.server.control.settings(receipts="read")
    (phone,) = fleet.add(1)
    daemon = fleet.daemon()
    await daemon.start()
    job = fleet.send(phone, TEXT, "6281234567890")
    await fleet.until(lambda: fleet.job(job)["read_at"])
    (message,) = fleet.server.control.messages()
    assert (message.sender_device, message.recipient, message.text) == (phone.name, "6281234567890", TEXT)
    assert not message.bot_tag
    row = fleet.job(job)
    assert (row["state"], row["message_id"], row["failures"]) == ("sent", message.id, 0)
    assert row["delivered_at"] <= row["read_at"]
    assert (fleet.device(phone)["state"], fleet.device(phone)["reason"]) == ("ready", None)
    assert await daemon.stop() == 0
    assert fleet.server.control.stats()["online"] == 0
