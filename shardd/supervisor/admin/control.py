"""The control socket: HTTP over a UNIX socket (0600, or 0660 for a group), for the `shardd` commands, and for curl.

    curl --unix-socket /var/lib/shardd/control.sock http://shardd/status

| | |
|---|---|
| GET /status | the health of the node (`shardd.supervisor.status.Status`) |
| GET /metrics | the same as Prometheus text; also on TCP when `control.metrics` names an address |
| GET /health | liveness, also on that address: 200 while the supervisor works, whatever is degraded; 503 when it hangs |
| GET /ready | readiness, also there: 200 while the node has started and holds its leases or stands by; otherwise 503 |
| POST /stop | drain and exit, like SIGTERM |
| POST /reload | read the config file again, like SIGHUP |
| POST /shards/{n}/drain, /shards/{n}/restart | answers when it is done |
| GET /settings | what the dashboard must know of the config (`shardd.supervisor.admin.node_settings`) |
| GET /devices/{id} | when the device may send, and what it waits for (`shardd.supervisor.scheduling.outlook.DeviceOutlook`) |
| POST /dashboard/links | a link that signs one person in to the dashboard, once, within five minutes |
| GET /dashboard/links/{token} | for the dashboard: whether a link's token is good |
| POST /dashboard/links/{token}/redeem | for the dashboard: whether a link's token is good, which uses it up |
| POST /devices/{id}/close | close the device's client, so that another process may use its session |

It answers from the begin of the start on; what needs a running node is refused until then. Errors come as {"error": "…"} with
status 400, 404, 405, 500 or 503. A peer that sends or reads too slowly is disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web
from prometheus_client.core import Metric

from shardd.control_client import CONFIG_REFUSED
from shardd.errors import ConfigError, NotStartedError, SharddError, UsageError
from shardd.logs import get_logger
from shardd.supervisor.admin.metrics import render_metrics
from shardd.supervisor.admin.node import Node
from shardd.supervisor.admin.node_settings import settings_of
from shardd.supervisor.admin.starting import Starting
from shardd.supervisor.http_listener import Listener, refusal
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.services import Service
from shardd.supervisor.status import Status

log = get_logger(__name__)

CHECK_EVERY: Final = 2.0
"""Seconds between checks that the socket is still at its path."""
MOST: Final = 32
"""Connections of each listener at once."""
PATIENCE: Final = 10.0
"""Seconds in which a peer must have sent its request, or have taken its answer."""
HANGS_AFTER: Final = 30.0
"""Seconds without a check of the workers, which takes milliseconds, after which the supervisor hangs; as in the systemd unit."""
NO_LEASES: Final = "its leases are unknown: the database does not answer"
PAGE_FOR: Final = 0.5
"""Seconds for which a metrics page is served again, so that frequent requests cost little."""
LONGEST_ID: Final = 64
QUOTED: Final = 40
"""Characters of a path that an error repeats."""
NOWHERE: Final = (0, 0)
_SHARD: Final = re.compile("[0-9]{1,9}")
_encode = msgspec.json.Encoder().encode


class Control(Service):
    """Serves the socket, and the metrics page over TCP."""

    def __init__(
        self, starting: Starting, stop: Callable[[], None], *, socket: Path, group: bool, metrics: str | None
    ) -> None:
        """`starting`: answers until `node` is set; `stop`: ends the start; `group`: the process's group may use it, too.

        `metrics`: address and port, or None.
        """
        self.node: Node | None = None
        """None until the start has made it."""
        self._starting = starting
        self._end_start = stop
        self._socket = socket
        self._umask = 0o117 if group else 0o177
        self._metrics = metrics
        self._mine = NOWHERE
        """Device and inode of the socket."""
        self._error: str | None = None
        """Why commands do not reach this node; None: they do."""
        self._page = b""
        self._page_at = -PAGE_FOR
        pages = [
            web.get("/metrics", self._get_metrics),
            web.get("/health", self._get_health),
            web.get("/ready", self._get_ready),
        ]
        routes = [
            *pages,
            self._route("GET", "/status", self._status),
            self._route("POST", "/stop", self._stop),
            self._route("POST", "/reload", self._reload),
            self._route("POST", "/shards/{shard}/drain", self._drain),
            self._route("POST", "/shards/{shard}/restart", self._restart),
            self._route("GET", "/settings", self._settings),
            self._route("GET", "/devices/{device}", self._outlook),
            self._route("POST", "/devices/{device}/close", self._close_device),
            self._route("POST", "/dashboard/links", self._make_link),
            self._route("GET", "/dashboard/links/{token}", self._look_at_link),
            self._route("POST", "/dashboard/links/{token}/redeem", self._redeem_link),
        ]
        self._listener = Listener("control", routes, most=MOST, patience=PATIENCE)
        self._page_listener = Listener("metrics", pages, most=MOST, patience=PATIENCE)

    async def start(self) -> None:
        """Listen, unless it does. Raises SharddError when an address cannot be used."""
        if self._mine != NOWHERE:
            return
        # This process holds the state folder's lock, so a socket at the path is left over from a dead supervisor.
        await self._create()
        if self._metrics is not None:
            await self._page_listener.listen_on_port(self._metrics, "control.metrics")

    async def serve(self) -> None:
        """Create the socket again whenever it is gone."""
        while True:
            await asyncio.sleep(CHECK_EVERY)
            if self._is_there():
                self._error = None
            else:
                await self._restore()

    async def _restore(self) -> None:
        before, self._error = self._error, None
        try:
            if _answers(self._socket):
                raise SharddError(f"control socket {self._socket}: another program listens there: stop it")  # noqa: TRY301  # one place for each way to fail
            await self._create()
        except SharddError as error:
            self._error = f"{error}; until then no command reaches this node; SIGTERM and SIGHUP do (pid {os.getpid()})"
            if self._error != before:
                log.error("the control socket is gone", action="control", problem=self._error)
        else:
            log.warning("the control socket was gone: created again", action="control", path=str(self._socket))

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        if self._error is not None:
            yield Problem(ProblemKind.CONTROL, self._error)

    def _is_there(self) -> bool:
        try:
            found = self._socket.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._mine

    async def _create(self) -> None:
        before = os.umask(self._umask)
        try:
            await self._listener.listen(self._socket)  # replaces a socket, and nothing else
            found = self._socket.lstat()
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            why = "this path is not a socket: move it away" if in_use else os.strerror(error.errno or 0)
            raise SharddError(f"control socket {self._socket}: {why}") from error
        finally:
            os.umask(before)
        self._mine = found.st_dev, found.st_ino

    async def close(self) -> None:
        """Hang up."""
        await self._listener.close()
        await self._page_listener.close()
        # If the state folder was replaced, the socket of another shardd may be there.
        if self._is_there():
            with contextlib.suppress(OSError):
                self._socket.unlink()

    def _route(self, method: str, path: str, answer: Callable[[web.Request], Awaitable[object]]) -> web.RouteDef:
        """A route that answers in JSON, errors included. These requests have no body to wait for."""

        async def handle(request: web.Request) -> web.StreamResponse:
            with self._listener.working(request):
                try:
                    return web.Response(body=_encode(await answer(request)), content_type="application/json")
                except UsageError as error:
                    return refusal(400, str(error), close=False)
                except ConfigError as error:
                    return refusal(CONFIG_REFUSED, str(error), close=False)
                except NotStartedError as error:
                    return refusal(503, str(error), close=False)
                except SharddError as error:
                    return refusal(500, str(error), close=False)

        return web.RouteDef(method, path, handle, {})

    async def _get_metrics(self, _: web.Request) -> web.Response:
        now = time.monotonic()
        if now >= self._page_at + PAGE_FOR:
            self._page, self._page_at = render_metrics(self._now(), self._latencies), now
        return web.Response(body=self._page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def _latencies(self) -> Iterable[Metric]:
        return () if self.node is None else self.node.router.latencies.collect()

    async def _get_health(self, _: web.Request) -> web.Response:
        # The start has no such deadline: systemd's, or a startup probe's, is the one who gives it up.
        node = self.node
        if node is None or node.state != "running":
            return web.json_response({"alive": True})
        silent = time.monotonic() - node.workers.ticked_at
        alive = silent < HANGS_AFTER
        return web.json_response({"alive": alive, "checked": round(silent, 3)}, status=200 if alive else 503)

    async def _get_ready(self, _: web.Request) -> web.Response:
        status = self._now()
        why = None if status.ready else status.starting or (status.state if status.state != "running" else NO_LEASES)
        return web.json_response({"ready": status.ready, "why": why}, status=200 if status.ready else 503)

    def _now(self) -> Status:
        return self._starting.status() if self.node is None else self.node.status()

    @property
    def _node(self) -> Node:
        if self.node is None:
            raise NotStartedError(f"shardd is starting ({self._starting.step}): wait with shardd status --wait")
        return self.node

    async def _status(self, _: web.Request) -> object:
        return self._now()

    async def _stop(self, _: web.Request) -> object:
        self._end_start() if self.node is None else self.node.stop()
        return {"stopping": True}

    async def _reload(self, _: web.Request) -> object:
        return {"changed": await self._node.reload()}

    async def _drain(self, request: web.Request) -> object:
        await self._node.workers.drain(_shard(request))
        return {"drained": True}

    async def _restart(self, request: web.Request) -> object:
        await self._node.workers.restart(_shard(request))
        return {"restarted": True}

    async def _settings(self, _: web.Request) -> object:
        return settings_of(self._node.current.config)

    async def _outlook(self, request: web.Request) -> object:
        return self._node.outlook(_device(request))

    async def _close_device(self, request: web.Request) -> object:
        await self._node.close_device(_device(request))
        return {"closed": True}

    async def _make_link(self, _: web.Request) -> object:
        dashboard = self._node.dashboard
        if dashboard.site is None:
            why = next(iter(dashboard.notes()), "no dashboard: dashboard.listen is null: set it, and restart shardd")
            raise UsageError(why)
        return {"url": f"{dashboard.site}sign-in/{dashboard.links.make()}"}

    async def _look_at_link(self, request: web.Request) -> object:
        return {"good": self._node.dashboard.links.is_good(request.match_info["token"])}

    async def _redeem_link(self, request: web.Request) -> object:
        return {"redeemed": self._node.dashboard.links.redeem(request.match_info["token"])}


def _answers(path: Path) -> bool:
    """Whether a program listens at a socket; does not block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as caller:
        try:
            caller.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def _shard(request: web.Request) -> int:
    """The shard that a path names. Raises UsageError."""
    text = request.match_info["shard"]
    if not _SHARD.fullmatch(text):
        raise UsageError(f"{text[:QUOTED]!r} is not a shard: write its number")
    return int(text)


def _device(request: web.Request) -> str:
    """The device that a path names; it need not exist. Raises UsageError."""
    text = request.match_info["device"]
    if len(text) > LONGEST_ID:
        raise UsageError(f"{text[:QUOTED]!r} is not a device: an id has at most {LONGEST_ID} characters")
    return text
