"""Files of incoming messages with the daemon running: downloaded below a folder within limits, if the config asks for it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.acceptance.test_inbox import full_disk, inbox, online
from tests.fixtures.whatsapp_fleet import Fleet
from tests.integration.inbound.test_cloud_webhook import SECRET, WORD, free_port, signature
from tests.platform_server.server import Connection, PlatformServer, Step
from tests.platform_server.wire import Request, answer, read_request
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.unit.inbound.test_cloud_notifications import NUMBER, notification

PICTURE = b"\xff\xd8\xff\xe0" + hashlib.shake_256(b"a picture").digest(700_001)


def media_events(fleet: Fleet) -> list[dict[str, Any]]:
    rows = fleet.rows("SELECT data FROM shardd.read_events(NULL, 1000, '{message.media}')")
    return [row["data"] for row in rows]


def content(path: Path) -> bytes:
    return path.read_bytes()


def leave(path: Path) -> None:
    path.write_bytes(b"an orphan")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_file_is_stored_with_its_bytes_under_a_name_of_its_own_and_told(fleet: Fleet, tmp_path: Path) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    folder = tmp_path / "files"
    folder.mkdir()
    daemon = fleet.daemon(inbox={"media": "download", "media_dir": str(folder), "media_max_bytes": "1MiB"})
    await daemon.start()
    await online(fleet, phone, person)
    control = fleet.server.control
    control.write_media(phone.name, person, "image", PICTURE, "image/jpeg", caption="../../etc/cron.d/x")
    await fleet.until(lambda: len(inbox(fleet)) == 1 and inbox(fleet)[0]["media_path"])
    (row,) = inbox(fleet)
    path = Path(row["media_path"])
    assert content(path) == PICTURE
    assert path.parent.parent == folder
    assert re.fullmatch(r"[0-9a-f]{32}\.jpg", path.name)
    assert mode(path) == 0o640
    assert (row["media_error"], row["media_node"]) == (None, path.parent.name)
    (event,) = await fleet.until(lambda: media_events(fleet))
    assert (event["id"], event["media"]["path"]) == (row["id"], str(path))
    assert not list((daemon.state_dir / "inbox").iterdir()), "the key is gone"
    shown = (await Command(daemon.config_file)("inbox", "show", str(row["id"]), "--json")).json
    assert shown["media_path"] == str(path)

    assert await daemon.stop() == 0


def downloads(fleet: Fleet) -> int:
    """Requests for files that WhatsApp's storage answered, or that a fault struck."""
    struck = [event for event in fleet.server.control.events("fault") if event.details["at"] == "download"]
    return len(fleet.server.control.events("download")) + len(struck)


def row_of(fleet: Fleet, message_id: str) -> dict[str, Any]:
    (row,) = fleet.rows("SELECT * FROM shardd.inbox WHERE message_id = %s", message_id)
    return row


async def test_a_file_and_a_key_go_with_the_person_and_with_the_age_of_the_message(
    fleet: Fleet, tmp_path: Path
) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon(inbox={"media": "download", "media_dir": str(tmp_path)})
    await daemon.start()
    await online(fleet, phone, person)
    control = fleet.server.control
    control.write_media(phone.name, person, "image", PICTURE, "image/jpeg")
    await fleet.until(lambda: files(tmp_path) and inbox(fleet)[0]["media_path"])
    fault = await fleet.control.fault("error", "download", code=503, times=None)
    control.write_media(phone.name, person, "audio", PICTURE, "audio/ogg")
    await fleet.until(lambda: any("503" in (row["media_error"] or "") for row in inbox(fleet)))
    assert files(daemon.state_dir / "inbox")
    forgotten = await Command(daemon.config_file)("opt-out", "forget", f"+{person}", "--yes")
    assert forgotten.code == 0
    await fleet.until(lambda: not files(tmp_path) and not files(daemon.state_dir / "inbox"))
    await fleet.control.remove_fault(fault)

    # What inbox.keep says is done at every start.
    friend = fleet.stranger()
    control.write_media(phone.name, friend, "image", PICTURE, "image/jpeg")
    await fleet.until(lambda: inbox(fleet) and inbox(fleet)[0]["media_path"])
    assert len(files(tmp_path)) == 1
    fleet.rows("UPDATE shardd.messages SET received_at = now() - interval '31 days'")
    assert await daemon.stop() == 0
    await daemon.start()
    await fleet.until(lambda: not files(tmp_path))
    await fleet.until(lambda: not fleet.rows("SELECT 1 FROM shardd.deleted_media"))
    assert inbox(fleet) == []
    assert await daemon.stop() == 0


async def test_hostile_files_are_refused_each_in_words_and_mostly_without_a_request(
    fleet: Fleet, tmp_path: Path
) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon(inbox={"media": "download", "media_dir": str(tmp_path), "media_max_bytes": "512KiB"})
    await daemon.start()
    await online(fleet, phone, person)

    def write(data: bytes = PICTURE[:1000], **claims: Any) -> str:
        return fleet.server.control.write_media(phone.name, person, "image", data, "image/png", claims=claims)

    without_request = {
        write(PICTURE): "it has 700005 bytes, more than inbox.media_max_bytes (524288)",
        write(fileLength=2**62): f"it has {2**62} bytes, more than inbox.media_max_bytes (524288)",
        write(viewOnce=True): "it is to be viewed once",
        write(directPath="http://127.0.0.1:1/x"): "the message does not say where it is",
        write(directPath="/a b\r\nHost: evil.example"): "the message does not say where it is",
        write(directPath=""): "the message does not say where it is",
    }
    await fleet.until(lambda: len(inbox(fleet)) == len(without_request))
    for message_id, error in without_request.items():
        row = row_of(fleet, message_id)
        assert (row["media_path"], row["media_node"], row["media_error"][: len(error)]) == (None, None, error)
    assert downloads(fleet) == 0

    with_request = {
        write(PICTURE, fileLength=1000): "it is larger than its message",
        write(directPath="//evil.example/x?y"): "WhatsApp's storage does not have it any more (404)",
        write(directPath="/@evil.example/../../x"): "WhatsApp's storage does not have it any more (404)",
    }
    await fleet.until(lambda: all(row["media_error"] for row in inbox(fleet)) and len(inbox(fleet)) == 9)
    for message_id, error in with_request.items():
        row = row_of(fleet, message_id)
        assert (row["media_path"], row["media_error"][: len(error)]) == (None, error)
    assert downloads(fleet) == 3
    assert len(media_events(fleet)) == 3
    assert files(tmp_path) == []
    assert not (await daemon.status())["problem_kinds"].get("inbox")
    assert await daemon.stop() == 0
    assert not list((daemon.state_dir / "inbox").iterdir()), "no key is left"


async def test_never_makes_no_request_and_keeps_no_key(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon()
    await daemon.start()
    await online(fleet, phone, person)
    daemon.kill(signal.SIGSTOP)
    spool = daemon.state_dir / "inbox"
    fleet.server.control.write_media(phone.name, person, "image", PICTURE, "image/png")
    (spooled,) = await fleet.until(lambda: files(spool))
    assert b'"source"' not in content(spooled)
    daemon.kill(signal.SIGCONT)
    (row,) = await fleet.until(lambda: inbox(fleet))
    assert (row["media_type"], row["media_size"]) == ("image/png", len(PICTURE))
    assert (row["media_node"], row["media_path"], row["media_error"]) == (None, None, None)
    assert await daemon.stop() == 0
    assert downloads(fleet) == 0
    assert media_events(fleet) == []


async def test_a_download_that_hangs_delays_no_send_and_keeps_no_client_and_outlives_a_crash(
    fleet: Fleet, tmp_path: Path
) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon(
        inbox={"media": "download", "media_dir": str(tmp_path)}, transports={"whatsapp": {"idle_close": "1s"}}
    )
    await daemon.start()
    await online(fleet, phone, person)
    fault = await fleet.control.fault("mute", "download", times=None)
    written = fleet.server.control.write_media(phone.name, person, "document", PICTURE, "application/pdf")
    await fleet.until(lambda: downloads(fleet) == 1)
    row = row_of(fleet, written)
    assert (row["media_path"], row["media_error"], bool(row["media_node"])) == (None, None, True)
    await online(fleet, phone, person, "sent meanwhile")
    await fleet.asleep(daemon)
    assert row_of(fleet, written)["media_path"] is None

    workers = daemon.worker_pids()
    daemon.kill(signal.SIGKILL)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    await daemon.wait_end()
    await fleet.control.remove_fault(fault)
    (held,) = files(daemon.state_dir / "inbox")
    assert b'"source"' in content(held)
    assert mode(held) == 0o600
    (part,) = files(tmp_path)
    assert part.name.startswith(".part-")
    # Renamed, but not on its row yet.
    leave(part.parent / f"{'0' * 32}.pdf")
    await daemon.start()
    await fleet.until(lambda: row_of(fleet, written)["media_path"])
    (file,) = files(tmp_path)
    assert (content(file), file.suffix) == (PICTURE, ".pdf")
    assert len(media_events(fleet)) == 1
    assert await daemon.stop() == 0
    assert files(daemon.state_dir / "inbox") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk")
async def test_a_full_disk_is_an_error_of_the_row_and_a_problem_until_there_is_room(
    fleet: Fleet, tmp_path: Path
) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    folder = tmp_path / "files"
    daemon = fleet.daemon(inbox={"media": "download", "media_dir": str(folder)})
    with full_disk(folder):
        await daemon.start()
        await online(fleet, phone, person)
        written = fleet.server.control.write_media(phone.name, person, "video", PICTURE, "video/mp4", caption="look")
        await fleet.until(lambda: inbox(fleet) and row_of(fleet, written)["media_error"])
        row = row_of(fleet, written)
        assert (row["text"], row["media_path"]) == ("look", None)
        assert "No space left on device" in row["media_error"]
        status = await daemon.until(lambda status: bool(status["problem_kinds"].get("inbox")))
        assert any("files of incoming messages cannot be stored" in text for text in status["problems"])
        assert downloads(fleet) == 0
    await fleet.until(lambda: row_of(fleet, written)["media_path"])
    assert row_of(fleet, written)["media_error"] is None
    await daemon.until(lambda status: not status["problem_kinds"].get("inbox"))
    (file,) = files(folder)
    assert (content(file), file.suffix) == (PICTURE, ".mp4")
    assert [bool(event["media"].get("error")) for event in media_events(fleet)] == [True, False]
    assert await daemon.stop() == 0


async def test_a_file_beyond_the_total_waits_without_a_request_until_another_one_is_deleted(
    fleet: Fleet, tmp_path: Path
) -> None:
    (phone,) = fleet.add(1)
    person, other = fleet.stranger(), fleet.stranger()
    limits = {"media_total": "1MiB", "media_max_bytes": "1MiB"}
    daemon = fleet.daemon(inbox={"media": "download", "media_dir": str(tmp_path), **limits})
    await daemon.start()
    await online(fleet, phone, person)
    control = fleet.server.control
    first = control.write_media(phone.name, person, "image", PICTURE, "image/jpeg")
    await fleet.until(lambda: inbox(fleet) and row_of(fleet, first)["media_path"])
    second = control.write_media(phone.name, other, "image", PICTURE, "image/png", caption="look")
    await fleet.until(lambda: len(inbox(fleet)) == 2 and row_of(fleet, second)["media_error"])
    used_up = "inbox.media_total (1048576 bytes) is used up: make room"
    assert row_of(fleet, second)["media_error"] == f"it cannot be stored: {used_up}"
    status = await daemon.until(lambda status: bool(status["problem_kinds"].get("inbox")))
    assert any(used_up in text for text in status["problems"])
    small = control.write_media(phone.name, other, "image", PICTURE[:1000], "image/png")
    await fleet.until(lambda: len(inbox(fleet)) == 3 and row_of(fleet, small)["media_path"])
    assert downloads(fleet) == 2

    assert (await Command(daemon.config_file)("opt-out", "forget", f"+{person}", "--yes")).code == 0
    await fleet.until(lambda: row_of(fleet, second)["media_path"])
    await daemon.until(lambda status: not status["problem_kinds"].get("inbox"))
    assert {path.suffix: len(content(path)) for path in files(tmp_path) if path.stat().st_size > 1000} == {
        ".png": len(PICTURE)
    }
    assert await daemon.stop() == 0


def serves(asked: list[Request], body: dict[str, Any] | bytes) -> Step:
    async def step(connection: Connection) -> None:
        request = await read_request(connection.reader)
        assert request is not None
        asked.append(request)
        connection.writer.write(answer(200, body))

    return step


async def test_a_file_by_the_cloud_api_is_downloaded_with_the_accounts_token_from_meta_only(
    make_daemon: Callable[..., Daemon], producer: Producer, platforms: PlatformServer, tmp_path: Path
) -> None:
    webhook = {"listen": f"127.0.0.1:{free_port()}", "app_secret": SECRET, "verify_token": WORD}
    daemon = make_daemon(
        transports={"cloud_api": {"base": platforms.base, "webhook": webhook}},
        inbox={"media": "download", "media_dir": str(tmp_path)},
    )
    settings = json.dumps({"phone_number_id": NUMBER, "token": "some-token"})
    producer.execute("INSERT INTO shardd.devices (id, transport, settings) VALUES ('p1', 'cloud_api', %s)", settings)
    await daemon.start()
    asked: list[Request] = []
    digest = hashlib.sha256(PICTURE).hexdigest()

    async def receives(media_id: str, about: dict[str, Any], file: bytes) -> tuple[str | None, str | None]:
        platforms.next(serves(asked, about), serves(asked, file))
        said = {"id": f"wamid.{media_id}", "from": "6281234567890", "timestamp": "1700000000", "type": "image"}
        image = {"id": media_id, "mime_type": "image/jpeg", "sha256": "x"}
        body = json.dumps(notification(messages=[{**said, "image": image}], contacts=[])).encode()
        headers = {"X-Hub-Signature-256": signature(body)}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"http://{webhook['listen']}/cloud_api", data=body, headers=headers) as answered,
        ):
            assert answered.status == 200
        ask = (
            "SELECT media_path, media_error FROM shardd.inbox "
            "WHERE message_id = %s AND num_nonnulls(media_path, media_error) > 0"
        )
        while not (rows := producer.execute(ask, said["id"])):
            await daemon.wait_change()
        ((path, error),) = rows
        return path, error

    url = f"{platforms.base}/file?mid=41&hash=abc"
    path, error = await receives("41", {"url": url, "sha256": digest, "file_size": str(len(PICTURE))}, PICTURE)
    assert error is None
    assert path is not None
    assert (content(Path(path)), Path(path).suffix) == (PICTURE, ".jpg")
    assert [(one.method, one.path) for one in asked] == [("GET", "/v23.0/41"), ("GET", "/file?mid=41&hash=abc")]
    assert {one.headers["authorization"] for one in asked} == {"Bearer some-token"}

    path, error = await receives("42", {"url": url, "sha256": digest}, b"something else")
    assert (path, error) == (None, "what arrived is not the one that the message describes")
    path, error = await receives("43", {"url": "https://graph.facebook.com.evil.example/x"}, b"")
    assert (path, error) == (None, "the Cloud API names a URL that is not Meta's")
    assert len(asked) == 5
    assert len(files(tmp_path)) == 1
    assert await daemon.stop() == 0
