"""WhatsApp's file storage, HTTP/1.1 inside the client's TLS: POST /mms/… stores a blob, GET returns it.

The requests are parsed by hand because a fault must be able to cut or mute a connection in the middle of an exchange.
"""

from __future__ import annotations

import asyncio
import json
from typing import NamedTuple

from ..faults import Fault, Kind, Occasion, Stage
from ..state.network import Network
from ..wire.frames import ConnectionEndedError
from ..wire.tls import TlsStream

_REASONS = {200: "OK", 404: "Not Found"}


class Request(NamedTuple):
    """One HTTP request; ``path`` with its query."""

    method: str
    path: str
    host: str
    body: bytes


class RequestReader:
    """Reads the requests of a TLS stream."""

    def __init__(self, stream: TlsStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def read(self) -> Request:
        """The next request.

        Raises:
            ConnectionEndedError: The client hung up.
        """
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            await self._more()
        request_line, *lines = self._take(end + 4).decode("latin-1").split("\r\n")
        method, path, _version = request_line.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self._buffer) < length:
            await self._more()
        return Request(method, path, headers.get("host", ""), self._take(length))

    async def _more(self) -> None:
        data = await self._stream.read()
        if not data:
            raise ConnectionEndedError
        self._buffer += data

    def _take(self, length: int) -> bytes:
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data


async def serve_media(stream: TlsStream, network: Network, proxy_user: str) -> None:
    """Answer requests until the client hangs up."""
    requests = RequestReader(stream)
    while True:
        request = await requests.read()
        stage = Stage.UPLOAD if request.method == "POST" else Stage.DOWNLOAD
        fault = network.faults.strike(Occasion(stage, proxy_user))
        if fault is not None:
            network.record.note("fault", proxy_user, fault=fault.kind, at=fault.at)
            await _strike(fault, stream)
        if fault is None or fault.kind is Kind.DELAY:
            _serve(stream, network, request)


def _serve(stream: TlsStream, network: Network, request: Request) -> None:
    if request.method == "POST":
        path = network.media.put(request.body)
        network.record.note("upload", size=len(request.body))
        _answer(stream, 200, json.dumps({"url": f"https://{request.host}{path}", "direct_path": path}).encode())
        return
    blob = network.media.get(request.path)
    network.record.note("download", size=len(blob or b""))
    _answer(stream, 200 if blob is not None else 404, blob or b"")


async def _strike(fault: Fault, stream: TlsStream) -> None:
    if fault.kind is Kind.DELAY:
        await asyncio.sleep(fault.seconds)
    elif fault.kind is Kind.ERROR:
        _answer(stream, fault.code or 500, b"")
    else:
        while fault.kind is Kind.MUTE and await stream.read():
            pass
        raise ConnectionEndedError


def _answer(stream: TlsStream, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Fault')}\r\nContent-Length: {len(body)}\r\n\r\n"
    stream.write(head.encode() + body)
