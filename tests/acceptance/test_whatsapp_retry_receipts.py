"""A phone that cannot decrypt a message asks for it: the open client answers, and otherwise a new job sends it again."""

from __future__ import annotations

from typing import Any

from tests.fixtures.whatsapp_fleet import Fleet, Phone
from tests.support.daemon import Daemon

CLOSES_SOON = {"whatsapp": {"idle_close": "1s", "probe_after": "1s", "linger": "0"}}


def readers(fleet: Fleet, body: str) -> list[tuple[str, str]]:
    """Who could read a message with this text: (message id, number), each once."""
    return [(message.id, number) for message in fleet.seen(body) for number in message.read_by]


async def unreadable(fleet: Fleet, daemon: Daemon, phone: Phone, body: str, to: str) -> int:
    """A job whose message the recipient's phone tries to decrypt, in vain, when its client is closed."""
    await fleet.control.switch_off(to)
    job = fleet.send(phone, body, to)
    await fleet.job_is(job, "sent")
    await fleet.asleep(daemon)
    await fleet.control.reinstall(to)
    await fleet.control.switch_on(to)
    return job


async def resent(fleet: Fleet, job: int) -> dict[str, Any]:
    """The job that sends the message of this one again."""
    await fleet.until(lambda: fleet.job(job)["resent_as"])
    return fleet.job(fleet.job(job)["resent_as"])


async def test_what_a_phone_cannot_decrypt_is_sent_again_when_its_device_is_heard_again(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    to = fleet.stranger()
    daemon = fleet.daemon(transports=CLOSES_SOON)
    await daemon.start()
    job = await unreadable(fleet, daemon, phone, "first", to)
    fleet.send(phone, "other")
    child = await resent(fleet, job)
    # The phone's new keys are unknown to the session: the library answers its next retry receipts while the client is open.
    await fleet.until(lambda: fleet.job(child["id"])["delivered_at"])
    row, child = fleet.job(job), fleet.job(child["id"])
    assert (child["state"], child["resend_of"], row["state"], row["delivered_at"]) == ("sent", job, "sent", None)
    assert readers(fleet, "first") == [(child["message_id"], to)]
    assert row["unreadable_why"] == f"the phone of the recipient could not decrypt it; sent again as job {child['id']}"
