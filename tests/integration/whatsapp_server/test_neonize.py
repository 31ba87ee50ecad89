"""The real neonize with the test server: linking, messages both ways, files, groups, receipts, unlinking."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from shardd.transports.whatsapp.clients.recent import KEPT
from tests.support.facts import fact
from tests.whatsapp_server.client.device import PlainDevice
from tests.whatsapp_server.client.process import ClientError, ClientProcess
from tests.whatsapp_server.control_client import ControlError
from tests.whatsapp_server.launch import ServerProcess

FRIEND = "6281299990001"


@fact("Pairing by QR code: the event qr, then PairStatus, then Connected", "linking/pairing.py")
async def test_a_device_pairs_by_qr_and_its_text_is_decrypted(plain_device: PlainDevice) -> None:
    message_id = await plain_device.send(FRIEND, "selamat pagi")

    [message] = await plain_device.control.wait_messages(recipient=FRIEND)

    assert (message.id, message.sender_device, message.kind, message.text) == (
        message_id,
        plain_device.name,
        "text",
        "selamat pagi",
    )
    assert message.read_by == [FRIEND]
    assert not message.bot_tag
    assert [arrival.outcome for arrival in message.arrivals] == ["ack"]
    paired = await plain_device.event("PairStatus")
    assert paired.details["ID"]["User"] == plain_device.number


@pytest.mark.parametrize("right", [True, False])
@fact("Pairing by a typed code: PairPhone once the QR code is there", "linking/pairing.py")
async def test_a_device_pairs_by_the_code_its_owner_types(
    whatsapp: ServerProcess, plain_process: ClientProcess, tmp_path: Path, fresh_number: str, right: bool
) -> None:
    control = whatsapp.async_control
    store = str(tmp_path / "store.sqlite")
    await plain_process.call("open", client="new", store=store, proxy=whatsapp.proxy_url())
    await plain_process.event("qr", "new")
    code = await plain_process.call("pair_phone", client="new", number=fresh_number)

    outcome = await control.enter_code(fresh_number, code if right else "ABCD1234")

    if right:
        assert outcome == "paired"
        await plain_process.event("Connected", "new")
        await plain_process.call("send", client="new", to=FRIEND, text="linked by code")
        [message] = await control.wait_messages(recipient=FRIEND)
        assert (message.sender, message.text) == (fresh_number, "linked by code")
    else:
        assert outcome == "wrong_code"
        assert not await control.events("paired", device=fresh_number)


async def test_a_code_that_nobody_shows_is_refused(whatsapp: ServerProcess) -> None:
    with pytest.raises(ControlError, match="no client is waiting for a code"):
        await whatsapp.async_control.enter_code("62811", "ABCDEFGH")
    with pytest.raises(ControlError, match="no client is waiting with this QR code"):
        await whatsapp.async_control.scan("https://wa.me/settings/linked_devices#x,AA==,AA==,AA==,1", "62811")


@fact("A client that was stopped is gone, and its session can be opened again", "clients/client.py", "clients/pool.py")
async def test_a_session_logs_in_again_from_its_store(plain_device: PlainDevice) -> None:
    await plain_device.send(FRIEND, "before")
    await plain_device.close()
    await plain_device.control.wait_events("disconnect", device=plain_device.name)

    await plain_device.open(proxy=plain_device.server.proxy_url("somebody", scheme="socks5"))
    await plain_device.event("Connected")
    await plain_device.send(FRIEND, "after")

    messages = await plain_device.control.wait_messages(2, recipient=FRIEND)
    assert [message.text for message in messages] == ["before", "after"]
    logins = await plain_device.control.events("login", device=plain_device.name)
    assert [login.details["proxy_user"] for login in logins] == [plain_device.number, "somebody"]


@fact("Receipts are events with the ids of their messages and a type", "clients/receipts.py")
async def test_receipts_come_by_themselves_and_on_demand(plain_device: PlainDevice) -> None:
    control = plain_device.control
    await control.settings(receipts="read")
    first = await plain_device.send(FRIEND, "one")
    delivered = await plain_device.event("Receipt", where=lambda details: details["MessageIDs"] == [first])
    read = await plain_device.event("Receipt", where=lambda details: details["MessageIDs"] == [first])
    assert delivered.details["Type"] != read.details["Type"]

    await control.settings(receipts="off")
    second = await plain_device.send(FRIEND, "two")
    assert not plain_device.process.seen("Receipt", "device")
    await control.receipt(plain_device.name, FRIEND, second, read=True)
    late = await plain_device.event("Receipt")
    assert late.details["MessageIDs"] == [second]
    assert late.details["Type"] == read.details["Type"]


async def test_a_receipt_of_a_message_sent_before_a_drop_comes_after_it(plain_device: PlainDevice) -> None:
    control = plain_device.control
    await control.settings(receipts="off")
    message_id = await plain_device.send(FRIEND, "sent")
    await plain_device.close()
    await control.wait_events("disconnect", device=plain_device.name)
    await control.receipt(plain_device.name, FRIEND, message_id)
    await plain_device.open()
    assert (await plain_device.event("Receipt")).details["MessageIDs"] == [message_id]


@fact(
    "The library confirms a message by itself; one that was not confirmed comes again",
    "messages/arrivals.py",
    "clients/draining.py",
)
async def test_what_a_phone_writes_reaches_the_device_now_or_at_its_next_login(plain_device: PlainDevice) -> None:
    control = plain_device.control
    message_id = await control.write(plain_device.name, FRIEND, "stop")
    received = await plain_device.event("Message")
    assert (received.details["id"], received.details["text"]) == (message_id, "stop")
    confirmed = await control.wait_events("client_receipt", device=plain_device.name)
    assert confirmed[0].details["id"] == message_id

    await plain_device.send(FRIEND, "an answer")
    await plain_device.close()
    await control.wait_events("disconnect", device=plain_device.name)
    await control.write(plain_device.name, FRIEND, "while you were out")
    await plain_device.open()
    assert (await plain_device.event("Message")).details["text"] == "while you were out"
    [answer] = await control.messages(recipient=FRIEND)
    assert answer.text == "an answer"


@fact(
    "Files are encrypted with the keys of their kind",
    "messages/incoming.py",
    "messages/outgoing.py",
    "shardd/supervisor/inbound/media/sealed.py",
)
async def test_a_picture_goes_up_and_a_document_comes_down_intact(plain_device: PlainDevice) -> None:
    control = plain_device.control
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "green").save(picture, "JPEG")
    encoded = base64.b64encode(picture.getvalue()).decode()

    await plain_device.process.call("send_image", client="device", to=FRIEND, data=encoded, caption="look")
    [message] = await control.wait_messages(recipient=FRIEND)
    assert (message.kind, message.text, message.error) == ("image", "look", "")
    assert message.media.intact
    assert (message.media.mime_type, message.media.size) == ("image/jpeg", len(picture.getvalue()))

    document = os.urandom(300_000)
    message_id = await control.write_media(plain_device.name, FRIEND, "document", document, "application/pdf")
    await plain_device.event("Message")
    downloaded = await plain_device.process.call("download", client="device", message_id=message_id)
    assert base64.b64decode(downloaded) == document


async def test_a_group_reads_one_ciphertext_and_writes_back(plain_device: PlainDevice) -> None:
    control, members = plain_device.control, ["6281299990002", "6281299990003"]
    group = await control.create_group("Friends", [plain_device.number, *members])

    await plain_device.send(f"{group}@g.us", "hello all")
    await plain_device.send(f"{group}@g.us", "hello again")
    messages = await control.wait_messages(2, recipient=group)
    assert [(message.text, message.read_by, message.error) for message in messages] == [
        ("hello all", members, ""),
        ("hello again", members, ""),
    ]

    for text in ("hello you", "still here"):
        await control.write(plain_device.name, members[0], text, group=group)
        received = await plain_device.event("Message", where=lambda details: bool(details["text"]))
        assert (received.details["text"], received.details["chat"]) == (text, group)


@fact(
    "A number without an account: IsIn is false, and a send says no LID found",
    "messages/failures.py",
    "clients/lookups.py",
)
async def test_numbers_that_are_not_on_whatsapp(plain_device: PlainDevice) -> None:
    await plain_device.control.not_on_whatsapp("6281200000404")

    assert await plain_device.process.call("on_whatsapp", client="device", number=FRIEND)
    assert not await plain_device.process.call("on_whatsapp", client="device", number="6281200000404")
    with pytest.raises(ClientError, match="no LID found"):
        await plain_device.send("6281200000404", "anybody?")
    assert await plain_device.control.messages() == []


async def test_two_devices_of_this_server_write_to_each_other(
    whatsapp: ServerProcess, plain_device: PlainDevice, tmp_path: Path
) -> None:
    process, number = plain_device.process, "628119990001"
    await process.call("open", client="other", store=str(tmp_path / "other.sqlite"), proxy=whatsapp.proxy_url())
    await plain_device.control.scan((await process.event("qr", "other")).details["code"], number)
    await process.event("Connected", "other")
    await plain_device.control.wait_events("prekeys_uploaded", device=number)

    await plain_device.send(number, "from client to client")
    assert (await process.event("Message", "other")).details["text"] == "from client to client"


@fact("logout unlinks the device at WhatsApp", "linking/unlinking.py")
async def test_a_device_that_logs_out_may_not_come_back(plain_device: PlainDevice) -> None:
    await plain_device.process.call("logout", client="device")
    await plain_device.control.wait_events("logout", device=plain_device.name)
    with pytest.raises(ControlError, match="no device"):
        await plain_device.control.write(plain_device.name, FRIEND, "hello?")


@pytest.mark.timeout(120)
@fact(
    "The library keeps the last 256 messages of a client, and answers retry receipts from there",
    "clients/recent.py",
    "clients/receipts.py",
    "clients/closing.py",
)
async def test_the_library_can_encrypt_its_last_messages_again_and_no_earlier_one(plain_device: PlainDevice) -> None:
    """How many these are decides which retry receipts shardd answers itself (whatsmeow, retry.go: `recentMessagesSize`)."""
    ids = [await plain_device.send(FRIEND, f"message {number}") for number in range(KEPT + 1)]
    forgotten, oldest = ids[:2]
    await plain_device.control.reinstall(FRIEND)
    for message_id in (forgotten, oldest):
        await plain_device.control.receipt(plain_device.name, FRIEND, message_id, kind="retry")
    asked = await plain_device.control.wait_events("retry_receipt", device=plain_device.name)

    assert {one.details["id"] for one in asked} == {oldest}
    [message] = await plain_device.control.messages(message_id=forgotten)
    assert len(message.arrivals) == 1
