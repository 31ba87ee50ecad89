import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from shardd.errors import PermanentError, SendError, TransientError
from shardd.transports.whatsapp.media.fetcher import MediaFetcher
from shardd.transports.whatsapp.media.memory import Media

LIMIT = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"hello")
    (folder / "deep" / "with space.txt").write_bytes(b"deep")
    (folder / "big").write_bytes(b"x" * (LIMIT + 1))
    (folder / "inside").symlink_to("a.txt")
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "out").symlink_to("../secret")
    (tmp_path / "media-not").mkdir()
    (tmp_path / "media-not" / "file").write_bytes(b"secret")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture
def fetcher(folder: Path) -> MediaFetcher:
    return MediaFetcher(folder=str(folder), hosts=["127.0.0.1"], max_bytes=LIMIT, memory=LIMIT, timeout=2.0)


@pytest.mark.parametrize("path", ["a.txt", "deep/../a.txt", "inside"])
async def test_a_file_below_the_folder_is_read(fetcher: MediaFetcher, path: str) -> None:
    assert await fetcher.fetch(path) == Media(b"hello", None, "a.txt")


async def test_a_whole_path_and_a_file_url_are_fine_too(fetcher: MediaFetcher, folder: Path) -> None:
    assert (await fetcher.fetch(str(folder / "a.txt"))).data == b"hello"
    assert (await fetcher.fetch(f"file://{folder}/deep/with%20space.txt")).file_name == "with space.txt"


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("../secret", "not below"),
        ("out", "not below"),
        ("../media-not/file", "not below"),
        ("/etc/passwd", "not below"),
        ("file:///etc/passwd", "not below"),
        ("nothing", "No such file"),
        ("pipe", "not a file"),
        ("deep", "not a file"),
        ("big", "larger than media_max_bytes"),
        ("a\0b", "not a path"),
        ("", "not a file"),
    ],
)
async def test_nothing_else_is_read(fetcher: MediaFetcher, path: str, complaint: str) -> None:
    with pytest.raises(PermanentError, match=complaint):
        await fetcher.fetch(path)


async def test_without_a_folder_no_file_is_read(folder: Path) -> None:
    fetcher = MediaFetcher(folder=None, max_bytes=LIMIT, memory=LIMIT, timeout=1)
    with pytest.raises(PermanentError, match="media_dir is not set"):
        await fetcher.fetch(str(folder / "a.txt"))


@pytest.mark.parametrize(
    ("uri", "media"),
    [
        ("data:text/plain;charset=utf-8;base64,aGVsbG8=", Media(b"hello", "text/plain")),
        ("data:,a%20b", Media(b"a b")),
        ("data:;base64,", Media(b"")),
    ],
)
async def test_a_data_uri_is_decoded(fetcher: MediaFetcher, uri: str, media: Media) -> None:
    assert await fetcher.fetch(uri) == media


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("data:text/plain", "a data: URI is"),
        ("data:;base64,a", "not base64"),
        ("data:;base64,a*bc", "not base64"),
        ("data:;base64," + "QUFB" * 400, "larger than"),
        ("data:," + "x" * 1001, "larger than"),
        ("ftp://host/file", "write an http"),
    ],
)
async def test_what_cannot_be_decoded_is_told(fetcher: MediaFetcher, uri: str, complaint: str) -> None:
    with pytest.raises(PermanentError, match=complaint):
        await fetcher.fetch(uri)


@pytest.fixture
async def site() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.StreamResponse:
        what = request.match_info["what"]
        if what.isdigit():
            return web.Response(status=int(what))
        if what == "loop":
            raise web.HTTPFound("/loop")
        if what == "moved":
            raise web.HTTPFound("/fine.txt?signature=x")
        if what in {"endless", "stalled"}:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"x" * 100)
            while what == "endless":
                await response.write(b"x" * 100)
            await asyncio.sleep(60)
        return web.Response(body=b"fine", content_type="text/plain")

    app = web.Application()
    app.router.add_get("/{what}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize(("path", "reached"), [("fine.txt", "fine.txt"), ("moved", "fine.txt?signature=x")])
async def test_a_url_is_downloaded(fetcher: MediaFetcher, site: str, path: str, reached: str) -> None:
    assert await fetcher.fetch(f"{site}/{path}") == Media(b"fine", "text/plain", "fine.txt", url=f"{site}/{reached}")


async def test_of_a_page_no_more_is_read_than_asked_for(fetcher: MediaFetcher, site: str) -> None:
    for page in ("endless", "fine.txt"):
        media = await fetcher.fetch_url(f"{site}/{page}", most=250_000)
        assert len(media.data) == {"endless": 250_000, "fine.txt": 4}[page]
        media.release()
    assert fetcher._memory.held == 0


async def test_what_a_stranger_names_is_not_fetched_from_the_allowed_hosts(fetcher: MediaFetcher, site: str) -> None:
    with pytest.raises(PermanentError, match=r"127\.0\.0\.1 has a loopback address"):
        await fetcher.fetch_url(f"{site}/fine.txt", listed=False)
    for scheme in ("file:///etc/passwd", "data:,x", "a.txt"):
        with pytest.raises(PermanentError, match=r"it is not an http\(s\) URL"):
            await fetcher.fetch_url(scheme)


@pytest.mark.parametrize(
    ("path", "kind", "complaint"),
    [
        ("404", PermanentError, "answered 404"),
        ("403", PermanentError, "answered 403"),
        ("429", TransientError, "answered 429"),
        ("500", TransientError, "answered 500"),
        ("loop", PermanentError, "more than 5 redirects"),
        ("endless", PermanentError, "larger than"),
        ("stalled", TransientError, "did not arrive within 2 seconds"),
        ("404?signature=hidden", PermanentError, "/404 cannot be fetched"),
    ],
)
async def test_what_cannot_be_downloaded_is_told(
    fetcher: MediaFetcher, site: str, path: str, kind: type[SendError], complaint: str
) -> None:
    with pytest.raises(kind, match=complaint) as caught:
        await fetcher.fetch(f"{site}/{path}")
    assert "hidden" not in str(caught.value)


async def test_nobody_there_is_for_later(fetcher: MediaFetcher) -> None:
    with pytest.raises(TransientError, match="cannot be fetched"):
        await fetcher.fetch("http://127.0.0.1:1/x")


@pytest.mark.parametrize("url", ["http://", "http://[", "https:///x", "HTTP://127.0.0.1:99999/"])
async def test_what_is_no_url_is_told(fetcher: MediaFetcher, url: str) -> None:
    with pytest.raises(PermanentError, match="not an http"):
        await fetcher.fetch(url)
