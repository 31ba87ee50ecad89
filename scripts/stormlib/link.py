"""A proxy on loopback whose traffic can be cut, stopped or delayed: the network between a node and a server.

Its port stays the same. While it hangs, connections are accepted and nothing is forwarded, not even the end of one: what was
sent arrives afterwards, as after a partition. While it is cut, connections are reset and new ones refused.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Self

CHUNK = 64 * 1024


class Link:
    """From a port of its own to `target`, a port on loopback; or from a UNIX socket, `socket_file`, to another."""

    def __init__(self, target: int | Path, socket_file: Path | None = None, host: str = "127.0.0.1") -> None:
        """`host`: the address of the port."""
        self.target = target
        self.host = host
        self.port = 0
        self._socket_file = socket_file
        self._flows = asyncio.Event()
        self._flows.set()
        self._delay = 0.0
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @classmethod
    async def to(cls, target: int | Path, socket_file: Path | None = None, host: str = "127.0.0.1") -> Self:
        """An open link."""
        link = cls(target, socket_file, host)
        await link._listen()
        return link

    async def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in self._writers:
            # Without this the kernel would end the connection in peace.
            with suppress(OSError):  # it has ended already
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def hang(self) -> None:
        """Forward nothing."""
        self._flows.clear()

    def slow(self, seconds: float) -> None:
        """Delay whatever is forwarded."""
        self._delay = seconds

    async def repair(self) -> None:
        """Forward everything."""
        self._delay = 0.0
        self._flows.set()
        if self._listener is None:
            await self._listen()

    async def close(self) -> None:
        """End it for good."""
        self._flows.set()
        await self.cut()

    async def _listen(self) -> None:
        if self._socket_file is not None:
            self._listener = await asyncio.start_unix_server(self._serve, self._socket_file, limit=CHUNK)
            return
        self._listener = await asyncio.start_server(self._serve, self.host, self.port, limit=CHUNK)
        self.port = int(self._listener.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        upward: asyncio.StreamWriter | None = None
        try:
            await self._flows.wait()
            from_target, upward = await self._connect()
            self._writers.add(upward)
            await asyncio.gather(self._pump(reader, upward), self._pump(from_target, writer))
        except OSError:
            writer.transport.abort()
        finally:
            for one in (writer, upward):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort() if one.transport.is_closing() else one.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, Path):
            return await asyncio.open_unix_connection(self.target, limit=CHUNK)
        return await asyncio.open_connection("127.0.0.1", self.target, limit=CHUNK)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        await self._flows.wait()
        with suppress(OSError):
            writer.write_eof()
