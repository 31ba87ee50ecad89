"""An HTTP listener of which no peer can hold much: connections, time and words in the log are bounded, whatever it sends.

A peer owes us something from the moment it connects until its request is there, and then until it has taken the answer. It has
`patience` seconds for either. When all places are taken, whoever comes gets the place of the peer that has owed for longest, so
that slow ones cannot keep quick ones out. Only a request that is being worked on keeps its place.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from shardd.logs import get_logger

log = get_logger(__name__)

LOOK_EVERY: Final = 1.0
"""Seconds between looks for peers that owe for too long."""
LINGER: Final = 2.0
"""Seconds in which a peer that was refused may still send, so that it reads the refusal and not a reset."""
BACKLOG: Final = 128
MAX_QUOTED: Final = 200
"""Characters of an error that may quote a request."""
_CLOSED_BY_US: Final = logging.getLogger("shardd.listener.http")
"""What the library says of connections: its tracebacks about what is no HTTP would let any peer fill the log."""
_CLOSED_BY_US.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def refusal(status: int, why: str, *, close: bool = True) -> web.Response:
    """An error as JSON; `close`: with the connection."""
    response = web.json_response({"error": why}, status=status)
    if close:
        response.force_close()
    return response


class Listener:
    """Serves routes on a socket."""

    def __init__(self, name: str, routes: list[web.RouteDef], *, most: int, patience: float, max_body: int = 0) -> None:
        """`name`: for the log. `most`: connections at once. `max_body`: bytes of a request's body."""
        self._name = name
        self._most = most
        self._patience = patience
        self._guests: dict[asyncio.BaseTransport, _Guest] = {}
        self._reaper: asyncio.Task[None] | None = None
        self._socket: asyncio.Server | None = None
        app = web.Application(middlewares=[self._serve], client_max_size=max_body)
        app.add_routes(routes)
        # The signature of a body is over its bytes as they came; nobody who speaks to us compresses.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=1.0,
            keepalive_timeout=patience,
            lingering_time=LINGER,
            auto_decompress=False,
            logger=_CLOSED_BY_US,
        )

    async def listen(self, where: Path | tuple[str, int]) -> None:
        """Begin, on a UNIX socket or on a host and a port. Raises OSError."""
        await self._runner.setup()
        self._socket = await self._bind(where)
        self._reaper = asyncio.get_running_loop().create_task(self._reap())

    async def listen_anew(self, where: Path) -> None:
        """Go on at a socket of the same name; connections at the old one live on. Raises OSError."""
        old, self._socket = self._socket, await self._bind(where)
        if old is not None:
            old.close()

    async def close(self) -> None:
        """Hang up; requests that are being worked on get their answer, if that is quick."""
        if self._socket is not None:
            self._socket.close()
        if self._reaper is not None:
            self._reaper.cancel()
        await self._runner.cleanup()

    @contextmanager
    def working(self, request: web.Request) -> Iterator[None]:
        """The request is there, and the peer owes nothing until this ends."""
        guest = self._guests.get(cast("asyncio.BaseTransport", request.transport))
        if guest is not None:
            guest.working = True
        try:
            yield
        finally:
            if guest is not None:
                guest.working = False

    def hang_up(self, request: web.Request) -> None:
        """Close the connection at once, without an answer."""
        if request.transport is not None:
            request.transport.abort()

    async def _bind(self, where: Path | tuple[str, int]) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if isinstance(where, Path):
            return await loop.create_unix_server(self._guest, str(where), backlog=BACKLOG)
        return await loop.create_server(self._guest, *where, backlog=BACKLOG)

    def _guest(self) -> asyncio.BaseProtocol:
        assert self._runner.server is not None
        return _Guest(cast("asyncio.Protocol", self._runner.server()), self)

    def admit(self, guest: _Guest, transport: asyncio.Transport) -> bool:
        """Whether there is room for a new connection, or is made."""
        if len(self._guests) >= self._most:
            slowest = min(
                (one for one in self._guests.items() if not one[1].working), key=_owes_least_patience, default=None
            )
            if slowest is None:
                return False
            self._drop(slowest[0])
        self._guests[transport] = guest
        return True

    def leave(self, transport: asyncio.BaseTransport) -> None:
        """The connection is closed."""
        self._guests.pop(transport, None)

    def _drop(self, transport: asyncio.BaseTransport) -> None:
        # Now, so that its place is free; the loop tells its protocol a little later.
        self.leave(transport)
        cast("asyncio.Transport", transport).abort()

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            too_early = time.monotonic() - self._patience
            for transport, guest in list(self._guests.items()):
                if not guest.working and guest.since < too_early:
                    self._drop(transport)

    @web.middleware
    async def _serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        guest = self._guests.get(cast("asyncio.BaseTransport", request.transport))
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return refusal(error.status, f"{request.method} {request.path[:MAX_QUOTED]}: {error.reason}")
        except (ConnectionError, web.RequestPayloadError):
            return refusal(400, "the request is not whole")
        except Exception as error:  # a defect of ours
            log.exception("a request failed", action="request_failed", listener=self._name, error=error)
            return refusal(500, "a defect of shardd; its log says more")
        finally:
            if guest is not None:
                guest.rest()


class _Guest(asyncio.Protocol):
    """A connection: the library's, watched."""

    def __init__(self, inner: asyncio.Protocol, listener: Listener) -> None:
        self.working = False
        self.idle = False
        """Answered, and nothing came since."""
        self.since = time.monotonic()
        """From when on the peer owes."""
        self._inner: asyncio.Protocol | None = None
        self._served_by = inner
        self._listener = listener
        self._transport: asyncio.Transport | None = None

    def rest(self) -> None:
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
        if self.idle:
            self.idle = False
            self.since = time.monotonic()
        if self._inner is None:
            return
        try:
            self._inner.data_received(data)
        except Exception as error:  # noqa: BLE001  bytes that the library did not foresee cost this connection only
            log.debug("a peer sent what is no HTTP", action="request_failed", error=error)
            assert self._transport is not None
            self._transport.abort()

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self._listener.leave(self._transport)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()


def _owes_least_patience(one: tuple[asyncio.BaseTransport, _Guest]) -> tuple[bool, float]:
    """Idle connections first, then those that owe for longest."""
    return not one[1].idle, one[1].since
