"""Media servers chosen by strangers: the limits on what they can do, and the errors."""

from __future__ import annotations

import asyncio
import gzip
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardd.errors import PermanentError, SendError, TransientError
from shardd.transports.whatsapp.media.fetcher import MediaFetcher

LIMIT = 100_000
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def saying(*parts: bytes, hold: bool = False, endless: bytes = b"") -> Answer:
    """Reads a request, says `parts`, then `endless` again and again, and hangs up unless it shall `hold`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
        while endless:
            writer.write(endless)
            await writer.drain()
        if hold:
            await reader.read()

    return answer


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def fetcher(timeout: float = 20.0) -> MediaFetcher:
    return MediaFetcher(folder=None, hosts=["127.0.0.1"], max_bytes=LIMIT, memory=LIMIT, timeout=timeout)


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "kind", "complaint"),
    [
        (saying(), TransientError, "the connection was closed"),
        (saying(b"hello\r\n\r\n"), TransientError, "the answer is not valid HTTP"),
        (saying(OK, endless=b"X-A: " + b"x" * 100 + b"\r\n"), TransientError, "is not valid HTTP"),
        (saying(OK + b"X: ", endless=b"x" * 1000), TransientError, "is not valid HTTP"),
        (saying(OK + b"Content-Length: 10\r\n\r\nshort"), TransientError, "the answer was cut off"),
        (saying(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n"), TransientError, "the answer was cut off"),
        (saying(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), TransientError, "cannot be fetched"),
        (saying(OK + b"Content-Length: 100001\r\n\r\n", hold=True), PermanentError, "larger than media_max_bytes"),
        (saying(OK + b"Content-Length: 4\r\n\r\nfine and more"), TransientError, "is not valid HTTP"),
        (saying(OK + b"Content-Length: -1\r\n\r\nx"), TransientError, "is not valid HTTP"),
        (saying(OK + b"\r\n", endless=b"x" * 1000), PermanentError, "larger than media_max_bytes"),
        (
            saying(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(50 * LIMIT))),
            PermanentError,
            "larger than media_max_bytes",
        ),
        (saying(OK + b"Content-Encoding: gzip\r\n\r\nnot packed at all"), TransientError, "cannot be fetched"),
        (saying(OK + b"Content-Encoding: br\r\n\r\nxx"), TransientError, "cannot be fetched"),
        (saying(b"HTTP/1.1 302 Found\r\n\r\n"), PermanentError, "the server answered 302"),
        (saying(b"HTTP/1.1 304 Not Modified\r\n\r\n"), PermanentError, "the server answered 304"),
        (saying(b"HTTP/1.1 204 No Content\r\n\r\n"), TransientError, "the server answered 204"),
    ],
    ids=count(),
)
async def test_what_is_no_file_is_told(answer: Answer, kind: type[SendError], complaint: str) -> None:
    async with serving(answer) as place:
        with pytest.raises(kind, match=complaint):
            await fetcher().fetch(f"http://{place}/x")


@pytest.mark.parametrize(
    "answer",
    [
        saying(hold=True),
        saying(OK, hold=True),
        saying(OK + b"Content-Length: 10\r\n\r\nx", hold=True),
        saying(endless=b"HTTP/1.1 102 Processing\r\n\r\n"),
    ],
    ids=["silence", "half a head", "half a body", "never an answer"],
)
async def test_a_server_that_does_not_come_to_an_end_is_left(answer: Answer) -> None:
    async with serving(answer) as place:
        with pytest.raises(TransientError, match=r"did not arrive within 0\.5 seconds"):
            await fetcher(0.5).fetch(f"http://{place}/x")


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        (saying(OK + b"\r\nno length"), b"no length"),
        (saying(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"packed")), b"packed"),
        (saying(OK + b"Content-Length: 0\r\n\r\n"), b""),
    ],
    ids=count(),
)
async def test_a_server_that_is_only_odd_is_understood(answer: Answer, data: bytes) -> None:
    async with serving(answer) as place:
        assert (await fetcher().fetch(f"http://{place}/x")).data == data


async def test_who_waits_for_memory_is_not_late() -> None:
    """Eight files through a budget of one: the waiting is ours, not the server's."""
    body = b"x" * LIMIT
    async with serving(saying(OK + b"Content-Length: %d\r\n\r\n" % LIMIT, body, hold=True)) as place:
        reached = fetcher(1.0)

        async def one() -> int:
            media = await reached.fetch(f"http://{place}/x")
            await asyncio.sleep(0.3)
            size = len(media.data)
            media.release()
            return size

        assert await asyncio.gather(*(one() for _ in range(8))) == [LIMIT] * 8
        assert reached._memory.held == 0


async def test_a_fetch_that_fails_or_is_given_up_holds_no_memory() -> None:
    async with serving(saying(OK + b"Content-Length: 90000\r\n\r\n" + b"x" * 50_000, hold=True)) as place:
        reached = fetcher(0.5)
        fetching = [asyncio.create_task(reached.fetch(f"http://{place}/x")) for _ in range(3)]
        while reached._memory.held < LIMIT:  # noqa: ASYNC110 - bytes come when they come
            await asyncio.sleep(0.01)
        fetching[0].cancel()
        ends = await asyncio.gather(*fetching, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError, TransientError, TransientError]
        assert reached._memory.held == 0


_HOSTS = st.sampled_from(
    [
        "127.0.0.1:1",
        "{place}",
        "[::1]:1",
        "0x7f.1",
        "[",
        "host:port",
        "host:99999",
        "a..b",
        "x" * 80,
        "☃.example.invalid",
        "",
    ]
)
_ANSWERS = st.sampled_from(
    [
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\n\r\n",
        b"no HTTP S3CRET\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://S3CRET:S3CRET@other.invalid/?S3CRET#S3CRET\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://S3CRET:S3CRET@other.invalid/?S3CRET#S3CRET\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[S3CRET/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/?S3CRET\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /x?S3CRET\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nS3CRET",
        b"",
    ]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    host=_HOSTS,
    user=st.sampled_from(["", "S3CRET@", "S3CRET:S3CRET@", ":S3CRET@", "user/name:S3CRET@", "é:S3CRET@"]),
    scheme=st.sampled_from(["http", "https", "HTTP", "ftp", "file", "gopher"]),
    tail=st.sampled_from(["", "/x?S3CRET", "/x#S3CRET", "/x;?a=b&S3CRET", "?S3CRET", "#S3CRET"]),
    answer=_ANSWERS,
)
def test_no_error_shows_a_secret_of_a_url(
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    *,
    host: str,
    user: str,
    scheme: str,
    tail: str,
    answer: bytes,
) -> None:
    async def fail() -> SendError:
        async with serving(saying(answer)) as place:
            with pytest.raises(SendError) as caught:
                await fetcher(5.0).fetch(f"{scheme}://{user}{host.format(place=place)}{tail}")
            return caught.value

    error = asyncio.run(fail())
    told = str(error) + "".join(traceback.format_exception(error)) + caplog.text + "".join(capfd.readouterr())
    assert "S3CRET" not in told
