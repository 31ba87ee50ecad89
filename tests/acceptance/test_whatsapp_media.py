"""Media from a row to a phone: what a producer may name, the resource limits, and what the row contains."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from PIL import Image

from shardd.transports.whatsapp.media.recording import NOT_INSTALLED
from tests.fixtures.whatsapp_fleet import Fleet, Phone
from tests.support.media_files import HTML, MP3, OPUS, peak, plain_image, upright
from tests.support.recordings import film, sound, turned

ROOM = 400 * 2**20
"""Bytes that a worker may take here; twelve decodings of the large image at once would take three times as much."""


def send(fleet: Fleet, phone: Phone, kind: str, media: str) -> int:
    """A job that is tried once."""
    (row,) = fleet.rows(
        "INSERT INTO shardd.jobs (device_id, recipient, kind, media, max_attempts) VALUES (%s, %s, %s, %s, 1) RETURNING id",
        *(phone.id, "+" + fleet.stranger(), kind, media),
    )
    return int(row["id"])


async def test_twelve_large_images_at_once_cost_no_worker(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(plain_image(6000, 4000))
    phones = fleet.add(12)
    daemon = fleet.daemon(
        shards=1,
        worker={"recycle": {"rss": f"{ROOM}B"}},
        transports={"whatsapp": {"media_dir": str(tmp_path)}},
    )
    await daemon.start()
    (before,) = (await daemon.status())["shards"]
    for phone in phones:
        send(fleet, phone, "image", "large.png")
    assert await fleet.finished(12) == {"sent": 12}
    (after,) = (await daemon.status())["shards"]
    assert (after["pid"], after["restarts"]) == (before["pid"], 0)
    assert peak(after["pid"]) < ROOM
    assert fleet.rows("SELECT max(attempt) AS attempt, max(failures) AS failures FROM shardd.archive") == [
        {"attempt": 1, "failures": 0}
    ]
    for message in fleet.server.control.messages():
        assert message.media is not None
        assert (message.media.width, message.media.height, message.media.intact) == (6000, 4000, True)
        with Image.open(io.BytesIO(base64.b64decode(message.media.thumbnail))) as thumbnail:
            assert thumbnail.size == (72, 48)


async def test_a_contact_card_has_a_number_that_can_be_dialled(fleet: Fleet) -> None:
    """Numbers of cards are read like recipients: by the region of the device."""
    (phone,) = fleet.add(1)
    daemon = fleet.daemon(shards=1, transports={"whatsapp": {"default_region": "DE"}})
    await daemon.start()
    card = "INSERT INTO shardd.jobs (device_id, recipient, kind, details) VALUES (%s, %s, 'contact', %s) RETURNING id"
    for number, written in enumerate(("030 1234567", "0049301234567", "+49 (0)30 1234567"), 1):
        details = json.dumps({"name": "Praxis", "phone": written})
        (job,) = fleet.rows(card, phone.id, "+" + fleet.stranger(), details)
        await fleet.job_is(job["id"], "sent")
        message = (await fleet.server.async_control.wait_messages(number))[-1]
        assert "TEL;type=CELL;waid=49301234567:+49301234567" in message.text
    with pytest.raises(psycopg.errors.CheckViolation, match=r"details\.phone '12' cannot be"):
        fleet.rows(card, phone.id, "+" + fleet.stranger(), json.dumps({"name": "Praxis", "phone": "12"}))


@pytest.fixture
async def intranet() -> AsyncIterator[tuple[int, list[str]]]:
    """A server that only this machine can reach, and who came."""
    visits: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append((await reader.readline()).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: audio/ogg\r\nConnection: close\r\n\r\n" + HTML)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], visits


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "0x7f.1", "localhost"])
async def test_a_producer_does_not_reach_what_this_machine_reaches(
    fleet: Fleet, intranet: tuple[int, list[str]], host: str
) -> None:
    port, visits = intranet
    (phone,) = fleet.add(1)
    daemon = fleet.daemon(shards=1)
    await daemon.start()
    job = send(fleet, phone, "document", f"http://{host}:{port}/secrets")
    row = await fleet.job_is(job, "failed")
    assert (row["error_class"], row["failures"]) == ("content", 1)
    assert row["error"].startswith(f"media http://{host}:{port}/secrets is refused: ")
    assert row["error"].endswith("in transports.whatsapp.media_hosts")
    assert visits == []
    assert fleet.server.control.messages(accepted_only=False) == []


async def test_a_redirect_leads_a_producer_no_further(fleet: Fleet, intranet: tuple[int, list[str]]) -> None:
    port, visits = intranet

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/secrets\r\nConnection: close\r\n\r\n" % port)
        writer.close()

    async with await asyncio.start_server(redirect, "127.0.0.1", 0) as allowed:
        place = f"127.0.0.1:{allowed.sockets[0].getsockname()[1]}"
        (phone,) = fleet.add(1)
        daemon = fleet.daemon(shards=1, transports={"whatsapp": {"media_hosts": place}})
        await daemon.start()
        row = await fleet.job_is(send(fleet, phone, "document", f"http://{place}/x"), "failed")
    assert (row["error_class"], row["failures"]) == ("content", 1)
    assert row["error"].startswith(
        f"media http://{place}/x is refused: it redirects to http://127.0.0.1:{port}/secrets, "
        "and 127.0.0.1 has a loopback address"
    )
    assert visits == []
    assert fleet.server.control.messages(accepted_only=False) == []


async def test_no_secret_of_a_url_is_told_to_anybody(fleet: Fleet, intranet: tuple[int, list[str]]) -> None:
    port, visits = intranet
    (phone,) = fleet.add(1)
    daemon = fleet.daemon(shards=1, transports={"whatsapp": {"media_hosts": f"127.0.0.1:{port}, 127.0.0.1:1"}})
    await daemon.start()
    places = {
        "nobody": "http://user:s3cret@127.0.0.1:1/x?signature=s3cret#s3cret",
        "not allowed": "http://user:s3cret@127.0.0.2:1/x?signature=s3cret#s3cret",
        "no port": "http://user:s3cret@127.0.0.1:s3cret/x",
        "a page": f"http://user:s3cret@127.0.0.1:{port}/x?signature=s3cret#s3cret",
    }
    jobs = {why: send(fleet, phone, "voice", place) for why, place in places.items()}
    await fleet.finished(len(jobs))
    errors = {why: fleet.job(job)["error"] for why, job in jobs.items()}
    assert all(fleet.job(job)["state"] == "failed" for job in jobs.values()), errors
    assert "media http://127.0.0.1:1/x cannot be fetched: Connection refused" in errors["nobody"]
    assert "127.0.0.2 has a loopback address" in errors["not allowed"]
    assert "it is not an http(s) URL" in errors["no port"]
    assert "the media is text/html, perhaps a page that the server sent instead of the file" in errors["a page"]
    assert visits == ["GET /x?signature=s3cret HTTP/1.1\r\n"]
    events = fleet.rows("SELECT event::text AS words FROM shardd.events AS event WHERE kind = 'job.failed'")
    assert len(events) == len(jobs)
    told = str(errors) + str(events) + daemon.log_file.read_text(encoding="utf-8")
    assert "s3cret" not in told
    assert fleet.server.control.messages(accepted_only=False) == []


async def test_voice_audio_and_video_arrive_as_people_send_them(fleet: Fleet, tmp_path: Path) -> None:
    files = {
        "note.ogg": ("voice", sound(3, loudness=lambda second: 0.05 if second < 1.5 else 0.8)),
        "song.mp3": ("audio", sound(2, "mp3", "libmp3lame")),
        "clip.mp4": ("video", turned(film(2, image=upright().transpose(Image.Transpose.ROTATE_90)))),
        "cut.mp4": ("video", film(2)[:1500]),
        "claim.ogg": ("voice", OPUS),
        "song as voice.mp3": ("voice", MP3),
    }
    for name, (_, data) in files.items():
        (tmp_path / name).write_bytes(data)
    (phone,) = fleet.add(1)
    daemon = fleet.daemon(shards=1, transports={"whatsapp": {"media_dir": str(tmp_path)}})
    await daemon.start()
    jobs = {name: send(fleet, phone, kind, name) for name, (kind, _) in files.items()}
    assert await fleet.finished(len(jobs)) == {"sent": len(jobs) - 1, "failed": 1}
    refused = fleet.job(jobs["song as voice.mp3"])["error"]
    assert "phones play only Ogg with Opus as voice" in refused
    assert "or send it as audio" in refused

    messages = {message.id: message for message in fleet.server.control.messages()}
    got = {name: messages[fleet.job(job)["message_id"]] for name, job in jobs.items() if "as voice" not in name}
    media = {name: message.media for name, message in got.items() if message.media}
    assert all(one.intact for one in media.values())
    assert {
        name: (got[name].kind, one.mime_type, one.seconds, one.width, one.height) for name, one in media.items()
    } == {
        "note.ogg": ("voice", "audio/ogg; codecs=opus", 3, 0, 0),
        "song.mp3": ("audio", "audio/mpeg", 2, 0, 0),
        "clip.mp4": ("video", "video/mp4", 2, 240, 400),
        "cut.mp4": ("video", "video/mp4", 0, 0, 0),
        "claim.ogg": ("voice", "audio/ogg; codecs=opus", 0, 0, 0),
    }
    bars = base64.b64decode(media["note.ogg"].waveform)
    assert len(bars) == 64
    assert max(bars[:31]) < 20
    assert min(bars[34:62]) > 80
    assert {name for name, one in media.items() if one.waveform} == {"note.ogg"}
    with Image.open(io.BytesIO(base64.b64decode(media["clip.mp4"].thumbnail))) as thumbnail:
        assert thumbnail.size == (43, 72)
        red, _, blue = thumbnail.convert("RGB").getpixel((21, 5))  # type: ignore[misc]
        assert red > blue
    assert {name for name, one in media.items() if one.thumbnail} == {"clip.mp4"}
    lines = [json.loads(line) for line in daemon.log_file.read_text(encoding="utf-8").splitlines()]
    noted = {line["job"] for line in lines if line["event"] == "media not fully analysed"}
    assert noted == {jobs["cut.mp4"], jobs["claim.ogg"]}
    assert NOT_INSTALLED not in (await daemon.status())["notes"]


async def test_without_pyav_a_voice_message_is_sent_and_the_status_says_what_it_lacks(
    fleet: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "note.ogg").write_bytes(sound(1))
    daemon = fleet.daemon(shards=1, transports={"whatsapp": {"media_dir": str(tmp_path)}})
    before = daemon.environ["PYTHONPATH"]  # makes the library trust the test server
    (tmp_path / "sitecustomize.py").write_text(
        f"import runpy, sys\nsys.modules['av'] = None\nrunpy.run_path({before + '/sitecustomize.py'!r})\n"
    )
    daemon.environ["PYTHONPATH"] = f"{tmp_path}:{before}"
    await daemon.start()
    assert (await daemon.status())["notes"] == []
    (phone,) = fleet.add(1)
    await fleet.job_is(send(fleet, phone, "voice", "note.ogg"), "sent")
    (message,) = fleet.server.control.messages()
    assert message.media is not None
    assert (message.kind, message.media.intact, message.media.seconds, message.media.waveform) == ("voice", True, 0, "")
    status = await daemon.status()
    assert (status["healthy"], status["notes"]) == (True, [NOT_INSTALLED])
