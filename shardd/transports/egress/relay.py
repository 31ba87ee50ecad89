"""One side of a tunnel, and the joining of two sides.

A side is read in pieces during a handshake, then joined to the other: from then on bytes pass without a task. A side whose
send buffer is full pauses reading on the other, so a slow peer costs at most one buffer; the end of one direction is passed
on, and the other may continue for a while (half-close), as TLS and HTTP expect of TCP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

LINGER: Final = 10.0
"""Seconds that half a tunnel may last once the other half has ended."""


class HandshakeError(Exception):
    """A peer violated its protocol."""


class Side(asyncio.Protocol):
    """One connection of a tunnel. `on_data` is called for all data that arrives once the side is joined."""

    def __init__(self, on_open: Callable[[Side], None] | None = None) -> None:
        self.on_data: Callable[[], None] | None = None
        self.may_pass: Callable[[], bool] = lambda: True
        """Asked for all data that arrives once the side is joined; if it may not pass, both sides are cut."""
        self.on_finish: Callable[[], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self.ended = False
        """The connection is gone."""
        self.finished = False
        """The peer sends nothing more; it may still read."""
        self.blocked = False
        """What still arrives is dropped. May be set in any thread."""
        self._on_open = on_open
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._arrival: asyncio.Future[None] | None = None
        self._peer: Side | None = None
        self._expiry: asyncio.TimerHandle | None = None

    # ---- the event loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is established."""
        self._transport = cast("asyncio.Transport", transport)
        if self._on_open is not None:
            self._on_open(self)

    def data_received(self, data: bytes) -> None:
        """Pass bytes to the peer, or keep them for the handshake."""
        if self.blocked:
            return
        if self._peer is None:
            self._buffer += data
            self._wake()
            return
        if not self.may_pass():
            self._peer.abort()
            self.abort()
            return
        if self.on_data is not None:
            self.on_data()
        self._peer.write(data)

    def eof_received(self) -> bool:
        """Nothing more arrives; True keeps the connection for what is still to be sent."""
        self.finished = True
        self._wake()
        if self._peer is None:
            return False
        if self.on_finish is not None:
            self.on_finish()
        self._peer.write_eof()
        if self._peer.finished:
            self.close()
            self._peer.close()
        else:
            self._expire()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason does not matter
        """The connection is gone, so the other one closes too, once it is flushed."""
        self.ended = self.finished = True
        if self._expiry is not None:
            self._expiry.cancel()
        self._wake()
        if self._peer is not None:
            self._peer.close()
            self._peer._expire()  # noqa: SLF001 - the same class
        if self.on_end is not None:
            self.on_end()

    def pause_writing(self) -> None:
        """The send buffer is full: pause the peer."""
        if self._peer is not None:
            self._peer.hold(reading=False)

    def resume_writing(self) -> None:
        """The send buffer has room again."""
        if self._peer is not None:
            self._peer.hold(reading=True)

    # ---- the handshake

    async def read_exactly(self, count: int) -> bytes:
        """The next `count` bytes. Raises HandshakeError when the connection ends first."""
        while len(self._buffer) < count:
            await self._wait()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def read_until(self, mark: bytes, limit: int) -> bytes:
        """Everything up to and including `mark`, at most `limit` bytes. Raises HandshakeError."""
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > limit:
                raise HandshakeError(f"a head of more than {limit} bytes")
            await self._wait()
        return await self.read_exactly(at + len(mark))

    async def _wait(self) -> None:
        if self.finished:
            raise HandshakeError("the connection was closed")
        self._arrival = asyncio.get_running_loop().create_future()
        try:
            await self._arrival
        finally:
            self._arrival = None

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    # ---- the tunnel

    def write(self, data: bytes) -> None:
        """Send, unless the connection is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        """Half-close: nothing more is sent."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def hold(self, *, reading: bool) -> None:
        """Pause or resume reading."""
        if self._transport is None or self._transport.is_closing():
            return
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def close(self) -> None:
        """Close the connection once it is flushed."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def _expire(self) -> None:
        """Drop a peer that neither reads nor leaves."""
        if not self.ended and self._expiry is None:
            self._expiry = asyncio.get_running_loop().call_later(LINGER, self.abort)

    def _join(self, peer: Side) -> None:
        self._peer = peer
        if self._buffer:
            early = bytes(self._buffer)
            self._buffer.clear()
            self.data_received(early)
        if self.ended:
            peer.close()
        elif self.finished:
            self.eof_received()


def join(one: Side, other: Side) -> None:
    """Let bytes pass both ways from now on, first those that were already read."""
    one._join(other)  # noqa: SLF001 - both sides are of this module
    other._join(one)  # noqa: SLF001
