"""Texts with a link, from a row to a phone: what is shown below them, what is fetched for that, and what is not waited for."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from PIL import Image

from tests.fixtures.whatsapp_fleet import Fleet, Phone
from tests.support.media_files import plain_image
from tests.support.web_site import serving
from tests.whatsapp_server.record import Message

PAGE = """<!doctype html><html><head><title>Toko</title>
<meta property="og:title" content="Kopi &amp; Teh"><meta property="og:description" content="Diskon 50%
hari ini"><meta property="og:image" content="/kopi.png"></head><body>Selamat datang</body></html>"""


class Site:
    """A web site on loopback, which counts what it is asked for."""

    def __init__(self) -> None:
        self.visits: Counter[str] = Counter()
        self.pages: dict[str, web.StreamResponse | str] = {}
        self.place = ""
        self.over = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://{self.place}"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.visits[request.path] += 1
        match request.path:
            case "/kopi.png":
                return web.Response(body=plain_image(640, 320), content_type="image/png")
            case "/silent":
                await self.over.wait()
            case "/endless":
                answer = web.StreamResponse(headers={"Content-Type": "text/html"})
                await answer.prepare(request)
                with suppress(ConnectionError):
                    while True:
                        await answer.write(b"<title>Tanpa akhir</title>" + b" " * 65536)
        page = self.pages.get(request.path, PAGE)
        if isinstance(page, web.StreamResponse):
            return page
        return web.Response(text=page, content_type="text/html")


@asynccontextmanager
async def _serving() -> AsyncIterator[Site]:
    site = Site()
    async with serving(site.serve) as site.place:
        yield site
        site.over.set()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with _serving() as site:
        yield site


@pytest.fixture
async def silent() -> AsyncIterator[Site]:
    """A site that may be reached, and never answers."""
    async with _serving() as site:
        yield site


@pytest.fixture
async def intranet() -> AsyncIterator[Site]:
    """A site that no config of these tests allows."""
    async with _serving() as site:
        yield site


def send(fleet: Fleet, phone: Phone, body: str, details: dict[str, Any] | None = None) -> int:
    (row,) = fleet.rows(
        "INSERT INTO shardd.jobs (device_id, recipient, body, details) VALUES (%s, %s, %s, %s) RETURNING id",
        *(phone.id, "+" + fleet.stranger(), body, details and json.dumps(details)),
    )
    return int(row["id"])


def arrived(fleet: Fleet, body: str) -> Message:
    (message,) = fleet.seen(body)
    return message


async def test_fifty_texts_with_one_link_show_its_page_which_is_fetched_once(fleet: Fleet, site: Site) -> None:
    phones = fleet.add(5)
    daemon = fleet.daemon(shards=1, transports={"whatsapp": {"link_preview": "true", "media_hosts": site.place}})
    await daemon.start()
    link = f"{site.url}/promo?p=1"
    bodies = [f"Halo {n}! Lihat ({link})." for n in range(50)]
    for n, body in enumerate(bodies):
        send(fleet, phones[n % 5], body)
    assert await fleet.finished(50) == {"sent": 50}
    for body in bodies:
        shown = arrived(fleet, body).link
        assert shown is not None
        assert (shown.matched, shown.title, shown.description) == (link, "Kopi & Teh", "Diskon 50% hari ini")
        with Image.open(io.BytesIO(base64.b64decode(shown.thumbnail))) as thumbnail:
            assert (thumbnail.format, thumbnail.size) == ("JPEG", (72, 36))
    assert site.visits == {"/promo": 1, "/kopi.png": 1}


async def test_a_text_whose_page_cannot_be_shown_is_sent_all_the_same(
    fleet: Fleet, site: Site, silent: Site, intranet: Site
) -> None:
    """Whatever a page does: its text is sent at the first attempt, in its order, and nothing else of this host is reached."""
    hostile = '<a b="' * 80_000  # html.parser of early releases of Python 3.11 to 3.13 would need minutes
    site.pages = {
        "/gone": web.Response(status=404, text=PAGE, content_type="text/html"),
        "/broken": web.Response(status=500, text=PAGE, content_type="text/html"),
        "/file": web.Response(body=PAGE.encode(), content_type="application/pdf"),
        "/untitled": "<p>Tanpa judul</p>",
        "/hostile": hostile,
        "/inward": web.Response(status=302, headers={"Location": f"{intranet.url}/secrets"}),
        "/tempting": PAGE.replace("/kopi.png", f"{intranet.url}/secrets"),
        "/local": PAGE.replace("/kopi.png", "file:///etc/hostname"),
        "/torn": PAGE.replace("/kopi.png", "/gone"),
    }
    phones = fleet.add(3)
    daemon = fleet.daemon(
        shards=1, transports={"whatsapp": {"link_preview": "true", "media_hosts": f"{site.place}, {silent.place}"}}
    )
    await daemon.start()
    bare = ["gone", "broken", "file", "untitled", "hostile", "inward"]
    without_picture = ["endless", "tempting", "local", "torn"]
    links = [f"{intranet.url}/private", *(f"{site.url}/{page}" for page in bare + without_picture)]
    for n, link in enumerate(links):
        send(fleet, phones[n % 2], f"Lihat {link}")
    waited = [f"1: {silent.url}/silent", "2: tanpa tautan", f"3: {silent.url}/other"]
    for body in waited:
        send(fleet, phones[2], body)
    assert await fleet.finished(len(links) + 3) == {"sent": len(links) + 3}
    assert fleet.rows("SELECT max(attempt) AS attempt, max(failures) AS failures FROM shardd.archive") == [
        {"attempt": 1, "failures": 0}
    ]
    for link in links:
        shown = arrived(fleet, f"Lihat {link}").link
        page = link.rpartition("/")[2]
        if page in without_picture:
            assert shown is not None, page
            assert (shown.matched, shown.title, shown.thumbnail) == (
                *(link, "Tanpa akhir" if page == "endless" else "Kopi & Teh", ""),
            )
        else:
            assert shown is None, page
    assert intranet.visits == {}
    assert [arrived(fleet, body).link for body in waited] == [None, None, None]
    assert silent.visits == {"/silent": 1}
    in_order = fleet.server.control.messages(sender=phones[2].number)
    assert [message.text for message in in_order] == waited
    await daemon.until(lambda status: status["shards"][0]["previews_left_out"] == 1 + len(bare) + 2)
    log = daemon.log_file.read_text(encoding="utf-8")
    for why in ("has a loopback address", "the server answered 404", "the page has no title"):
        assert why in log
    assert "failed unexpectedly" not in log


async def test_without_being_asked_for_no_page_is_fetched(fleet: Fleet, site: Site) -> None:
    phones = fleet.add(1)
    daemon = fleet.daemon(shards=1, transports={"whatsapp": {"media_hosts": site.place}})
    await daemon.start()
    send(fleet, phones[0], f"as configured {site.url}/1")
    send(fleet, phones[0], f"not wanted {site.url}/2", {"link_preview": False})
    send(fleet, phones[0], f"wanted {site.url}/3", {"link_preview": True})
    assert await fleet.finished(3) == {"sent": 3}
    assert site.visits == {"/3": 1, "/kopi.png": 1}
    shown = {
        n: arrived(fleet, f"{text} {site.url}/{n}").link
        for n, text in enumerate(("as configured", "not wanted", "wanted"), 1)
    }
    assert [n for n, link in shown.items() if link is not None] == [3]
