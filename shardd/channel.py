"""One end of the socketpair between supervisor and worker: the messages of `shardd.wire` over an asyncio transport.

What is said in one turn of the event loop leaves with one write, so that a thousand outcomes cost one system call.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from shardd.wire import OutOfStepError, Reader, Unread, Unsent, encode


class Listener(Protocol):
    """Who has this end. What it raises in `heard` or `unread` costs only that message: it is handed to `failed`."""

    def heard(self, message: Any) -> None:
        """A message arrived."""

    def unread(self, what: Unread) -> None:
        """A message, or a part of one, arrived that cannot be read."""

    def unsent(self, what: Unsent) -> None:
        """What was said, or a part of it, could not be encoded: the other side does not hear it."""

    def failed(self, message: Any, error: Exception) -> None:
        """Hearing a message raised this; must not raise."""

    def out_of_step(self, error: OutOfStepError) -> None:
        """No message of the other side can be read any more, and none will be; what is said to it still arrives."""

    def lost(self) -> None:
        """The other side is gone; called once, and not after `close`."""


class Channel(asyncio.Protocol):
    """An end; `listener` is told what arrives."""

    def __init__(self, reader: Reader, listener: Listener) -> None:
        self._reader = reader
        self._listener = listener
        self._outbox: list[Any] = []
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, sock: socket.socket, reader: Reader, listener: Listener) -> Channel:
        """Take over a connected socket."""
        sock.setblocking(False)
        channel = cls(reader, listener)
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
            data, unsent = encode(messages)
            if data:
                self._transport.write(data)
            for what in unsent:
                self._guard(self._listener.unsent, what)

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
        try:
            for message in self._reader.feed(data):
                if isinstance(message, Unread):
                    self._guard(self._listener.unread, message)
                else:
                    self._guard(self._listener.heard, message)
        except OutOfStepError as error:
            if self._transport is not None:
                # What this side says can still be heard.
                self._transport.pause_reading()
            self._listener.out_of_step(error)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the reason changes nothing: the other side is gone
        """See asyncio.Protocol."""
        if self._transport is not None:
            self._transport = None
            self._listener.lost()

    def _guard(self, step: Callable[[Any], None], message: Any) -> None:
        try:
            step(message)
        except Exception as error:  # noqa: BLE001  # a defect in what one message sets off must not cost the others
            self._listener.failed(message, error)
