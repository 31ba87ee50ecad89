"""Raw HTTP, for requests that no well-behaved client sends."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Self

PATIENCE = 30.0
"""Seconds after which a test fails because a listener hangs."""
Address = Path | tuple[str, int]


class Peer:
    """One connection to a listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, where: Address) -> Self:
        if isinstance(where, Path):
            return cls(*await asyncio.open_unix_connection(str(where)))
        return cls(*await asyncio.open_connection(*where))

    async def send(self, data: bytes) -> None:
        """Send as much as the other side accepts; a closed connection is not an error."""
        self.writer.write(data)
        try:
            async with asyncio.timeout(PATIENCE):
                await self.writer.drain()
        except ConnectionError:
            pass

    async def rest(self) -> bytes:
        """Everything until the other side hangs up."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.reader.read()
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def exchange(where: Address, request: bytes, *, patience: float = PATIENCE) -> bytes:
    """Send, and read all answers until the other side hangs up, or for `patience` seconds."""
    peer = await Peer.connect(where)
    answers = b""
    try:
        await peer.send(request)
        async with asyncio.timeout(patience):
            while chunk := await peer.reader.read(65536):
                answers += chunk
    except (ConnectionError, TimeoutError):
        pass
    finally:
        await peer.close()
    return answers


def statuses(answers: bytes) -> list[int]:
    """The status of each answer."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", answers)]


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    """A whole request."""
    lines = (b"POST " + path + b" HTTP/1.1", b"Host: h", b"Content-Length: %d" % len(body), *headers, b"", body)
    return b"\r\n".join(lines)
