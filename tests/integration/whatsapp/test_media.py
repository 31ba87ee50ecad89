"""Every kind of message, as the simulated phone receives it."""

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from PIL import Image

from tests.integration.whatsapp.conftest import MakeDevice, StartHost
from tests.integration.whatsapp.host_process import HostProcess
from tests.support.media_files import BLUE, HTML, MP3, OPUS, RED, mp4, peak, photo, plain_image, scan_bomb
from tests.whatsapp_server.launch import ServerProcess

NUMBER = "6281234567890"


PICTURE = plain_image(640, 480)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "red.png").write_bytes(PICTURE)
    (folder / "price list.pdf").write_bytes(b"%PDF-1.4\n" + b"x" * 2000)
    (folder / "hello.ogg").write_bytes(OPUS)
    (folder / "clip.mp4").write_bytes(mp4(b"mp42", b"vide", b"soun"))
    (folder / "song.m4a").write_bytes(mp4(b"isom", b"soun"))
    (folder / "memo.3gp").write_bytes(mp4(b"3gp4", b"soun"))
    (folder / "song.mp3").write_bytes(MP3)
    (folder / "page.html").write_bytes(HTML)
    (folder / "portrait.jpg").write_bytes(photo(6))
    (folder / "bomb.jpg").write_bytes(scan_bomb())
    return folder


@pytest.fixture
async def sender(start_host: StartHost, folder: Path) -> HostProcess:
    return await start_host(media_dir=str(folder), media_hosts=["127.0.0.1"])


async def test_a_device_list_that_empties_during_the_upload_is_noticed(
    sender: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    """The library drops a list that WhatsApp reports as changed, and encrypts for whatever it is answered then."""
    name = device["session"].partition("@")[0]
    assert "message_id" in await sender.send(device, NUMBER)
    whatsapp.control.fault("delay", "upload", seconds=3.0)
    sending = asyncio.create_task(sender.send(device, NUMBER, "nobody sees it", kind="image", media="red.png"))
    await whatsapp.async_control.wait_events("fault", 1)
    whatsapp.control.fault("omit", "usync", device=name, times=None)
    whatsapp.control.change_devices(name, NUMBER)
    told = await sending
    assert (told["step"], told["error"]) == ("deliver", "TransientError"), told
    assert "could not have read the message: WhatsApp listed no device" in told["text"]
    whatsapp.control.clear_faults()
    assert "message_id" in await sender.send(device, NUMBER, "they do", kind="image", media="red.png")
    seen = await whatsapp.async_control.wait_messages(2, recipient=NUMBER)
    assert [message.text for message in seen] == ["hello", "they do"]


@pytest.mark.parametrize(
    ("kind", "name", "described"),
    [
        ("image", "red.png", ("image/png", "")),
        ("video", "clip.mp4", ("video/mp4", "")),
        ("audio", "hello.ogg", ("audio/ogg", "")),
        ("audio", "song.m4a", ("audio/mp4", "")),
        ("audio", "memo.3gp", ("audio/3gpp", "")),
        ("audio", "song.mp3", ("audio/mpeg", "")),
        ("voice", "hello.ogg", ("audio/ogg; codecs=opus", "")),
        ("document", "price list.pdf", ("application/pdf", "price list.pdf")),
    ],
)
async def test_a_file_arrives_as_it_is(
    sender: HostProcess,
    device: dict[str, Any],
    whatsapp: ServerProcess,
    *,
    folder: Path,
    kind: str,
    name: str,
    described: tuple[str, str],
) -> None:
    told = await sender.send(device, NUMBER, "a caption", kind=kind, media=name)
    assert "message_id" in told, told
    (message,) = await whatsapp.async_control.wait_messages(1, recipient=NUMBER)
    data = (folder / name).read_bytes()
    assert message.media is not None
    assert message.media.intact
    assert message.media.sha256 == hashlib.sha256(data).hexdigest()
    assert (message.media.mime_type, message.media.file_name) == described
    if kind in {"image", "video", "document"}:
        assert message.text == "a caption"


async def test_a_document_bears_the_name_and_type_it_was_given(
    sender: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    await sender.send(
        device,
        NUMBER,
        "",
        kind="document",
        media="data:;base64," + base64.b64encode(b"a,b\n1,2\n").decode(),
        file_name="Harga ☕.csv",
        mime_type="text/csv",
    )
    (message,) = await whatsapp.async_control.wait_messages(1, recipient=NUMBER)
    assert message.media is not None
    assert (message.media.file_name, message.media.mime_type) == ("Harga ☕.csv", "text/csv")


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [
        ("voice", "song.mp3", "the media is audio/mpeg; phones play only Ogg with Opus as voice"),
        ("voice", "page.html", "the media is text/html, perhaps a page that the server"),
        ("audio", "page.html", "the media is text/html, perhaps a page that the server"),
        ("image", "page.html", "the media is text/html, perhaps a page that the server"),
        ("audio", "clip.mp4", "the media is video/mp4; send it as video, or as a document"),
    ],
)
async def test_a_file_that_is_something_else_is_sent_to_nobody(
    sender: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, *, kind: str, name: str, why: str
) -> None:
    told = await sender.send(device, NUMBER, kind=kind, media=name, mime_type="audio/ogg; codecs=opus")
    assert (told["step"], told["error"]) == ("fetch", "PermanentError"), told
    assert told["text"].startswith(f"kind is '{kind}', but {why}")
    assert whatsapp.control.messages(accepted_only=False) == []
    assert (await sender.ask("counts"))["connects"] == 0


async def test_an_image_that_no_phone_shows_is_sent_to_nobody(
    sender: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, folder: Path
) -> None:
    (folder / "cut.jpg").write_bytes(photo(1)[:1500])
    (folder / "huge.png").write_bytes(plain_image(10_001, 10_000, "PNG", "1"))
    cut = await sender.send(device, NUMBER, kind="image", media="cut.jpg")
    huge = await sender.send(device, NUMBER, kind="image", media="huge.png")
    assert cut["text"].startswith("the media is not a readable image: send JPEG or PNG")
    assert huge["text"] == "the image has 10001 by 10000 pixels, which is too much: send it as a document"
    assert whatsapp.control.messages(accepted_only=False) == []


async def test_a_portrait_arrives_upright(sender: HostProcess, device: dict[str, Any], whatsapp: ServerProcess) -> None:
    await sender.send(device, NUMBER, kind="image", media="portrait.jpg")
    (message,) = await whatsapp.async_control.wait_messages(1, recipient=NUMBER)
    assert message.media is not None
    assert (message.media.mime_type, message.media.width, message.media.height) == ("image/jpeg", 240, 400)
    with Image.open(io.BytesIO(base64.b64decode(message.media.thumbnail))) as thumbnail:
        assert thumbnail.size == (43, 72)
        for place, colour in (((21, 5), RED), ((21, 67), BLUE)):
            seen = thumbnail.getpixel(place)
            assert isinstance(seen, tuple)
            assert max(abs(one - other) for one, other in zip(seen, colour, strict=True)) < 30


async def test_an_image_whose_preview_takes_too_long_arrives_without(
    sender: HostProcess, device: dict[str, Any], make_device: MakeDevice, whatsapp: ServerProcess, folder: Path
) -> None:
    other = make_device("6281190000001")
    told = await asyncio.gather(
        sender.send(device, NUMBER, "slow", kind="image", media="bomb.jpg"),
        sender.send(other, NUMBER, "quick", kind="document", media="price list.pdf"),
    )
    assert ["message_id" in one for one in told] == [True, True], told
    slow, quick = (whatsapp.control.messages(text=text)[0] for text in ("slow", "quick"))
    assert quick.arrivals[0].time < slow.arrivals[0].time
    assert slow.media is not None
    assert (slow.media.intact, slow.media.thumbnail, slow.media.mime_type) == (True, "", "image/jpeg")


async def test_a_data_uri_is_understood_however_it_is_spelled(
    sender: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    packed = base64.encodebytes(PICTURE).decode()
    for number, uri in enumerate((f"DATA:image/png;BASE64,{packed}", f" data:image/png; base64,{packed.rstrip('=')}")):
        await sender.send(device, NUMBER, f"{number}", kind="image", media=uri)
        (message,) = await whatsapp.async_control.wait_messages(1, text=f"{number}")
        assert message.media is not None
        assert message.media.sha256 == hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture
async def site() -> AsyncIterator[str]:
    """A web site with a picture, and a bill whose name stands in the header."""

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=PICTURE, content_type="image/png")

    async def bill(request: web.Request) -> web.Response:
        header = request.query.get("header")
        return web.Response(body=b"%PDF-1.4\n", headers={"Content-Disposition": header} if header else None)

    app = web.Application()
    app.router.add_get("/red.png", serve)
    app.router.add_get("/{name}.php", bill)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize(
    ("header", "row", "name"),
    [
        ("", None, "bill 42.php"),
        ('attachment; filename="Bill May.pdf"', None, "Bill May.pdf"),
        ("attachment; filename=\"x\"; filename*=UTF-8''Rechnung%20M%C3%A4rz.pdf", None, "Rechnung März.pdf"),
        ('attachment; filename="../../.bashrc"', None, "bashrc"),
        ('attachment; filename="Bill.pdf"', "Yours.pdf", "Yours.pdf"),
        ('attachment; filename="Bill.pdf"', "../\u202efdp.exe", "_fdp.exe"),
    ],
)
async def test_a_document_is_called_as_the_row_says_or_the_server_or_the_url(
    sender: HostProcess,
    device: dict[str, Any],
    whatsapp: ServerProcess,
    site: str,
    *,
    header: str,
    row: str | None,
    name: str,
) -> None:
    given = {"file_name": row} if row else {}
    await sender.send(device, NUMBER, kind="document", media=f"{site}/bill%2042.php?header={quote(header)}", **given)
    (message,) = await whatsapp.async_control.wait_messages(1, recipient=NUMBER)
    assert message.media is not None
    assert (message.media.file_name, message.media.intact) == (name, True)


async def test_an_image_from_a_url_arrives(
    sender: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, site: str
) -> None:
    await sender.send(device, NUMBER, "from afar", kind="image", media=f"{site}/red.png")
    (message,) = await whatsapp.async_control.wait_messages(1, recipient=NUMBER)
    assert message.media is not None
    assert message.media.sha256 == hashlib.sha256(PICTURE).hexdigest()


@pytest.mark.parametrize("spelling", ["127.0.0.1", "[::ffff:127.0.0.1]", "0x7f.1", "localhost"])
async def test_what_only_this_machine_can_reach_is_sent_to_nobody(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, site: str, spelling: str
) -> None:
    told = await host.send(device, NUMBER, kind="document", media=f"{site.replace('127.0.0.1', spelling)}/red.png")
    assert (told["step"], told["error"]) == ("fetch", "PermanentError"), told
    assert "transports.whatsapp.media_hosts" in told["text"]
    assert whatsapp.control.messages(accepted_only=False) == []


async def test_what_is_missing_fails_before_anything_is_opened(
    sender: HostProcess, device: dict[str, Any], site: str
) -> None:
    for media in (f"{site}/nothing.png", "nothing.png", "../host-0.log", "/etc/passwd"):
        told = await sender.send(device, NUMBER, kind="image", media=media)
        assert (told["step"], told["error"]) == ("fetch", "PermanentError"), told
    told = await sender.send(device, NUMBER, kind="image", media="price list.pdf")
    assert (told["step"], told["error"]) == ("fetch", "PermanentError")


@pytest.mark.parametrize("details", [{"kind": "error", "code": 500}, {"kind": "drop"}])
async def test_an_upload_that_fails_is_proof_that_nothing_left(
    sender: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, details: dict[str, Any]
) -> None:
    whatsapp.control.fault(details.pop("kind"), "upload", times=None, **details)
    told = await sender.send(device, NUMBER, kind="image", media="red.png")
    assert (told["step"], told["error"]) == ("prepare", "TransientError"), told
    assert whatsapp.control.messages(accepted_only=False) == []
    whatsapp.control.clear_faults()
    assert "message_id" in await sender.send(device, NUMBER, kind="image", media="red.png")
    assert (await sender.ask("counts"))["connects"] == 1


async def test_an_upload_that_hangs_holds_neither_its_device_nor_memory(
    start_host: StartHost, folder: Path, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    host = await start_host(media_dir=str(folder), upload_timeout=2.0)
    await host.send(device, NUMBER, "first")
    whatsapp.control.fault("mute", "upload", times=None)
    told = await host.send(device, NUMBER, kind="image", media="red.png")
    assert (told["step"], told["error"]) == ("prepare", "DeviceUnavailableError"), told
    await host.until(media=0, open=0)
    whatsapp.control.clear_faults()
    assert "message_id" in await host.send(device, NUMBER, "again", kind="image", media="red.png")
    assert (await host.ask("counts"))["media"] == 0


async def test_twelve_large_files_share_the_memory_of_a_worker(
    start_host: StartHost, make_device: MakeDevice, folder: Path, whatsapp: ServerProcess
) -> None:
    """Each file of 15 MB is held by us once, and twice more by the library while it is uploaded."""
    (folder / "large.pdf").write_bytes(b"%PDF-1.4\n" + bytes(15_000_000))
    host = await start_host(media_dir=str(folder), media_memory=32 * 2**20)
    devices = [make_device(f"6281190001{number:03}") for number in range(12)]
    await asyncio.gather(*(host.send(device, NUMBER, "hello") for device in devices))
    before = peak(host.process.pid)
    told = await asyncio.gather(*(host.send(device, NUMBER, kind="document", media="large.pdf") for device in devices))
    assert all("message_id" in one for one in told), told
    assert peak(host.process.pid) - before < 250 * 2**20  # without a budget 550 MB
    assert (await host.ask("counts"))["media"] == 0


async def test_a_picture_for_nobody_is_not_uploaded(
    sender: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    whatsapp.control.not_on_whatsapp("6281234567899")
    told = await sender.send(device, "6281234567899", kind="image", media="red.png")
    assert (told["step"], told["error"], told["text"]) == (
        "prepare",
        "PermanentError",
        "+6281234567899 is not on WhatsApp",
    )
    assert whatsapp.control.events("upload") == []


async def test_a_place_and_a_contact_arrive(host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess) -> None:
    place = {"latitude": -6.1754, "longitude": 106.8272, "name": "Monas", "address": "Jakarta"}
    assert "message_id" in await host.send(device, NUMBER, "", kind="location", details=json.dumps(place))
    contact = {"name": "Budi; Santoso", "phone": "+62811222333"}
    assert "message_id" in await host.send(device, NUMBER, "", kind="contact", details=json.dumps(contact))
    seen = await whatsapp.async_control.wait_messages(2, recipient=NUMBER)
    assert [message.kind for message in seen] == ["location", "contact"]


async def test_a_group_gets_a_text(
    host: HostProcess, device: dict[str, Any], make_device: MakeDevice, whatsapp: ServerProcess
) -> None:
    number = device["session"].partition(":")[0]
    group = whatsapp.control.create_group("friends", [number, NUMBER, "6281234567891"])
    told = await host.send(device, f"{group}@g.us", "hello all")
    assert "message_id" in told, told
    (message,) = await whatsapp.async_control.wait_messages(1, text="hello all")
    assert sorted(message.read_by) == [NUMBER, "6281234567891"]


async def test_a_group_that_we_are_not_in_fails_for_good(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    told = await host.send(device, "120363000000000000@g.us", "hello?")
    assert (told["step"], told["error"]) == ("deliver", "PermanentError"), told
