"""Incoming messages with the daemon running: what somebody writes to a device becomes a row and an event, and can be answered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from neonize.proto.waHistorySync.WAWebProtobufsHistorySync_pb2 import HistorySync

from shardd.incoming_spool import IncomingSpool
from tests.fixtures.whatsapp_fleet import Fleet, Phone
from tests.integration.inbound.test_cloud_webhook import SECRET, WORD, free_port, signature
from tests.platform_server.server import PlatformServer
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.unit.inbound.test_cloud_notifications import NUMBER, notification
from tests.whatsapp_server.state.phones import e2e
from tests.whatsapp_server.wire.nodes import lid_jid


def inbox(fleet: Fleet) -> list[dict[str, Any]]:
    return fleet.rows("SELECT * FROM shardd.inbox ORDER BY id")


def events(fleet: Fleet) -> list[dict[str, Any]]:
    rows = fleet.rows("SELECT data FROM shardd.read_events(NULL, 1000, '{message.received}')")
    return [row["data"] for row in rows]


async def online(fleet: Fleet, phone: Phone, person: str, body: str = "Do you want more?") -> dict[str, Any]:
    """The job that opened the device."""
    return await fleet.job_is(fleet.send(phone, body, person), "sent")


async def test_a_reply_is_told_with_its_job_and_answered_as_a_quote(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon()
    await daemon.start()
    job = await online(fleet, phone, person)

    quote = e2e.ContextInfo(stanzaID=job["message_id"], quotedMessage=e2e.Message(conversation="Do you want more?"))
    reply = e2e.Message(extendedTextMessage=e2e.ExtendedTextMessage(text="yes please, send me two", contextInfo=quote))
    reaction = e2e.Message(reactionMessage=e2e.ReactionMessage(text="👍", key={"ID": job["message_id"]}))
    control = fleet.server.control
    ids = [control.write_raw(phone.name, person, one.SerializeToString()) for one in (reply, reaction)]
    ids.append(control.write_media(phone.name, person, "document", b"%PDF-1.4 x", "application/pdf", caption="mine"))
    await fleet.until(lambda: len(inbox(fleet)) == 3)
    told = {row["message_id"]: row for row in inbox(fleet)}
    written, reacted, sent = (told[one] for one in ids)
    for row in told.values():
        assert (row["device_id"], row["number"], row["lid"]) == (phone.id, f"+{person}", str(lid_jid(person)))
        assert (row["name"], row["own"], row["status"], row["chat"]) == (f"Phone {person}", False, False, None)
    assert (written["kind"], written["text"], written["job_id"]) == ("text", "yes please, send me two", job["id"])
    assert (reacted["kind"], reacted["text"], reacted["job_id"]) == ("reaction", "👍", job["id"])
    assert (sent["kind"], sent["text"], sent["media_type"], sent["media_size"]) == (
        "document",
        "mine",
        "application/pdf",
        10,
    )
    assert sorted(one["id"] for one in events(fleet)) == sorted(row["id"] for row in told.values())

    fleet.rows(
        "INSERT INTO shardd.jobs (reply_to, body, class) VALUES (%s, 'Two are on their way', 'reply')", written["id"]
    )
    fleet.rows("INSERT INTO shardd.jobs (reply_to, body) VALUES (%s, 'Glad that you like it')", reacted["id"])
    (answer,) = await fleet.until(lambda: fleet.seen("Two are on their way"))
    assert (answer.recipient, answer.quoted_id, answer.error) == (person, written["message_id"], "")
    (plain,) = await fleet.until(lambda: fleet.seen("Glad that you like it"))
    assert (plain.recipient, plain.quoted_id) == (person, "")

    shardd = Command(daemon.config_file)
    listed = (await shardd("inbox", "list", "--json")).json
    assert [row["id"] for row in listed] == sorted(told_id for told_id in (row["id"] for row in told.values()))[::-1]
    shown = (await shardd("inbox", "show", str(written["id"]), "--json")).json
    assert (shown["text"], shown["job_id"]) == (written["text"], job["id"])
    assert await daemon.stop() == 0
    assert not list((daemon.state_dir / "inbox").iterdir())


async def test_what_is_spooled_outlives_every_process(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    people = [fleet.stranger() for _ in range(3)]
    daemon = fleet.daemon()
    await daemon.start()
    await online(fleet, phone, people[0])
    spool = IncomingSpool(daemon.state_dir)
    with psycopg.connect(fleet.dsn) as nobody_can_write:
        nobody_can_write.execute("LOCK TABLE shardd.messages, shardd.opt_outs IN EXCLUSIVE MODE")
        for number, person in enumerate(people):
            fleet.server.control.write(phone.name, person, "STOP" if number == 2 else f"hello {number}")
        await fleet.until(lambda: len(spool.names()) == 3)
        workers = daemon.worker_pids()
        daemon.kill(signal.SIGSTOP)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        daemon.kill(signal.SIGKILL)
        await daemon.wait_end()
    # A session that waited for the lock may still store its row, though the process that wanted it is dead.
    again = fleet.send(phone, "after the stop", people[2])
    await daemon.start()
    await fleet.until(lambda: len(inbox(fleet)) == 3)
    assert [(row["text"], row["opt_out"]) for row in inbox(fleet)] == [
        ("hello 0", False),
        ("hello 1", False),
        ("STOP", True),
    ]
    await fleet.job_is(again, "opted_out")
    assert sorted(one["id"] for one in events(fleet)) == [row["id"] for row in inbox(fleet)]
    assert await daemon.stop() == 0
    assert spool.names() == []


async def test_a_reply_by_the_cloud_api_is_answered_in_its_context(
    make_daemon: Callable[..., Daemon], producer: Producer, platforms: PlatformServer
) -> None:
    webhook = {"listen": f"127.0.0.1:{free_port()}", "app_secret": SECRET, "verify_token": WORD}
    daemon = make_daemon(transports={"cloud_api": {"base": platforms.base, "webhook": webhook}})
    settings = json.dumps({"phone_number_id": NUMBER, "token": "some-token"})
    producer.execute("INSERT INTO shardd.devices (id, transport, settings) VALUES ('p1', 'cloud_api', %s)", settings)
    await daemon.start()
    said = {
        "id": "wamid.A",
        "from": "6281234567890",
        "timestamp": "1700000000",
        "type": "text",
        "text": {"body": "two"},
    }
    contacts = [{"wa_id": "6281234567890", "profile": {"name": "Ada"}}]
    body = json.dumps(notification(messages=[said], contacts=contacts)).encode()
    headers = {"X-Hub-Signature-256": signature(body)}
    async with aiohttp.ClientSession() as http:
        for _ in range(2):  # Meta may repeat it
            async with http.post(f"http://{webhook['listen']}/cloud_api", data=body, headers=headers) as answer:
                assert answer.status == 200
    while not (rows := producer.execute("SELECT id, sender, name, text FROM shardd.inbox")):
        await daemon.wait_change()
    ((message, *told),) = rows
    assert told == ["+6281234567890", "Ada", "two"]
    producer.execute("INSERT INTO shardd.jobs (reply_to, body) VALUES (%s, 'Two it is')", message)
    (sent,) = await platforms.until_received(1)
    assert (sent.recipient, sent.content["context"]) == ("6281234567890", {"message_id": "wamid.A"})
    assert await daemon.stop() == 0


def hostile() -> list[bytes]:
    nested = e2e.Message(conversation="too deep")
    for _ in range(60):
        outer = e2e.Message()
        outer.ephemeralMessage.message.CopyFrom(nested)
        nested = outer
    return [
        b"\xff\xfe\x00 no message at all",
        e2e.Message(conversation="x" * 3_000_000).SerializeToString(),
        b"\x0a\x05\xff\xfe\x00ab",  # a text that is not UTF-8, with a NUL
        e2e.Message(conversation="'; DROP TABLE shardd.jobs; --\x1b[2J\u202e\x00").SerializeToString(),
        nested.SerializeToString(),
        e2e.Message(imageMessage=e2e.ImageMessage(mimetype="a/" + "b" * 9000, fileLength=2**63)).SerializeToString(),
    ]


async def test_a_hostile_message_costs_only_itself(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person, friend = fleet.stranger(), fleet.stranger()
    daemon = fleet.daemon()
    await daemon.start()
    await online(fleet, phone, person)
    workers = set(daemon.worker_pids())
    for content in hostile():
        fleet.server.control.write_raw(phone.name, person, content)
    fleet.server.control.write(phone.name, friend, "and me?")
    await fleet.until(lambda: any(row["text"] == "and me?" for row in inbox(fleet)))
    texts = [row["text"] for row in inbox(fleet) if row["sender"] == f"+{person}" and row["kind"] == "text"]
    assert "x" * 65536 in texts
    assert "'; DROP TABLE shardd.jobs; --\x1b[2J\u202e\N{REPLACEMENT CHARACTER}" in texts
    assert len(texts) >= 3
    status = await daemon.status()
    assert not status["problem_kinds"].get("inbox")
    shardd = Command(daemon.config_file)
    listed = await shardd("inbox", "list")
    assert (listed.code, "\x1b" in listed.out, "\u202e" in listed.out) == (0, False, False)
    await online(fleet, phone, friend, "the device still sends")
    assert set(daemon.worker_pids()) == workers
    assert await daemon.stop() == 0


def earlier(person: str, group: str) -> bytes:
    """What a phone sends of chats before the pairing."""
    history = HistorySync(syncType=HistorySync.RECENT)
    chat = history.conversations.add(ID=str(lid_jid(person)), pnJID=f"{person}@s.whatsapp.net")
    for message_id, text, at, own in (
        ("H2", "STOP", 1_700_000_100, False),
        ("H1", "hello, this is us", 1_700_000_000, True),
    ):
        message = chat.messages.add().message
        message.key.ID, message.key.fromMe, message.messageTimestamp = message_id, own, at
        message.message.conversation = text
    shared = history.conversations.add(ID=group).messages.add().message
    shared.key.ID, shared.participant, shared.messageTimestamp = "H3", f"{person}@s.whatsapp.net", 1_700_000_200
    shared.message.conversation = "all of you"
    return history.SerializeToString()


async def test_groups_and_more_are_left_out_unless_asked_for(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon()
    await daemon.start()
    await online(fleet, phone, person)
    group = fleet.server.control.create_group("us", [phone.number, person])
    control = fleet.server.control
    control.write(phone.name, person, "to all", group=group)
    control.post_status(phone.name, person, "at the beach")
    control.write_from_owner(phone.name, person, "by hand")
    control.write(phone.name, person, "to you")
    await fleet.until(lambda: inbox(fleet))
    assert [row["text"] for row in inbox(fleet)] == ["to you"]
    daemon.write_config(inbox={"include": "groups, own, status, history"})
    daemon.kill(signal.SIGHUP)
    shardd = Command(daemon.config_file)
    await shardd("restart")
    await online(fleet, phone, person, "once more")
    control.write(phone.name, person, "to all again", group=group)
    control.post_status(phone.name, person, "still at the beach")
    control.write_from_owner(phone.name, person, "by hand again")
    await fleet.until(lambda: len(inbox(fleet)) == 4)
    row, status, own = sorted(inbox(fleet)[1:], key=lambda row: (row["own"], row["status"]))
    assert (status["text"], status["status"], status["number"]) == ("still at the beach", True, f"+{person}")
    # The sender is who it was written to.
    assert (own["text"], own["own"], own["number"], own["chat"]) == ("by hand again", True, f"+{person}", None)
    assert (row["text"], row["chat"], row["number"]) == (
        "to all again",
        f"{group.removesuffix('@g.us')}@g.us",
        f"+{person}",
    )
    told = len(events(fleet))
    control.send_history(phone.name, earlier(person, "12345-678@g.us"))
    await fleet.until(lambda: len(inbox(fleet)) == 7)
    past = inbox(fleet)[4:]
    # Oldest first. Nothing follows from them: no event, and no opt-out.
    assert [(one["text"], one["own"], one["chat"], one["history"]) for one in past] == [
        ("hello, this is us", True, None, True),
        ("STOP", False, None, True),
        ("all of you", False, "12345-678@g.us", True),
    ]
    assert {(one["number"], one["written_at"].year) for one in past} == {(f"+{person}", 2023)}
    assert not any(one["opt_out"] for one in past)
    assert len(events(fleet)) == told
    fleet.rows("INSERT INTO shardd.jobs (reply_to, body) VALUES (%s, 'hello all')", row["id"])
    (answer,) = await fleet.until(lambda: fleet.seen("hello all"))
    assert answer.quoted_id == row["message_id"]
    assert await daemon.stop() == 0


async def test_a_spool_that_takes_nothing_is_reported_and_the_message_stored(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon()
    await daemon.start()
    await online(fleet, phone, person)
    spool = daemon.state_dir / "inbox"
    # The spool is not a folder now: no message can be written, as on a full disk.
    if spool.exists():
        spool.rename(daemon.state_dir / "away")
    spool.write_text("")
    fleet.server.control.write(phone.name, person, "can you hear me?")
    await fleet.until(lambda: inbox(fleet))
    status = await daemon.until(lambda status: bool(status["problem_kinds"]["inbox"]))
    assert any("cannot be written to the disk" in text and str(spool) in text for text in status["problems"])
    spool.unlink()
    await daemon.until(lambda status: not status["problem_kinds"]["inbox"])
    await online(fleet, phone, person, "still here")
    assert [one["text"] for one in events(fleet)] == ["can you hear me?"]
    assert await daemon.stop() == 0


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """A disk without a free byte in the place of a folder."""
    folder.mkdir(0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", folder], check=True)
    try:
        (folder / "ballast").write_bytes(b"x" * (1 << 20))
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk")
async def test_a_full_disk_ends_no_worker_and_loses_nothing(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person, other = fleet.stranger(), fleet.stranger()
    daemon = fleet.daemon()
    with full_disk(IncomingSpool(daemon.state_dir).folder):
        await daemon.start()
        await online(fleet, phone, person)
        workers = set(daemon.worker_pids())
        fleet.server.control.write(phone.name, person, "can you hear me?")
        fleet.server.control.write(phone.name, other, "STOP")
        await fleet.until(lambda: len(inbox(fleet)) == 2 and fleet.rows("SELECT 1 FROM shardd.opt_outs"))
        status = await daemon.until(lambda status: bool(status["problem_kinds"]["inbox"]))
        assert any("No space left on device" in text for text in status["problems"])
        await online(fleet, phone, person, "still here")
        assert set(daemon.worker_pids()) == workers
    await daemon.until(lambda status: not status["problem_kinds"]["inbox"])
    assert await daemon.stop() == 0
