"""WhatsApp's frames inside a websocket inside TLS.

The client sends a 4-byte header once, then frames, each preceded by its length in 3 bytes. Boundaries of websocket
messages are ignored.
"""

from __future__ import annotations

from websockets.datastructures import Headers
from websockets.exceptions import InvalidMessage, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from .tls import TlsStream

HEADER_LENGTH = 4
LENGTH_BYTES = 3
MAX_MESSAGE = 16 * 1024 * 1024


class ConnectionEndedError(Exception):
    """The client, or the network, ended the connection."""


class FrameChannel:
    """Reads and writes the frames of one websocket."""

    def __init__(self, stream: TlsStream) -> None:
        self._stream = stream
        self._websocket = ServerProtocol(max_size=MAX_MESSAGE)
        self._buffer = bytearray()
        self._request: Request | None = None

    async def read_upgrade(self) -> None:
        """Wait for the client's upgrade request without answering it."""
        while self._request is None:
            await self._pump()

    def accept_upgrade(self) -> None:
        """Answer the upgrade with 101."""
        if self._request is None:
            raise RuntimeError("no upgrade request was read")
        self._websocket.send_response(self._websocket.accept(self._request))
        self._flush()

    def refuse_upgrade(self, status: int) -> None:
        """Answer the upgrade with an HTTP error."""
        headers = Headers({"Content-Length": "0", "Connection": "close"})
        self._websocket.send_response(Response(status, "refused", headers, b""))
        self._flush()

    async def read_header(self) -> bytes:
        """The client's 4-byte protocol header."""
        return await self._take(HEADER_LENGTH)

    async def read(self) -> bytes:
        """The next frame."""
        return await self._take(int.from_bytes(await self._take(LENGTH_BYTES), "big"))

    def write(self, frame: bytes) -> None:
        """Send one frame."""
        self._websocket.send_binary(len(frame).to_bytes(LENGTH_BYTES, "big") + frame)
        self._flush()

    async def _take(self, length: int) -> bytes:
        while len(self._buffer) < length:
            await self._pump()
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    async def _pump(self) -> None:
        data = await self._stream.read()
        if not data:
            raise ConnectionEndedError
        try:
            self._websocket.receive_data(data)
        except (ProtocolError, InvalidMessage) as error:
            raise ConnectionEndedError from error
        for event in self._websocket.events_received():
            if isinstance(event, Request):
                self._request = event
            elif isinstance(event, Frame):
                self._receive(event)
        self._flush()

    def _receive(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self._flush()
            raise ConnectionEndedError
        if frame.opcode in (Opcode.BINARY, Opcode.CONT):
            self._buffer += frame.data

    def _flush(self) -> None:
        for data in self._websocket.data_to_send():
            self._stream.write(data)
