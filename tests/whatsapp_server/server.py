"""The listener: handles the proxy request and TLS of each connection, then serves it as chat or as file storage."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from .crypto.pki import Pki
from .faults import Fault, Kind, Occasion, Stage
from .handlers.connection import ChatConnection
from .handlers.media_http import serve_media
from .state.network import Network
from .wire.frames import ConnectionEndedError
from .wire.nodes import MalformedStanzaError
from .wire.noise import HandshakeError, ServerIdentity
from .wire.proxy import ProxyRequest, ProxyRequestError, read_proxy_request
from .wire.tls import TlsStream

CHAT_HOST = "web.whatsapp.com"
BACKLOG = 4096
_ENDINGS = (ConnectionEndedError, ConnectionError, EOFError, ssl.SSLError)
_PROTOCOL_ERRORS = (MalformedStanzaError, HandshakeError, ProxyRequestError)

log = logging.getLogger(__name__)


class WhatsAppServer:
    """A WhatsApp server on one loopback port, which clients use as their proxy."""

    def __init__(self, pki: Pki) -> None:
        self.pki = pki
        self.network = Network(ServerIdentity(pki.noise_root()))
        self._tls = pki.tls_context()
        self._listener: asyncio.Server | None = None
        self.port = 0

    @classmethod
    def in_folder(cls, folder: Path) -> WhatsAppServer:
        """A server with the keys in a folder, which are created if necessary."""
        return cls(Pki.in_folder(folder))

    async def start(self, port: int = 0) -> None:
        """Listen on 127.0.0.1 (port 0: any free port)."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=BACKLOG)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut all connections."""
        if self._listener is not None:
            self._listener.close()
            for device in self.network.accounts.online():
                if device.connection is not None:
                    device.connection.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._accept(reader, writer)
        except _ENDINGS:
            pass
        except _PROTOCOL_ERRORS as error:
            self.network.record.note("protocol_error", error=str(error))
            log.warning("protocol error: %s", error)
        except Exception:
            # A bug in this server must fail the test, not be hidden by the client's reconnect.
            self.network.record.note("server_error")
            log.exception("connection failed")
        finally:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_proxy_request(reader, writer)
        fault = self._fault(Stage.CONNECT, request)
        if fault is not None and fault.kind is Kind.ERROR:
            writer.write(request.refused)
            await writer.drain()
            return
        if fault is not None:
            await _strike_early(fault, reader)
        self.network.record.counts["connections"] += 1
        writer.write(request.granted)
        fault = self._fault(Stage.TLS, request)
        if fault is not None:
            await _strike_early(fault, reader)
        stream = TlsStream(reader, writer, self._tls)
        await stream.handshake()
        if request.host == CHAT_HOST:
            await ChatConnection(self.network, stream, request.user).run()
        else:
            await serve_media(stream, self.network, request.user)

    def _fault(self, stage: Stage, request: ProxyRequest) -> Fault | None:
        fault = self.network.faults.strike(Occasion(stage, request.user))
        if fault is not None:
            self.network.record.note("fault", request.user, fault=fault.kind, at=fault.at)
        return fault


async def _strike_early(fault: Fault, reader: asyncio.StreamReader) -> None:
    """Apply a fault before TLS, when only delaying and closing are possible."""
    if fault.kind is Kind.DELAY:
        await asyncio.sleep(fault.seconds)
        return
    if fault.kind is Kind.MUTE:
        while await reader.read(1024):
            pass
    raise ConnectionEndedError
