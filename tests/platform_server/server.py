"""The server: one request per connection, each recorded before it is answered.

What it does with the next connections is said with `next`; after that it behaves. Each step is a coroutine that is given the
connection, so a test may also write its own.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.platform_server.shapes import Received, WrongShapeError, accept, understand
from tests.platform_server.wire import answer, read_request, reset

Step = Callable[["Connection"], Awaitable[None]]


class Connection:
    """One connection, and the operations on it."""

    def __init__(self, server: PlatformServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self._received: Received | None = None

    async def read(self) -> Received | None:
        """Read and record the request; later calls return the same."""
        if self._received is not None:
            return self._received
        request = await read_request(self.reader)
        if request is None:
            return None
        try:
            received = understand(request, time.monotonic())
        except WrongShapeError as error:
            self.server.faults.append(str(error))
            self.writer.write(answer(400, {"status": False, "message": str(error), "msg": str(error)}))
            return None
        self._received = received
        self.server.received.append(received)
        self.server.changed.set()
        return received


class PlatformServer:
    """Wablas, Whacenter and the Cloud API at one address."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.faults: list[str] = []
        """Requests that no platform understands."""
        self.connections = 0
        self.changed = asyncio.Event()
        """Set after every request."""
        self.released = asyncio.Event()
        """Releases slow answers."""
        self.otherwise: Step = good
        self._steps: deque[Step] = deque()
        self._server: asyncio.Server | None = None
        self._scheme = "http"
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base(self) -> str:
        assert self._server is not None
        return f"{self._scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def next(self, *steps: Step) -> None:
        """The behaviour for the next connections, in order."""
        self._steps.extend(steps)

    async def start(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._scheme = "https" if tls else "http"
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=tls)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until_received(self, count: int) -> list[Received]:
        """Wait until this many requests were read."""
        async with asyncio.timeout(30):
            while len(self.received) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        step = self._steps.popleft() if self._steps else self.otherwise
        try:
            await step(Connection(self, reader, writer))
            if not writer.is_closing():
                await writer.drain()
        except ConnectionError:
            pass  # a client that left
        finally:
            writer.close()
            self._tasks.discard(task)


async def good(connection: Connection) -> None:
    """Accept the message."""
    if (received := await connection.read()) is not None:
        connection.writer.write(answer(*accept(received)))


async def slow(connection: Connection) -> None:
    """Accept the message, but answer only when the test releases it."""
    if (received := await connection.read()) is not None:
        await connection.server.released.wait()
        connection.writer.write(answer(*accept(received)))


async def reset_before_read(connection: Connection) -> None:
    reset(connection.writer)


async def reset_after_read(connection: Connection) -> None:
    await connection.read()
    reset(connection.writer)


async def hang_up_after_read(connection: Connection) -> None:
    await connection.read()


async def cut_off(connection: Connection) -> None:
    """Half of a valid answer."""
    if (received := await connection.read()) is not None:
        whole = answer(*accept(received))
        connection.writer.write(whole[:-10])


async def stall(connection: Connection) -> None:
    """Half of a valid answer, then nothing until the test releases it."""
    if (received := await connection.read()) is not None:
        whole = answer(*accept(received))
        connection.writer.write(whole[:-10])
        await connection.server.released.wait()


async def endless(connection: Connection) -> None:
    """An endless answer."""
    if await connection.read() is not None:
        connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            connection.writer.write(b" " * 65536)
            await connection.writer.drain()


async def no_http(connection: Connection) -> None:
    """Bytes that are not HTTP."""
    await connection.read()
    connection.writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def says(status: int, body: bytes | Mapping[str, Any] = b"", **headers: str) -> Step:
    """Read the request and send this answer; `Retry_After` means Retry-After."""

    async def step(connection: Connection) -> None:
        if await connection.read() is not None:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.writer.write(answer(status, body, fields))

    return step
