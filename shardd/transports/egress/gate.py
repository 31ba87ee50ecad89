"""The gate: an HTTP CONNECT proxy, what it knows of each client object, and one tunnel per connection."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from shardd.logs import get_logger
from shardd.proxies import Proxy
from shardd.tasks import TaskSet
from shardd.transports.egress.relay import HandshakeError, Side, join
from shardd.transports.egress.upstream import dial

log = get_logger(__name__)

MAX_HEAD: Final = 8 * 1024
"""Bytes of a CONNECT request."""
HEAD_TIMEOUT: Final = 10.0
"""Seconds in which a CONNECT request must be complete."""
BACKLOG: Final = 1024


class Egress:
    """The gate's account of one client object and its connections. Times are those of the event loop."""

    def __init__(
        self, gate: Gate, main_host: str, proxy: Proxy | None, dials: int, on_lost: Callable[[], None]
    ) -> None:
        self._gate = gate
        self._main_host = main_host
        self._tunnels: dict[Tunnel, None] = {}
        self._on_lost = on_lost
        self.proxy = proxy
        user, password = secrets.token_urlsafe(12), secrets.token_urlsafe(24)
        self.credential = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.url = f"http://{user}:{password}@127.0.0.1:{gate.port}"
        self.dials_left = dials
        """Dials of the main host that are left."""
        self.dialled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done at the first dial of the main host."""
        self.closed = False
        self.lost = False
        """The connection to the main host is gone, and none may follow it."""
        self.reached = False
        """A connection to the main host, or to a proxy that says so, has been established."""
        self.last_inbound: float | None = None
        """When the main host was last heard."""
        self.dial_error: str | None = None
        """Why the last dial failed, for the user."""

    def seal(self) -> None:
        """Allow no more dials of the main host: the client is logged in, and a lost connection stays lost."""
        self.dials_left = 0
        self._check_lost()

    def block(self) -> None:
        """Let nothing more out to the main host. May be called in any thread.

        All bytes of the client pass this process, so what it writes after this call has returned never leaves it.
        """
        for tunnel in tuple(self._tunnels):
            if self.is_main(tunnel):
                tunnel.block()

    def drop_inbound(self) -> None:
        """Let nothing more in from the main host, while what the client has still to write leaves."""
        for tunnel in self._tunnels:
            if self.is_main(tunnel):
                tunnel.drop_inbound()

    def kill(self) -> None:
        """Cut every connection now and admit no other; calls that wait for one fail."""
        self.closed = True
        self._gate.dismiss(self)
        for tunnel in tuple(self._tunnels):
            tunnel.abort()

    def refusal(self, host: str) -> str | None:
        """Why this client may not dial `host` now, or None."""
        if self.closed:
            return "this client is closed"
        if not self._gate.may_pass():
            return "the lease of its shard is over"
        if host == self._main_host and self.dials_left <= 0:
            return "this client is not being refreshed"
        return None

    def entered(self, tunnel: Tunnel) -> None:
        """A dial starts."""
        self._tunnels[tunnel] = None
        if self.is_main(tunnel):
            self.dials_left -= 1
            resolve(self.dialled)

    def may_pass(self) -> bool:
        """Whether bytes may still pass."""
        return self._gate.may_pass()

    def left(self, tunnel: Tunnel) -> None:
        """A connection or a dial ended."""
        self._tunnels.pop(tunnel, None)
        if self.is_main(tunnel):
            self._check_lost()

    def is_main(self, tunnel: Tunnel) -> bool:
        """Whether this is a connection to the main host."""
        return tunnel.host == self._main_host

    def server_finished(self) -> None:
        """A server sends nothing more; from the main host that is the end, even if the client has not closed yet."""
        self._check_lost()

    def _check_lost(self) -> None:
        if self.closed or self.lost or self.dials_left > 0:
            return
        if any(self.is_main(tunnel) and not tunnel.finished for tunnel in self._tunnels):
            return
        self.lost = True
        self._on_lost()


class Tunnel:
    """One connection of a client, from its CONNECT request to its end."""

    def __init__(self, egress: Egress, client: Side, host: str, port: int) -> None:
        self.host = host
        self.finished = False
        """The server sends nothing more."""
        self._port = port
        self._egress = egress
        self._client = client
        self._upstream: Side | None = None
        self._dialling: asyncio.Task[None] | None = None

    async def open(self, timeout: float) -> None:
        """Dial and join; the client is answered either way."""
        self._dialling = asyncio.current_task()
        self._client.on_end = self.abort
        self._egress.entered(self)
        target = f"{self.host}:{self._port}"
        try:
            async with asyncio.timeout(timeout):
                self._upstream = await dial(self.host, self._port, self._egress.proxy)
        except TimeoutError:
            self._refuse(504, f"{target} did not answer within {timeout:g} seconds")
        except (OSError, HandshakeError) as error:
            self._refuse(502, f"{target} cannot be reached: {error}")
        except asyncio.CancelledError:
            self._client.abort()  # it left or was cut off: there is no one to answer
        finally:
            self._dialling = None
        if self._upstream is None:
            self._egress.left(self)
            return
        self._egress.dial_error = None
        self._client.on_end = self._upstream.on_end = self._ended
        if self._egress.is_main(self):
            self._egress.reached = True
            self._upstream.on_data = self._heard
        self._upstream.on_finish = self._finished
        self._client.may_pass = self._upstream.may_pass = self._egress.may_pass
        self._client.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        join(self._client, self._upstream)

    def block(self) -> None:
        """Drop what still comes from the client."""
        self._client.blocked = True

    def drop_inbound(self) -> None:
        """Drop what still comes from the server."""
        if self._upstream is not None:
            self._upstream.blocked = True

    def abort(self) -> None:
        """Cut both sides, or the dial."""
        if self._dialling is not None:
            self._dialling.cancel()
        elif self._upstream is not None:
            self._upstream.abort()
            self._client.abort()

    def _refuse(self, status: int, why: str) -> None:
        self._egress.dial_error = why
        _answer(self._client, status, why)

    def _ended(self) -> None:
        """One side is gone, which ends the tunnel, even while the other side still flushes."""
        self._egress.left(self)

    def _finished(self) -> None:
        self.finished = True
        self._egress.server_finished()

    def _heard(self) -> None:
        self._egress.last_inbound = asyncio.get_running_loop().time()


class Gate:
    """The proxy; listens on a free port of the loopback interface."""

    def __init__(self, *, connect_timeout: float, may_pass: Callable[[], bool] = lambda: True) -> None:
        """`connect_timeout`: seconds for a dial, including the handshake of its proxy.

        `may_pass`: whether bytes may still pass; tunnels are cut at the first that may not.
        """
        self.port = 0
        self.may_pass = may_pass
        self._connect_timeout = connect_timeout
        self._server: asyncio.Server | None = None
        self._clients: dict[str, Egress] = {}
        self._handshakes = TaskSet()

    async def start(self) -> None:
        """Listen. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Side(on_open=self._opened), host="127.0.0.1", port=0, backlog=BACKLOG
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut everything and stop listening."""
        for egress in tuple(self._clients.values()):
            egress.kill()
        await self._handshakes.end()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def admit(
        self, main_host: str, *, on_lost: Callable[[], None], proxy: Proxy | None = None, dials: int = 1
    ) -> Egress:
        """Admit a new client object, which connects through `Egress.url` and dials its `main_host` at most `dials` times.

        `on_lost` is called once, when the connection to the main host is gone, no dial is left, and it was not killed.
        """
        egress = Egress(self, main_host, proxy, dials, on_lost)
        self._clients[egress.credential] = egress
        return egress

    def dismiss(self, egress: Egress) -> None:
        """Forget a client object; its credential is void."""
        self._clients.pop(egress.credential, None)

    def _opened(self, side: Side) -> None:
        self._handshakes.start(
            self._serve(side), lambda error: log.error("tunnel failed", action="egress", error=str(error))
        )

    async def _serve(self, side: Side) -> None:
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                head = await side.read_until(b"\r\n\r\n", MAX_HEAD)
        except (TimeoutError, HandshakeError):
            side.abort()
            return
        method, host, port, credential = _parse_request(head)
        egress = self._clients.get(credential)
        if method != "CONNECT":
            _answer(side, 405, "this proxy only serves CONNECT")
        elif not host or not port:
            _answer(side, 400, "CONNECT needs host:port")
        elif egress is None:
            _answer(side, 407, "no client has this credential")
        elif refusal := egress.refusal(host):
            _answer(side, 403, refusal)
        else:
            await Tunnel(egress, side, host, port).open(self._connect_timeout)


def resolve(event: asyncio.Future[None]) -> None:
    """Mark an event as happened. May be called again."""
    if not event.done():
        event.set_result(None)


def _parse_request(head: bytes) -> tuple[str, str, int, str]:
    """(method, host, port, credential) of a request; missing parts are empty or 0. Its only peer is Go's HTTP client."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    host, _, port = (words[1] if len(words) > 1 else "").rpartition(":")
    headers = dict(line.split(":", 1) for line in lines[1:] if ":" in line)
    credential = next((value for name, value in headers.items() if name.lower() == "proxy-authorization"), "")
    return words[0], host.strip("[]").lower(), int(port) if port.isdecimal() else 0, credential.strip()


def _answer(side: Side, status: int, why: str) -> None:
    body = f"{why}\n".encode()
    extra = 'Proxy-Authenticate: Basic realm="shardd"\r\n' if status == 407 else ""
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{extra}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    side.write(head.encode("latin-1") + body)
    side.close()
