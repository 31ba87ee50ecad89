"""One end of the socketpair between supervisor and worker: frames of `shardd.ipc` over an asyncio transport.

What is said in one turn of the event loop leaves as one frame, so that a thousand outcomes cost one write; only what
is larger than a frame may be is divided.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from shardd import ipc

_HEADER: Final = 4


class Channel(asyncio.Protocol):
    """Calls `heard(message)` for every message and `lost()` once, when the other side is gone or talks nonsense."""

    def __init__(
        self, decode: Callable[[bytes], list[Any]], heard: Callable[[Any], None], lost: Callable[[], None]
    ) -> None:
        self._decode = decode
        self._heard = heard
        self._lost = lost
        self._buffer = bytearray()
        self._outbox: list[Any] = []
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(
        cls,
        sock: socket.socket,
        decode: Callable[[bytes], list[Any]],
        heard: Callable[[Any], None],
        lost: Callable[[], None],
    ) -> Channel:
        """Take over a connected socket."""
        sock.setblocking(False)
        channel = cls(decode, heard, lost)
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=sock)
        return channel

    def say(self, message: Any) -> None:
        """Send a message with the next turn of the loop; what is said to a lost channel is dropped."""
        if self._transport is None:
            return
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self.flush)
        self._outbox.append(message)

    def flush(self) -> None:
        """Send now what was said."""
        if self._outbox and self._transport is not None:
            messages, self._outbox = self._outbox, []
            self._write(self._transport, messages)

    def close(self) -> None:
        """Send what was said and hang up; `lost` is not called for this."""
        self.flush()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._buffer += data
        while len(self._buffer) >= _HEADER:
            size = int.from_bytes(self._buffer[:_HEADER], "big")
            if size > ipc.MAX_FRAME:
                self._break()
                return
            if len(self._buffer) < _HEADER + size:
                return
            payload = bytes(self._buffer[_HEADER : _HEADER + size])
            del self._buffer[: _HEADER + size]
            try:
                messages = self._decode(payload)
            except msgspec.DecodeError:
                self._break()
                return
            for message in messages:
                self._heard(message)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the reason changes nothing: the other side is gone
        """See asyncio.Protocol."""
        if self._transport is not None:
            self._transport = None
            self._lost()

    def _write(self, transport: asyncio.Transport, messages: list[Any]) -> None:
        frame = ipc.encode(messages)
        if len(frame) > _HEADER + ipc.MAX_FRAME and len(messages) > 1:
            half = len(messages) // 2
            self._write(transport, messages[:half])
            self._write(transport, messages[half:])
        else:
            transport.write(frame)

    def _break(self) -> None:
        if self._transport is not None:
            self._transport.abort()
