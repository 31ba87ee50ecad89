"""An HTTP listener of which no peer can hold much: connections, time and log lines are bounded, whatever it sends.

A peer is overdue when its request has not arrived `patience` seconds after it connected, and comes more slowly than `SLOWEST`, or
when it has not taken its answer within the same time. When all connections are taken, a new one replaces the peer that is
slowest, so that slow peers cannot lock out quick ones. A request that is being worked on keeps its connection.

aiohttp serves the requests and bounds heads, bodies and keep-alive. It bounds neither the number of connections nor the time in
which a request must arrive (aiohttp 3.14), so each connection's protocol is wrapped here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from shardd.config.values.network import split_address
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.tasks import TaskSet

log = get_logger(__name__)

CHECK_EVERY: Final = 1.0
"""Seconds between checks for overdue peers."""
LINGER: Final = 2.0
"""Seconds for which a refused peer may still send, so that it reads the refusal and not a reset."""
SLOWEST: Final = 50_000
"""Bytes a second of a large request that may take longer."""
BACKLOG: Final = 128
MAX_QUOTED: Final = 200
"""Characters of a request that an error may quote."""
MAX_LINE: Final = 8190
"""Bytes of an address, and of a header."""
_HTTP_LOG: Final = logging.getLogger("shardd.listener.http")
"""aiohttp's log: its tracebacks about malformed HTTP would let any peer fill the log."""
_HTTP_LOG.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Refuse = Callable[[int, str], web.Response]
"""Makes the answer to what no handler answers: its status, and why, as part of a sentence."""


def refusal(status: int, why: str, *, close: bool = True) -> web.Response:
    """An error as JSON; `close`: close the connection, too."""
    response = web.json_response({"error": why}, status=status)
    if close:
        response.force_close()
    return response


class Listener:
    """Serves routes on a socket."""

    def __init__(
        self,
        name: str,
        routes: list[web.RouteDef],
        *,
        most: int,
        patience: float,
        max_body: int = 0,
        refuse: Refuse = refusal,
    ) -> None:
        """`name`: for the log. `most`: connections at once. `max_body`: bytes of a request's body."""
        self._name = name
        self._refuse = refuse
        self._most = most
        self._patience = patience
        self._peers: dict[asyncio.BaseTransport, _Peer] = {}
        self._tasks = TaskSet()
        self._socket: asyncio.Server | None = None
        self._app = app = web.Application(middlewares=[self._serve], client_max_size=max_body)
        self.add(routes)
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1.0)

    def add(self, routes: list[web.RouteDef]) -> None:
        """More routes, before it listens: such as those that need the listener."""
        for route in routes:
            route.kwargs.setdefault("expect_handler", _go_on)
        self._app.add_routes(routes)

    async def listen(self, where: Path | tuple[str, int] | socket.socket) -> None:
        """Listen on a UNIX socket, a host and a port, or a socket that listens already. Raises OSError.

        Called again, it continues on a new socket of the same path; connections to the old one live on.
        """
        if self._runner.server is None:
            await self._runner.setup()
            self._tasks.start(self._drop_overdue(), self._failed)
        old, self._socket = self._socket, await self._bind(where)
        if old is not None:
            old.close()

    async def listen_on_port(self, address: str, setting: str) -> None:
        """Listen on host:port. Raises SharddError, which names the `setting` that the address is from."""
        try:
            await self.listen(split_address(address))
        except OSError as error:
            await self.close()
            why = os.strerror(error.errno or 0)
            raise SharddError(f"{setting} {address}: {why}: choose another address or port") from error

    async def close(self) -> None:
        """Hang up; requests that are being worked on get their answer if that takes at most a second."""
        if self._socket is not None:
            self._socket.close()
        await self._tasks.end()
        await self._runner.cleanup()

    @contextmanager
    def working(self, request: web.Request) -> Iterator[None]:
        """The request has arrived; the peer is not overdue until this ends."""
        peer = self._peers.get(cast("asyncio.BaseTransport", request.transport))
        if peer is not None:
            peer.working = True
        try:
            yield
        finally:
            if peer is not None:
                peer.working = False

    @contextmanager
    def working_when_whole(self, request: web.Request) -> Iterator[None]:
        """As `working`, from the end of the request's body on: a peer that is slow to send it is overdue all the same."""
        with ExitStack() as work:
            ended = False
            # aiohttp calls back at once for a body that is here.
            request.content.on_eof(lambda: None if ended else work.enter_context(self.working(request)))
            try:
                yield
            finally:
                ended = True

    def hang_up(self, request: web.Request) -> None:
        """Close the connection at once, without an answer."""
        if request.transport is not None:
            request.transport.abort()

    async def _bind(self, where: Path | tuple[str, int] | socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if isinstance(where, socket.socket):
            return await loop.create_server(self._connected, sock=where, backlog=BACKLOG)
        if isinstance(where, Path):
            return await loop.create_unix_server(self._connected, str(where), backlog=BACKLOG)
        return await loop.create_server(self._connected, *where, backlog=BACKLOG)

    def _connected(self) -> asyncio.BaseProtocol:
        assert self._runner.server is not None
        return _Peer(_Http(self._runner.server, self._refuse, self._patience), self)

    def admit(self, peer: _Peer, transport: asyncio.Transport) -> bool:
        """Whether a new connection may stay; it may replace the slowest one."""
        if len(self._peers) >= self._most:
            slowest = min((one for one in self._peers.items() if not one[1].working), key=_slowest_first, default=None)
            if slowest is None:
                return False
            self._drop(slowest[0])
        self._peers[transport] = peer
        return True

    def leave(self, transport: asyncio.BaseTransport) -> None:
        """The connection is closed."""
        self._peers.pop(transport, None)

    def _drop(self, transport: asyncio.BaseTransport) -> None:
        # At once, so that its place is free; the loop notifies its protocol a little later.
        self.leave(transport)
        cast("asyncio.Transport", transport).abort()

    async def _drop_overdue(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY)
            too_early = time.monotonic() - self._patience
            for transport, peer in list(self._peers.items()):
                if not peer.working and peer.since < too_early:
                    self._drop(transport)

    def _failed(self, error: Exception) -> None:
        log.critical("dropping overdue peers failed", action="defect", listener=self._name, exc_info=error)
        self._tasks.start(self._drop_overdue(), self._failed)

    @web.middleware
    async def _serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        peer = self._peers.get(cast("asyncio.BaseTransport", request.transport))
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return self._refuse(error.status, f"{request.method} {request.path[:MAX_QUOTED]}: {error.reason}")
        except (ConnectionError, web.RequestPayloadError):
            return self._refuse(400, "the request is incomplete")
        except Exception as error:  # a defect of ours
            log.exception("a request failed", action="request_failed", listener=self._name, error=error)
            return self._refuse(500, "a defect of shardd; its log has the details")
        finally:
            if peer is not None:
                peer.answered()


async def _go_on(request: web.Request) -> None:
    """A client that waits before it sends a body may send it; other expectations may be ignored (RFC 9110, 10.1.1)."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of what is no part of the answer


class _Http(web.RequestHandler):
    """aiohttp's protocol, which answers what it cannot read in our words: its own repeat what was sent, and have no headers."""

    __slots__ = ("_refuse",)

    def __init__(self, server: web.Server, refuse: Refuse, patience: float) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # None is none
            keepalive_timeout=patience,
            lingering_time=LINGER,
            auto_decompress=False,  # the signature of a body covers its bytes as they were sent
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            logger=_HTTP_LOG,
        )
        self._refuse = refuse

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See `web.RequestHandler`."""
        super().handle_error(request, status, exc, message)  # which logs, and raises if an answer has begun
        if isinstance(exc, LineTooLong):
            return self._refuse(status, f"the address or a header of the request is longer than {MAX_LINE:,} bytes")
        return self._refuse(status, "the request is not valid HTTP")


class _Peer(asyncio.Protocol):
    """A connection: aiohttp's protocol, watched."""

    def __init__(self, inner: asyncio.Protocol, listener: Listener) -> None:
        self.working = False
        self.idle = False
        """Answered, and nothing came since."""
        self.since = time.monotonic()
        """Since when a request, or the taking of its answer, is awaited."""
        self._served_by = inner
        self._inner = asyncio.Protocol()
        """Ignores everything, until the connection is admitted."""
        self._listener = listener
        self._transport: asyncio.Transport | None = None

    def answered(self) -> None:
        """A request is answered."""
        self.idle = True
        self.since = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._listener.admit(self, self._transport):
            self._inner = self._served_by
            self._inner.connection_made(transport)
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self.since = now if self.idle else min(now, self.since + len(data) / SLOWEST)
        self.idle = False
        try:
            self._inner.data_received(data)
        except Exception as error:  # noqa: BLE001  bytes that aiohttp did not foresee cost this connection only
            log.debug("a peer sent what is not HTTP", action="request_failed", error=error)
            assert self._transport is not None
            self._transport.abort()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self._listener.leave(self._transport)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def _slowest_first(one: tuple[asyncio.BaseTransport, _Peer]) -> tuple[bool, float]:
    """Idle connections first, then those that are awaited for longest."""
    return not one[1].idle, one[1].since
