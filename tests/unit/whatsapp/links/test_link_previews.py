"""Previews that many jobs share: pages on loopback, fetched and read for real."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web
from PIL import Image
from yarl import URL

from shardd.transports.whatsapp.links import previews as module
from shardd.transports.whatsapp.links.previews import KEPT, KEPT_WITHOUT, LEFT_ALONE, LinkPreview, LinkPreviews
from shardd.transports.whatsapp.media import fetcher
from shardd.transports.whatsapp.media.download import Listed
from shardd.transports.whatsapp.media.fetcher import MediaFetcher
from tests.support.media_files import plain_image
from tests.support.web_site import serving

PAGE = "<title>Kopi</title><meta property='og:image' content='{}'>"
PLAIN = "<title>Kopi</title>"


class Site:
    """A web server on loopback; a page may wait to be let go."""

    def __init__(self) -> None:
        self.place = ""
        self.visits: Counter[str] = Counter()
        self.visited = asyncio.Event()
        self.go = asyncio.Event()
        self.pages: dict[str, str | bytes | int] = {}
        self.redirects: dict[str, str] = {}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.visits[request.path_qs] += 1
        self.visited.set()
        await self.go.wait()
        if target := self.redirects.get(request.path):
            raise web.HTTPFound(target)
        page = self.pages.get(request.path, PLAIN)
        if isinstance(page, int):
            return web.Response(status=page)
        if isinstance(page, bytes):
            return web.Response(body=page)
        return web.Response(text=page, content_type="text/html")


MakeSite = Callable[[], Awaitable[Site]]


@asynccontextmanager
async def _serving() -> AsyncIterator[Site]:
    site = Site()
    site.go.set()
    async with serving(site.serve) as site.place:
        yield site
        site.go.set()


@pytest.fixture
async def make_site() -> AsyncIterator[MakeSite]:
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(_serving())


@pytest.fixture
async def site(make_site: MakeSite) -> Site:
    return await make_site()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def links(site: Site, clock: Clock) -> AsyncIterator[LinkPreviews]:
    media = MediaFetcher(folder=None, hosts=[site.place], max_bytes=100_000, memory=10**7, timeout=30.0)
    links = LinkPreviews(media, clock=clock)
    yield links
    await links.close()
    assert media._memory.held == 0


async def test_all_who_want_a_page_wait_for_one_fetch_and_who_leaves_ends_it_for_nobody(
    links: LinkPreviews, site: Site
) -> None:
    site.go.clear()
    url = f"http://{site.place}/?a=1"
    asking = [asyncio.create_task(links.find(url)) for _ in range(20)]
    await site.visited.wait()
    asking[0].cancel()
    await asyncio.wait(asking[:1])
    site.go.set()
    assert await asyncio.gather(*asking[1:]) == [LinkPreview("Kopi", "", None)] * 19
    assert site.visits == {"/?a=1": 1}
    await links.find(f"http://{site.place}/?a=2")
    assert site.visits == {"/?a=1": 1, "/?a=2": 1}


async def test_a_page_is_fetched_again_after_its_time(links: LinkPreviews, site: Site, clock: Clock) -> None:
    url = f"http://{site.place}/x"
    for moment, visits in ((0.0, 1), (KEPT - 1, 1), (2.0, 2)):
        clock.now += moment
        assert await links.find(url) == LinkPreview("Kopi", "", None)
        assert site.visits["/x"] == visits
    assert links.left_out == 0


@pytest.mark.parametrize("page", [404, 500, "no title", b"<title>a file, not a page</title>"])
async def test_that_a_page_has_none_is_remembered_for_a_shorter_time(
    links: LinkPreviews, site: Site, clock: Clock, page: str | bytes | int
) -> None:
    site.pages["/x"] = page
    url = f"http://{site.place}/x"
    for moment, visits in ((0.0, 1), (KEPT_WITHOUT - 1, 1), (2.0, 2)):
        clock.now += moment
        assert await links.find(url) is None
        assert site.visits["/x"] == visits
    assert links.left_out == 3
    assert await links.find(f"http://{site.place}/y") is not None


async def test_a_server_that_does_not_answer_is_left_alone(
    links: LinkPreviews, site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.go.clear()
    monkeypatch.setattr(module, "PAGE_SECONDS", 0.5)
    assert await links.find(f"http://{site.place}/1") is None
    assert await links.find(f"http://{site.place}/2") is None
    assert site.visits == {"/1": 1}
    site.go.set()
    monkeypatch.undo()
    clock.now += LEFT_ALONE
    assert await links.find(f"http://{site.place}/2") is not None


async def test_no_server_is_blamed_for_full_memory_or_for_the_pages_before_its_own(
    links: LinkPreviews, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://{site.place}/x"
    monkeypatch.setattr(fetcher, "URL_PATIENCE", 0.1)
    share = links._media._memory.begin()
    await share.hold(10**7)
    share.finish()
    assert await links.find(url) is None
    assert site.visits == {}
    share.release()
    monkeypatch.setattr(module, "PAGE_SECONDS", 0.5)
    async with links._reader._busy:
        assert await links.find(url) is None
    monkeypatch.undo()
    assert await links.find(url) == LinkPreview("Kopi", "", None)


async def test_the_pages_own_site_may_show_its_picture_and_no_other_host_that_is_allowed(
    site: Site, make_site: MakeSite
) -> None:
    other = await make_site()
    media = MediaFetcher(folder=None, hosts=["127.0.0.1"], max_bytes=10**7, memory=10**7, timeout=30.0)
    links = LinkPreviews(media)
    site.pages = {
        "/kopi.png": plain_image(640, 320),
        "/own": PAGE.format("kopi.png"),
        "/other": PAGE.format(f"http://{other.place}/kopi.png"),
        "/file": PAGE.format("file:///etc/hostname"),
        "/bad": PAGE.format("http://[/"),
        "/large": PAGE.format("huge.bin"),
        "/huge.bin": plain_image(640, 320) + bytes(module.MAX_PICTURE),
        "/text": PAGE.format("own"),
        "/moved": PAGE.format("moved.png"),
        "/outward": PAGE.format("outward.png"),
    }
    site.redirects = {
        "/start": "/own",
        "/moved.png": "/kopi.png",
        "/outward.png": f"http://{other.place}/kopi.png",
        "/elsewhere": f"http://{other.place}/secrets",
    }
    found = {
        page: await links.find(f"http://{site.place}/{page}")
        for page in ("own", "other", "file", "bad", "large", "text", "start", "moved", "outward")
    }
    assert {preview.title for preview in found.values() if preview} == {"Kopi"}
    assert all(found.values())
    assert [page for page, preview in found.items() if preview and preview.picture] == ["own", "start", "moved"]
    assert await links.find(f"http://{site.place}/elsewhere") is None
    own = found["own"]
    assert own is not None
    with Image.open(io.BytesIO(own.picture or b"")) as picture:
        assert (picture.format, picture.size) == ("JPEG", (72, 36))
    assert other.visits == {}
    await links.close()
    assert media._memory.held == 0


async def test_a_defect_costs_the_preview_and_not_the_text(
    links: LinkPreviews, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links._reader, "read", None)
    assert await links.find(f"http://{site.place}/x") is None
    assert links.left_out == 1


async def test_closing_ends_what_is_fetched_and_who_waits_goes_without(links: LinkPreviews, site: Site) -> None:
    site.go.clear()
    asking = asyncio.create_task(links.find(f"http://{site.place}/x"))
    await site.visited.wait()
    await links.close()
    assert await asking is None


@pytest.mark.parametrize(
    ("first", "hop", "counts"),
    [
        ("http://toko.internal/a", "http://toko.internal/b", True),
        ("http://toko.internal/a", "https://toko.internal/a", True),
        ("http://toko.internal:8080/a", "https://toko.internal/a", False),
        ("http://toko.internal/a", "http://toko.internal:9000/a", False),
        ("http://toko.example/a", "http://toko.internal/a", False),
    ],
)
def test_a_redirect_of_a_page_stays_on_the_host_that_is_allowed(first: str, hop: str, counts: bool) -> None:
    assert Listed.FIRST.counts(URL(first), URL(hop)) is counts


@pytest.mark.parametrize(
    ("page", "image", "url"),
    [
        ("https://toko.example/a/b?c", "d.png", "https://toko.example/a/d.png"),
        ("https://toko.example/a", "/d.png?e", "https://toko.example/d.png?e"),
        ("https://toko.example/a", "//cdn.example/d.png", "https://cdn.example/d.png"),
        ("https://toko.example/a", "http://cdn.example/d.png", "https://cdn.example/d.png"),
        ("https://toko.example/a", "http://cdn.example:8080/d.png", "https://cdn.example:8080/d.png"),
        ("http://toko.example/a", "http://cdn.example/d.png", "http://cdn.example/d.png"),
        ("http://toko.example/a", "file:///etc/hostname", "file:///etc/hostname"),
    ],
)
def test_a_picture_is_where_a_browser_would_look_for_it(page: str, image: str, url: str) -> None:
    assert str(module.picture_url(URL(page), image)) == url
