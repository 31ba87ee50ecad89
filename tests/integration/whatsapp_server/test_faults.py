"""Each fault of the test server: its effect on the real neonize, and in the server's record."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import sqlite3

import pytest
from PIL import Image

from tests.support.facts import fact
from tests.whatsapp_server.client.device import PlainDevice
from tests.whatsapp_server.client.process import ClientError

FRIEND, STRANGER = "6281299990001", "6281299990009"


def session_rows(device: PlainDevice) -> int:
    with contextlib.closing(sqlite3.connect(device.store)) as store:
        (count,) = store.execute("SELECT count(*) FROM whatsmeow_device").fetchone()
        return int(count)


async def session_goes(device: PlainDevice) -> None:
    """neonize tells of a logout before it deletes the row, and nothing tells of that: look until it is so."""
    async with asyncio.timeout(30):
        while session_rows(device):  # noqa: ASYNC110 - another process deletes it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("code", [463, 479, 429])
@fact("An ack with an error raises SendMessageError: server returned error N", "messages/failures.py", "transport.py")
async def test_an_error_in_the_ack_fails_this_message_only(plain_device: PlainDevice, code: int) -> None:
    await plain_device.control.fault("error", "message", code=code, recipient=FRIEND)

    with pytest.raises(ClientError, match=f"server returned error {code}"):
        await plain_device.send(FRIEND, "refused")
    await plain_device.send(FRIEND, "taken")

    assert [message.text for message in await plain_device.control.messages()] == ["taken"]
    refused, _taken = await plain_device.control.messages(accepted_only=False)
    assert (refused.text, refused.accepted, refused.arrivals[0].outcome) == ("refused", False, f"error {code}")


async def test_a_fault_strikes_its_device_and_recipient_as_often_as_it_says(plain_device: PlainDevice) -> None:
    control = plain_device.control
    await control.fault("error", "message", code=479, device="62000", times=None)
    await control.fault("error", "message", code=479, device=plain_device.number, recipient=STRANGER, times=2)

    await plain_device.send(FRIEND, "other recipient")
    for attempt in ("first", "second"):
        with pytest.raises(ClientError, match="479"):
            await plain_device.send(STRANGER, attempt)
    await plain_device.send(STRANGER, "third")

    assert [message.text for message in await control.messages()] == ["other recipient", "third"]
    assert (await control.stats())["faults"] == 1
    await control.clear_faults()
    assert (await control.stats())["faults"] == 0


async def test_a_late_ack_still_ends_the_send_well(plain_device: PlainDevice) -> None:
    await plain_device.control.fault("delay", "message", seconds=0.5)
    sending = asyncio.create_task(plain_device.send(FRIEND, "slowly"))

    [message] = await plain_device.control.wait_messages(text="slowly")
    assert not sending.done()
    assert await sending == message.id
    assert [arrival.outcome for arrival in message.arrivals] == ["late ack 0.5 s"]


@pytest.mark.parametrize("accepted", [True, False])
@fact(
    "A connection that drops before the ack: the library connects again and resends the same id",
    "clients/client.py",
    "transport.py",
)
async def test_a_drop_before_the_ack_brings_the_same_id_again(plain_device: PlainDevice, accepted: bool) -> None:
    await plain_device.control.fault("drop", "message", accepted=accepted)

    message_id = await plain_device.send(FRIEND, "once more")

    [message] = await plain_device.control.messages()
    assert (message.id, message.text) == (message_id, "once more")
    assert [arrival.outcome for arrival in message.arrivals] == ["drop", "ack"]
    assert [resent.id for resent in await plain_device.control.resent()] == [message_id]
    assert await plain_device.control.doubled() == []


async def test_the_same_text_sent_anew_is_a_second_message(plain_device: PlainDevice) -> None:
    for _ in range(2):
        await plain_device.send(FRIEND, "twice")

    [pair] = await plain_device.control.doubled()
    assert len({message.id for message in pair}) == 2
    assert await plain_device.control.resent() == []


@pytest.mark.parametrize("kind", ["ignore", "mute"])
@fact(
    "A send without an ack waits until the connection ends; a mute connection answers no probe",
    "clients/client.py",
    "clients/pool.py",
)
async def test_without_an_ack_the_send_waits_until_the_connection_ends(plain_device: PlainDevice, kind: str) -> None:
    control = plain_device.control
    await control.fault(kind, "message", accepted=True)
    sending = asyncio.create_task(plain_device.send(FRIEND, "no answer"))
    await control.wait_messages(text="no answer")

    probing = asyncio.create_task(plain_device.process.call("probe", client="device"))
    if kind == "ignore":
        await probing
    assert not sending.done()
    assert probing.done() is (kind == "ignore")

    await control.cut(plain_device.name)
    await sending
    [message] = await control.messages()
    assert [arrival.outcome for arrival in message.arrivals] == [kind, "ack"]
    with contextlib.suppress(ClientError):
        await probing


@pytest.mark.parametrize("code", [515, 503])
@fact(
    "The library connects again by itself, and that cannot be switched off",
    "clients/client.py",
    "shardd/transports/egress/gate.py",
)
async def test_a_stream_error_makes_the_client_reconnect(plain_device: PlainDevice, code: int) -> None:
    await plain_device.control.stream_error(plain_device.name, code=code)

    await plain_device.event("Connected")
    assert await plain_device.send(FRIEND, "back again")


async def test_a_failure_503_at_login_is_tried_again(plain_device: PlainDevice) -> None:
    await plain_device.control.fault("failure", "login", code=503)
    await plain_device.control.cut(plain_device.name)

    await plain_device.control.wait_events("login", 2, device=plain_device.name)
    [struck] = await plain_device.control.events("fault")
    assert struck.details == {"fault": "failure", "at": "login"}


@fact(
    "A login elsewhere is reported as StreamReplaced, and the session is kept",
    "messages/failures.py",
    "clients/client.py",
)
async def test_a_replaced_device_keeps_its_session(plain_device: PlainDevice) -> None:
    await plain_device.control.replace(plain_device.name)

    await plain_device.event("StreamReplaced")
    assert session_rows(plain_device) == 1
    await plain_device.close()
    await plain_device.open()
    await plain_device.control.wait_events("login", 2, device=plain_device.name)


async def test_a_device_that_logs_in_twice_replaces_itself(plain_device: PlainDevice) -> None:
    process, jid = plain_device.process, f"{plain_device.name}@s.whatsapp.net"
    proxy = plain_device.server.proxy_url(plain_device.number)
    await process.call("open", client="again", store=plain_device.store, proxy=proxy, jid=jid)

    await process.event("Connected", "again")
    await plain_device.event("StreamReplaced")


@fact("LoggedOut is reported first, and the session deleted a moment later", "clients/pool.py", "messages/failures.py")
async def test_a_removed_device_is_logged_out_and_its_session_is_gone(plain_device: PlainDevice) -> None:
    await plain_device.control.remove_device(plain_device.name)

    await plain_device.event("LoggedOut")
    await session_goes(plain_device)


@pytest.mark.parametrize("code", [401, 403])
@fact("The failures 401 and 403 delete the session", "clients/pool.py", "messages/failures.py")
async def test_a_login_that_is_refused_for_good_deletes_the_session(plain_device: PlainDevice, code: int) -> None:
    await plain_device.close()
    await plain_device.control.fault("failure", "login", device=plain_device.name, code=code)
    await plain_device.open()

    await plain_device.event("LoggedOut")
    await session_goes(plain_device)


@pytest.mark.parametrize(
    ("failure", "event"),
    [
        ({"code": 402, "expire": 60}, "TemporaryBan"),
        ({"code": 405}, "ClientOutdated"),
        ({"code": 400}, "ConnectFailure"),
    ],
)
@fact(
    "The failures 400, 402 and 405 are events of their own, and the session is kept",
    "messages/failures.py",
    "clients/client.py",
)
async def test_any_other_failure_at_login_keeps_the_session(
    plain_device: PlainDevice, failure: dict[str, int], event: str
) -> None:
    await plain_device.close()
    await plain_device.control.fault("failure", "login", device=plain_device.name, **failure)
    await plain_device.open()

    await plain_device.event(event)
    await plain_device.close()
    assert session_rows(plain_device) == 1


@fact("A temporary ban is reported with its seconds and its reason", "messages/failures.py")
async def test_a_temporary_ban_says_when_it_ends_and_ends(plain_device: PlainDevice) -> None:
    control = plain_device.control
    await control.ban(plain_device.number, 3600, code=104)

    banned = await plain_device.event("TemporaryBan")
    assert banned.details["Code"] == "SENT_TOO_MANY_SAME_MESSAGE"
    assert 3500 < int(banned.details["Expire"]) <= 3600
    assert session_rows(plain_device) == 1
    await plain_device.close()
    await control.forgive(plain_device.number)
    await plain_device.open()
    await control.wait_events("login", 2, device=plain_device.name)


async def test_a_restricted_account_writes_to_known_chats_only(plain_device: PlainDevice) -> None:
    control = plain_device.control
    await control.add_contacts(plain_device.number, FRIEND)
    await control.restrict(plain_device.number, 3600)

    await plain_device.send(FRIEND, "known")
    with pytest.raises(ClientError, match="server returned error 463"):
        await plain_device.send(STRANGER, "unknown")
    await control.forgive(plain_device.number)
    await plain_device.send(STRANGER, "now known")
    await control.fault("error", "message", code=463, strangers_only=True, times=None)
    await plain_device.send(STRANGER, "still known")
    with pytest.raises(ClientError, match="463"):
        await plain_device.send("6281299990010", "another stranger")


@fact("Too many questions fail the send with 429", "messages/failures.py", "clients/lookups.py")
async def test_usync_429_fails_the_first_contact(plain_device: PlainDevice) -> None:
    await plain_device.control.fault("error", "usync", code=429)

    with pytest.raises(ClientError, match="429"):
        await plain_device.send(FRIEND, "too fast")
    assert await plain_device.send(FRIEND, "slower")


@fact("Without the recipient's keys the send succeeds, and nobody can read it", "messages/copies.py", "transport.py")
async def test_a_prekey_error_lets_the_send_succeed_and_reach_nobody(plain_device: PlainDevice) -> None:
    await plain_device.control.fault("error", "prekeys", code=500)

    message_id = await plain_device.send(FRIEND, "into the void")

    assert await plain_device.control.messages() == []
    [message] = await plain_device.control.messages(readable_only=False)
    assert (message.id, message.copies, message.read_by) == (message_id, 0, [])
    readable = await plain_device.send(FRIEND, "heard")
    receipt = await plain_device.event("Receipt")
    assert receipt.details["MessageIDs"] == [readable]


@pytest.mark.parametrize(
    ("kind", "at", "details"),
    [("omit", "prekeys", {}), ("omit", "usync", {"times": 2}), ("refuse", "prekeys", {"code": 404})],
)
@fact(
    "Without the recipient's devices the send succeeds, and nobody can read it",
    "messages/copies.py",
    "clients/lookups.py",
)
async def test_keys_and_devices_can_be_left_out_of_an_answer(
    plain_device: PlainDevice, kind: str, at: str, details: dict[str, int]
) -> None:
    await plain_device.control.fault(kind, at, recipient=FRIEND, **details)

    message_id = await plain_device.send(FRIEND, "into the void")

    [message] = await plain_device.control.messages(readable_only=False)
    assert (message.id, message.copies_for, message.readable) == (message_id, [], False)
    await plain_device.send(FRIEND, "heard")
    [message] = await plain_device.control.messages()
    assert message.copies_for == [f"{FRIEND}:0"]
    assert [arrival.copies for arrival in message.arrivals] == [1]


async def test_a_websocket_upgrade_that_is_never_answered_holds_up_nobody_else(plain_device: PlainDevice) -> None:
    await plain_device.close()
    await plain_device.control.fault("mute", "upgrade", device=plain_device.name)
    opening = asyncio.create_task(plain_device.open())
    [struck] = await plain_device.control.wait_events("fault", device=plain_device.number)
    assert struck.details == {"fault": "mute", "at": "upgrade"}

    proxy, jid = plain_device.server.proxy_url("62811"), f"{plain_device.name}@s.whatsapp.net"
    await plain_device.process.call("open", client="free", store=plain_device.store, proxy=proxy, jid=jid)
    await plain_device.process.event("Connected", "free")
    opening.cancel()


@pytest.mark.parametrize("stage", ["connect", "tls", "upgrade", "login"])
async def test_a_slow_stage_only_delays_the_login(plain_device: PlainDevice, stage: str) -> None:
    await plain_device.control.fault("delay", stage, device=plain_device.number, seconds=0.3)
    await plain_device.control.cut(plain_device.name)

    await plain_device.control.wait_events("login", 2, device=plain_device.name)
    assert await plain_device.control.events("fault")


@pytest.mark.parametrize(("kind", "stage"), [("error", "connect"), ("drop", "tls"), ("error", "upgrade")])
async def test_a_refused_stage_is_tried_again(plain_device: PlainDevice, kind: str, stage: str) -> None:
    await plain_device.control.fault(kind, stage, device=plain_device.number, code=503)
    await plain_device.control.cut(plain_device.name)

    await plain_device.control.wait_events("login", 2, device=plain_device.name)
    assert await plain_device.control.events("fault")


async def test_starting_over_does_not_wait_for_what_a_fault_holds_up(plain_device: PlainDevice) -> None:
    await plain_device.control.fault("delay", "login", seconds=3600)
    await plain_device.control.cut(plain_device.name)
    await plain_device.control.wait_events("fault", device=plain_device.number)

    await plain_device.control.start_over()
    await plain_device.control.wait_events("login", device=plain_device.name)


@fact("A failed upload raises an error with its HTTP status", "messages/failures.py", "transport.py")
async def test_a_failed_upload_fails_the_send(plain_device: PlainDevice) -> None:
    await plain_device.control.fault("error", "upload", code=507, times=None)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    data = base64.b64encode(picture.getvalue()).decode()

    with pytest.raises(ClientError, match="507"):
        await plain_device.process.call("send_image", client="device", to=FRIEND, data=data)
    assert await plain_device.control.messages() == []
