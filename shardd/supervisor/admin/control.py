"""The control socket: HTTP over a UNIX socket (0600), for `shardd status` and its kin, and for curl.

    curl --unix-socket /var/lib/shardd/control.sock http://shardd/status

| | |
|---|---|
| GET /status | the health of the node (`shardd.supervisor.status.Status`) |
| GET /metrics | the same as Prometheus text; also on loopback TCP when `control.metrics` names an address |
| POST /stop | drain and exit, like SIGTERM |
| POST /reload | read the config file again, like SIGHUP |
| POST /shards/{n}/drain, /shards/{n}/restart | answer when it is done |
| GET /devices/{id} | when the device may send, and what it waits for (`shardd.supervisor.scheduling.outlook.DeviceOutlook`) |
| POST /devices/{id}/close | close the device's client, so that another process may use its session |

Errors come as {"error": "…"} with status 400, 404, 405 or 500. A peer that sends or reads too slowly is hung up on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

import msgspec
from aiohttp import web

from shardd.errors import ConfigError, SharddError, UsageError
from shardd.logs import get_logger
from shardd.supervisor.admin.metrics import render_metrics
from shardd.supervisor.http_listener import Listener, refusal
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.scheduling.outlook import DeviceOutlook
from shardd.supervisor.services import Service
from shardd.supervisor.status import Status

log = get_logger(__name__)

LOOK_EVERY: Final = 2.0
"""Seconds between looks at the socket's place."""
MOST: Final = 32
"""Connections of each listener at once."""
PATIENCE: Final = 10.0
"""Seconds in which a peer must have sent its request, or have taken its answer."""
PAGE_FOR: Final = 0.5
"""Seconds for which a page of metrics is good: whoever asks again and again costs little."""
LONGEST_ID: Final = 64
QUOTED: Final = 40
"""Characters that an error repeats of a path."""
_SHARD: Final = re.compile("[0-9]{1,9}")
_encode = msgspec.json.Encoder().encode


class Controlled(Protocol):
    """What the control socket can ask of a supervisor."""

    def status(self) -> Status:
        """The health of the node."""

    def stop(self) -> None:
        """Begin to stop."""

    async def reload(self) -> list[str]:
        """Read the config again; returns what changed, in words."""

    async def drain_shard(self, shard: int) -> None:
        """Drain a shard."""

    async def restart_shard(self, shard: int) -> None:
        """Restart a shard."""

    def outlook(self, device_id: str) -> DeviceOutlook:
        """When a device may send."""

    async def close_device(self, device_id: str) -> None:
        """Close a device's client."""


class Control(Service):
    """Serves the socket, and the metrics page on TCP."""

    def __init__(self, supervisor: Controlled, *, socket: Path, metrics: str | None) -> None:
        """`metrics`: host:port on loopback, or None."""
        self._supervisor = supervisor
        self._socket = socket
        self._metrics = metrics
        self._mine = (0, 0)
        """Device and inode of the socket."""
        self.trouble: str | None = None
        """Why commands do not reach this node; None: they do."""
        self._page = b""
        self._page_at = -PAGE_FOR
        routes = [
            web.get("/status", self._get_status),
            web.get("/metrics", self._get_metrics),
            web.post("/stop", self._post_stop),
            web.post("/reload", self._post_reload),
            web.post("/shards/{shard}/drain", self._post_drain),
            web.post("/shards/{shard}/restart", self._post_restart),
            web.get("/devices/{device}", self._get_device),
            web.post("/devices/{device}/close", self._post_close),
        ]
        self._listener = Listener("control", [self._working(route) for route in routes], most=MOST, patience=PATIENCE)
        page = [web.get("/metrics", self._get_metrics)]
        self._page_listener = Listener("metrics", page, most=MOST, patience=PATIENCE)

    async def start(self) -> None:
        """Listen. Raises SharddError when an address cannot be used."""
        # The state folder's lock says that no supervisor lives here, so a socket can only be a dead one's.
        await self._make(anew=False)
        if self._metrics is not None:
            await self._serve_metrics(self._metrics)

    async def serve(self) -> None:
        """Make the socket anew when it is not where it was."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self._look()

    async def _look(self) -> None:
        before, self.trouble = self.trouble, None
        try:
            if self._is_there():
                return
            if _answers(self._socket):
                raise SharddError(f"control socket {self._socket}: another program listens there: stop it")  # noqa: TRY301  # one place for each way to fail
            await self._make(anew=True)
        except SharddError as error:
            self.trouble = (
                f"{error}; until then no command reaches this node, but SIGTERM and SIGHUP do (pid {os.getpid()})"
            )
            if self.trouble != before:
                log.error("the control socket is gone", action="control", problem=self.trouble)
        else:
            log.warning(
                "the control socket was deleted or replaced: made anew", action="control", path=str(self._socket)
            )

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        if self.trouble is not None:
            yield Problem(ProblemKind.CONTROL, self.trouble)

    def _is_there(self) -> bool:
        try:
            found = self._socket.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._mine

    async def _make(self, *, anew: bool) -> None:
        self._remove_old()
        before = os.umask(0o177)
        try:
            await (self._listener.listen_anew if anew else self._listener.listen)(self._socket)
            found = self._socket.lstat()
        except OSError as error:
            raise SharddError(f"control socket {self._socket}: {error.strerror}") from error
        finally:
            os.umask(before)
        self._mine = found.st_dev, found.st_ino

    async def close(self) -> None:
        """Hang up."""
        await self._listener.close()
        await self._page_listener.close()
        # Where the state folder was replaced, another shardd's socket may stand there.
        if self._is_there():
            with contextlib.suppress(OSError):
                self._socket.unlink()

    def _remove_old(self) -> None:
        try:
            if not stat.S_ISSOCK(self._socket.lstat().st_mode):
                raise SharddError(
                    f"control socket {self._socket}: something else stands there, which is no socket: move it away"
                )
            self._socket.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise SharddError(f"control socket {self._socket}: {error.strerror}") from error

    async def _serve_metrics(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        try:
            await self._page_listener.listen((host.strip("[]"), int(port)))
        except OSError as error:
            raise SharddError(
                f"control.metrics {address}: {os.strerror(error.errno or 0)}: choose another port"
            ) from error

    def _working(self, route: web.RouteDef) -> web.RouteDef:
        """The route, with errors as answers; none of these requests has a body to wait for."""

        async def handle(request: web.Request) -> web.StreamResponse:
            with self._listener.working(request):
                try:
                    return await route.handler(request)
                except (UsageError, ConfigError) as error:
                    return refusal(400, str(error), close=False)
                except SharddError as error:
                    return refusal(500, str(error), close=False)

        return web.RouteDef(route.method, route.path, handle, {})

    async def _get_status(self, _: web.Request) -> web.Response:
        return web.Response(body=_encode(self._supervisor.status()), content_type="application/json")

    async def _get_metrics(self, _: web.Request) -> web.Response:
        now = time.monotonic()
        if now >= self._page_at + PAGE_FOR:
            self._page, self._page_at = render_metrics(self._supervisor.status()), now
        return web.Response(body=self._page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _post_stop(self, _: web.Request) -> web.Response:
        self._supervisor.stop()
        return web.json_response({"stopping": True})

    async def _post_reload(self, _: web.Request) -> web.Response:
        return web.json_response({"changed": await self._supervisor.reload()})

    async def _post_drain(self, request: web.Request) -> web.Response:
        await self._supervisor.drain_shard(_shard(request))
        return web.json_response({"drained": True})

    async def _post_restart(self, request: web.Request) -> web.Response:
        await self._supervisor.restart_shard(_shard(request))
        return web.json_response({"restarted": True})

    async def _get_device(self, request: web.Request) -> web.Response:
        outlook = self._supervisor.outlook(_device(request))
        return web.Response(body=_encode(outlook), content_type="application/json")

    async def _post_close(self, request: web.Request) -> web.Response:
        await self._supervisor.close_device(_device(request))
        return web.json_response({"closed": True})


def _answers(path: Path) -> bool:
    """Whether somebody listens at a socket; does not wait."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
    except OSError:
        return False
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
