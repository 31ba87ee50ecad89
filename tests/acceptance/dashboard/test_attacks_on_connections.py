"""Strangers who hold connections, send slowly or send much; operators and sending go on."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from shardd.dashboard.api.serving import AT_ONCE_OF_ONE
from tests.acceptance.dashboard.looks import StartDaemon
from tests.support.api import Program, make_token, site_of
from tests.support.daemon import PATIENCE, Daemon, Producer
from tests.support.visitor import USERS, visitor

CONNECTIONS: Final = 10_000
MOST_FILES: Final = 500
"""Of the dashboard's process, however many connect."""
BODY: Final = 100 << 20
FORM: Final = "application/x-www-form-urlencoded"
FILE: Final = "multipart/form-data; boundary=b"
BEGINNINGS: Final = {
    FORM: b"number=",
    FILE: b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n',
}
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def daemon(start_daemon: StartDaemon) -> Daemon:
    return await start_daemon(users=USERS)


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many file descriptors as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard > CONNECTIONS + 1000, f"ulimit -Hn is {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (CONNECTIONS + 1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
async def connect(daemon: Daemon) -> AsyncIterator[Callable[[], asyncio.Future[Stream]]]:
    """Connects to the dashboard; closes all connections at the end."""
    host, _, port = daemon.settings["dashboard"]["listen"].rpartition(":")
    async with AsyncExitStack() as stack:

        async def connect() -> Stream:
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(_abort, writer)
            return reader, writer

        yield lambda: asyncio.ensure_future(connect())


@pytest.mark.usefixtures("many_files")
async def test_ten_thousand_connections_keep_nobody_out(
    daemon: Daemon, producer: Producer, connect: Callable[[], asyncio.Future[Stream]]
) -> None:
    for beginning in (b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"):
        opened = [connect() for _ in range(CONNECTIONS // 2)]
        for _, writer in await asyncio.gather(*opened):
            writer.write(beginning)
    async with visitor(daemon) as ada, asyncio.timeout(PATIENCE):
        while True:
            # While they still arrive, hers may be one of those that make room; a browser connects again.
            with suppress(aiohttp.ClientConnectionError):
                await ada.sign_in("ada")
                assert (await ada.get("/devices")).status == 200
                break
    producer.add_devices(2)
    producer.add_jobs(20, 2)
    assert (await producer.until_finished(daemon, 20))["sent"] == 20
    (pid,) = daemon.dashboard_pids()
    assert open_files(pid) < MOST_FILES


async def test_slow_peers_are_cut_off_and_keep_nobody_out(
    daemon: Daemon, connect: Callable[[], asyncio.Future[Stream]]
) -> None:
    head = (
        b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\nname="
    )

    async def send_slowly(request: bytes) -> None:
        reader, writer = await connect()
        writer.write(request)
        with suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"a")
                await writer.drain()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await reader.read(1000)

    slow = [asyncio.create_task(send_slowly(request)) for request in (head, head[:40]) for _ in range(150)]
    async with visitor(daemon) as ada:
        await ada.sign_in("ada")
        assert (await ada.get("/devices")).status == 200
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*slow)


async def test_a_token_with_many_slow_requests_keeps_no_other_out(
    daemon: Daemon, connect: Callable[[], asyncio.Future[Stream]]
) -> None:
    token, other = [await make_token(daemon, name, "operate") for name in ("greedy", "modest")]
    async with visitor(daemon) as ada:
        assert (await ada.get("/sign-in")).status == 200  # the process runs
    head = f"POST /api/v1/opt-outs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    slow = await asyncio.gather(*(connect() for _ in range(AT_ONCE_OF_ONE)))  # one that is not kept is closed
    for _, writer in slow:
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n".encode())
    async with Program(site_of(daemon), token) as greedy, Program(site_of(daemon), other) as modest:
        while (refused := await greedy.get("/problems/refused")).status != 429:
            assert refused.status == 200  # not all of them have been read
        assert refused.problem == "too-many-requests"
        assert (await modest.get("/problems/refused")).status == 200


async def test_a_body_of_100_mb_is_refused_and_not_kept(
    daemon: Daemon, connect: Callable[[], asyncio.Future[Stream]]
) -> None:
    async with visitor(daemon) as ada:
        await ada.sign_in("ada")
        (pid,) = daemon.dashboard_pids()
        before = most_memory(pid)
        for path, kind in (("/sign-in", FORM), ("/opt-outs", FORM), ("/phones/links", FILE)):
            reader, writer = await connect()
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nCookie: shardd-80={ada.cookie}\r\n"
                f"X-Shardd-Token: {ada.form_token}\r\nContent-Type: {kind}\r\nContent-Length: {BODY}\r\n\r\n".encode()
            )
            writer.write(BEGINNINGS[kind])
            with suppress(ConnectionError):
                for _ in range(BODY >> 20):
                    writer.write(b"a" * (1 << 20))
                    await writer.drain()
            answer = b""
            with suppress(ConnectionError):
                answer = await asyncio.wait_for(reader.read(), PATIENCE)
            assert not answer or answer.startswith(b"HTTP/1.1 413"), (path, answer)
        assert (await ada.get("/devices")).status == 200
        assert daemon.dashboard_pids() == [pid]
        assert most_memory(pid) - before < 30 << 10


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def most_memory(pid: int) -> int:
    """KiB that a process had at most."""
    return next(
        int(line.split()[1])
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )


def _abort(writer: asyncio.StreamWriter) -> None:
    """Whoever remembers to call this keeps the writer: one that nobody has closes its connection."""
    writer.transport.abort()
