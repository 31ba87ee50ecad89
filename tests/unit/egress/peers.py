"""What the egress gate's tests stand between: a client that speaks CONNECT, echo servers, and upstream proxies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from shardd.transports.egress.gate import Egress

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """A TCP server on a free port; ends with every connection it still has."""
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writers.discard(writer)  # to abort what has ended is an error
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, until its end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


class HttpProxy:
    """A CONNECT proxy that leads every host to one port, and remembers what it was asked."""

    def __init__(self, leads_to: int, status: str = "200 fine") -> None:
        self.requests: list[str] = []
        self._leads_to = leads_to
        self._status = status

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(f"HTTP/1.1 {self._status}\r\nVia: test\r\n\r\n".encode())
        if self._status.startswith("200"):
            await splice(reader, writer, self._leads_to)


class Socks5Proxy:
    """A SOCKS5 proxy with user and password that leads every host to one port."""

    def __init__(self, leads_to: int, user: str, password: str) -> None:
        self.targets: list[tuple[str, int]] = []
        self._leads_to = leads_to
        self._login = (user.encode(), password.encode())

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = await reader.readexactly((await reader.readexactly(2))[1])
        if 2 not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(b"\x05\x02")
        await reader.readexactly(1)
        user = await reader.readexactly((await reader.readexactly(1))[0])
        password = await reader.readexactly((await reader.readexactly(1))[0])
        writer.write(b"\x01\x00" if (user, password) == self._login else b"\x01\x01")
        await reader.readexactly(4)
        host = await reader.readexactly((await reader.readexactly(1))[0])
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.targets.append((host.decode(), port))
        writer.write(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        await splice(reader, writer, self._leads_to)


async def splice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Join a connection with a new one to `port` until both directions have ended."""
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()

    try:
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
    finally:
        far_writer.close()


async def connect(
    egress: Egress, target: str, credential: str | None = None
) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask the gate for a tunnel as this client: (its answer's head, reader, writer)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(egress.url).port)
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if credential != "":
        head += f"Proxy-Authorization: {credential or egress.credential}\r\n"
    writer.write(f"{head}\r\n".encode())
    return (await reader.readuntil(b"\r\n\r\n")).decode(), reader, writer
