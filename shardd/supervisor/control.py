"""The control socket: HTTP over a UNIX socket (0600), for `shardd status` and its kin, and for curl.

    curl --unix-socket /var/lib/shardd/control.sock http://shardd/status

| | |
|---|---|
| GET /status | the health of the node (`shardd.supervisor.status.Status`) |
| GET /metrics | the same as Prometheus text; also on loopback TCP when `control.metrics` names an address |
| POST /stop | drain and exit, like SIGTERM |
| POST /reload | read the config file again, like SIGHUP |
| POST /shards/{n}/drain, /shards/{n}/restart | answer when it is done |
| GET /devices/{id} | when the device may send, and what it waits for (`shardd.supervisor.outlook.DeviceOutlook`) |
| POST /devices/{id}/close | close the device's client, so that another process may use its session |

Errors come as {"error": "…"} with status 400, 404 or 500.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec
from aiohttp import web

from shardd.errors import ConfigError, SharddError, UsageError
from shardd.logs import get_logger
from shardd.supervisor.metrics import render_metrics
from shardd.supervisor.outlook import DeviceOutlook
from shardd.supervisor.status import Status

log = get_logger(__name__)
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


class Control:
    """Serves the socket, and the metrics page on TCP."""

    def __init__(self, supervisor: Controlled, *, socket: Path, metrics: str | None) -> None:
        """`metrics`: host:port on loopback, or None."""
        self._supervisor = supervisor
        self._socket = socket
        self._metrics = metrics
        self._runners: list[web.AppRunner] = []

    async def start(self) -> None:
        """Listen. Raises SharddError when an address cannot be used."""
        app = web.Application(middlewares=[_errors])
        app.add_routes(
            [
                web.get("/status", self._get_status),
                web.get("/metrics", self._get_metrics),
                web.post("/stop", self._post_stop),
                web.post("/reload", self._post_reload),
                web.post(r"/shards/{shard:[0-9]{1,9}}/drain", self._post_drain),
                web.post(r"/shards/{shard:[0-9]{1,9}}/restart", self._post_restart),
                web.get("/devices/{device}", self._get_device),
                web.post("/devices/{device}/close", self._post_close),
            ]
        )
        runner = await self._run(app)
        # The state folder's lock says that no supervisor lives here, so a socket file can only be a dead one's.
        self._socket.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            await web.UnixSite(runner, str(self._socket)).start()
        except OSError as error:
            raise SharddError(f"control socket {self._socket}: {error.strerror}") from error
        finally:
            os.umask(before)
        if self._metrics is not None:
            await self._serve_metrics(self._metrics)

    async def close(self) -> None:
        """Hang up."""
        for runner in self._runners:
            await runner.cleanup()
        self._socket.unlink(missing_ok=True)

    async def _serve_metrics(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        app = web.Application()
        app.add_routes([web.get("/metrics", self._get_metrics)])
        runner = await self._run(app)
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        except OSError as error:
            raise SharddError(
                f"control.metrics {address}: {os.strerror(error.errno or 0)}: choose another port"
            ) from error

    async def _run(self, app: web.Application) -> web.AppRunner:
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        return runner

    async def _get_status(self, _: web.Request) -> web.Response:
        return web.Response(body=_encode(self._supervisor.status()), content_type="application/json")

    async def _get_metrics(self, _: web.Request) -> web.Response:
        text = render_metrics(self._supervisor.status())
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _post_stop(self, _: web.Request) -> web.Response:
        self._supervisor.stop()
        return web.json_response({"stopping": True})

    async def _post_reload(self, _: web.Request) -> web.Response:
        return web.json_response({"changed": await self._supervisor.reload()})

    async def _post_drain(self, request: web.Request) -> web.Response:
        await self._supervisor.drain_shard(int(request.match_info["shard"]))
        return web.json_response({"drained": True})

    async def _post_restart(self, request: web.Request) -> web.Response:
        await self._supervisor.restart_shard(int(request.match_info["shard"]))
        return web.json_response({"restarted": True})

    async def _get_device(self, request: web.Request) -> web.Response:
        outlook = self._supervisor.outlook(request.match_info["device"])
        return web.Response(body=_encode(outlook), content_type="application/json")

    async def _post_close(self, request: web.Request) -> web.Response:
        await self._supervisor.close_device(request.match_info["device"])
        return web.json_response({"closed": True})


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except (UsageError, ConfigError) as error:
        return web.json_response({"error": str(error)}, status=400)
    except SharddError as error:
        return web.json_response({"error": str(error)}, status=500)
