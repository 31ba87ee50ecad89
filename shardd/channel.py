"""One end of the socketpair between supervisor and worker: the messages of `shardd.wire` over an asyncio transport.

The messages of one turn of the event loop leave with one write, so that a thousand outcomes cost one system call.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from shardd.wire import OutOfSyncError, Reader, Undecodable, Unencodable, encode


class Listener(Protocol):
    """The owner of this end. An exception of a handler costs only that message: it goes to `failed`."""

    def received(self, message: Any) -> None:
        """A message arrived."""

    def undecodable(self, what: Undecodable) -> None:
        """A message, or a part of one, arrived that cannot be decoded."""

    def unencodable(self, what: Unencodable) -> None:
        """A message, or a part of one, could not be encoded: the other side does not get it."""

    def failed(self, message: Any, error: Exception) -> None:
        """Handling a message raised this; must not raise."""

    def out_of_sync(self, error: OutOfSyncError) -> None:
        """No message of the other side can be decoded any more; what is sent to it still arrives."""

    def disconnected(self) -> None:
        """The other side is gone; called once, and not after `close`."""


class Channel(asyncio.Protocol):
    """One end; `listener` receives what arrives."""

    def __init__(self, reader: Reader, listener: Listener) -> None:
        self._reader = reader
        self._listener = listener
        self._unsent: list[Any] = []
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, sock: socket.socket, reader: Reader, listener: Listener) -> Channel:
        """Take over a connected socket."""
        sock.setblocking(False)
        channel = cls(reader, listener)
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=sock)
        return channel

    def send(self, message: Any) -> None:
        """Send a message at the end of this turn of the loop; on a channel that is closed it is dropped."""
        if self._transport is None:
            return
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self.flush)
        self._unsent.append(message)

    def flush(self) -> None:
        """Send at once what is not sent yet."""
        if self._unsent and self._transport is not None:
            messages, self._unsent = self._unsent, []
            data, failed = encode(messages)
            if data:
                self._transport.write(data)
            for what in failed:
                self._guard(self._listener.unencodable, what)

    def close(self) -> None:
        """Send what is not sent yet and close; `disconnected` is not called for this."""
        self.flush()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            for message in self._reader.feed(data):
                handle = self._listener.undecodable if isinstance(message, Undecodable) else self._listener.received
                self._guard(handle, message)
        except OutOfSyncError as error:
            if self._transport is not None:
                # What this side sends still arrives.
                self._transport.pause_reading()
            self._listener.out_of_sync(error)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # whatever the reason, the other side is gone
        """See asyncio.Protocol."""
        if self._transport is not None:
            self._transport = None
            self._listener.disconnected()

    def _guard(self, handle: Callable[[Any], None], message: Any) -> None:
        try:
            handle(message)
        except Exception as error:  # noqa: BLE001  # a defect in handling one message must not cost the others
            self._listener.failed(message, error)
