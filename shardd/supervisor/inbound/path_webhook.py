"""The HTTP listener for Wablas and Whacenter, which sign nothing: each device has a secret path.

POST /wablas/… or /whacenter/… with JSON or a form. 200 means that the message or status is on the disk. The answer has no body,
because Wablas sends the body of an answer to whoever wrote. The path of a removed device goes on being read, for opt-outs.
Anything else on this port is answered with 404 before its body is read, and counted if it has the shape of a path;
`Listener` bounds what a peer can hold.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from aiohttp import web

from shardd import ipc
from shardd.config import Config
from shardd.config.transports.platforms import WITH_PATHS
from shardd.config.transports.webhook_paths import webhook_path
from shardd.incoming import Incoming
from shardd.logs import get_logger
from shardd.queue.records import RemovedDevice
from shardd.supervisor.http_listener import Listener, refusal
from shardd.supervisor.inbound.platform_reports import read_report
from shardd.supervisor.inbound.unattributed import UnattributedReports
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.services import Service

log = get_logger(__name__)

MAX_BODY: Final = 1024 * 1024
"""Bytes; a platform posts no files, only their URLs."""
MOST_CONNECTIONS: Final = 128
PATIENCE: Final = 10.0
"""Seconds in which a request must have arrived."""
PATHS_FOR: Final = 5.0
"""Seconds for which the paths are cached, and for which an unknown path stays unknown."""

_SHAPE: Final = re.compile(rf"/({'|'.join(WITH_PATHS)})/[0-9a-f]{{40}}")
"""Of all paths, see `webhook_path`."""

Path = tuple[str, str]
"""(transport, device id)."""


class DevicePaths:
    """The devices by their paths."""

    def __init__(
        self,
        scheduler: Scheduler,
        secrets: Mapping[str, str],
        removed: Callable[[], Sequence[RemovedDevice]],
    ) -> None:
        """`secrets`: by transport, of the config; `removed`: see `DeviceSync.removed`."""
        self._scheduler = scheduler
        self._removed = removed
        self._secrets = secrets
        self._paths: dict[str, Path] = {}
        self._read_at = -PATHS_FOR

    def __call__(self, path: str) -> Path | None:
        """Whose path this is."""
        now = time.monotonic()
        if now >= self._read_at + PATHS_FOR:
            self._read_at = now
            devices = [(queue.device.transport, queue.device.id) for queue in self._scheduler.queues.values()]
            devices += [(device.transport, device.id) for device in self._removed()]
            self._paths = {
                webhook_path(secret, transport, device_id): (transport, device_id)
                for transport, device_id in devices
                if (secret := self._secrets.get(transport)) is not None
            }
        return self._paths.get(path)


class PathWebhook(Service):
    """Passes on what these platforms report at one address."""

    def __init__(
        self,
        address: str,
        setting: str,
        device_of: Callable[[str], Path | None],
        *,
        regions: Mapping[str, str],
        receipts: Callable[[Sequence[ipc.Receipt]], Awaitable[None]],
        incoming: Callable[[Sequence[Incoming]], Awaitable[None]],
        unattributed: UnattributedReports,
    ) -> None:
        """`setting`: where the address is from. `device_of` a path: see DevicePaths. `regions`: the default ones, by transport.

        `receipts` and `incoming` must keep what they get; if one of them raises, the platform is told to repeat it.
        """
        self._address = address
        self._setting = setting
        self._device_of = device_of
        self._regions = regions
        self._receipts = receipts
        self._incoming = incoming
        self._unattributed = unattributed
        self._unread = 0
        """Messages whose senders could not be read."""
        routes = [web.post("/{transport}/{key}", self._reported)]
        self._listener = Listener("path_webhook", routes, most=MOST_CONNECTIONS, patience=PATIENCE, max_body=MAX_BODY)

    async def start(self) -> None:
        """Listen, until `close`. Raises SharddError."""
        await self._listener.listen_on_port(self._address, self._setting)
        log.info("listening to platforms", action="webhook", listen=self._address)

    async def close(self) -> None:
        """Hang up, after the requests that are being handled."""
        await self._listener.close()

    async def _reported(self, request: web.Request) -> web.Response:
        found = self._device_of(request.path)
        if found is None:
            if (match := _SHAPE.fullmatch(request.path)) is not None:
                self._unattributed.note(f"an unknown path of {match[1]}")
            return refusal(404, "there is nothing at this path")
        transport, device_id = found
        body = await _read(request)
        if body is None:
            return refusal(400, "neither a JSON object nor a form", close=False)
        with self._listener.working(request):
            report = read_report(transport, device_id, body, time.time(), region=self._regions.get(transport))
            try:
                match report:
                    case ipc.Receipt():
                        await self._receipts([report])
                    case Incoming():
                        if not report.addresses:
                            self._unread += 1
                            text = (
                                "the sender of a message cannot be read, so it opts nobody out: see shardd inbox list"
                            )
                            log.warning(text, action="webhook", device=device_id, since_start=self._unread)
                        await self._incoming([report])
                    case None:
                        log.debug("a report of no use", action="webhook", device=device_id)
            except Exception as error:  # of the one who should keep it
                log.exception("a report was not kept", action="webhook", device=device_id, error=error)
                return refusal(503, "not kept: repeat it", close=False)
        return web.Response()


async def _read(request: web.Request) -> Mapping[str, Any] | None:
    """The object that was posted: PHP's clients send JSON without saying so, or a form."""
    if request.content_type == "multipart/form-data":
        form = await request.post()
        return {name: value for name, value in form.items() if isinstance(value, str)}
    body = await request.read()
    if body.lstrip()[:1] != b"{":
        form = await request.post()
        return {name: value for name, value in form.items() if isinstance(value, str)} or None
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def make_path_webhooks(
    config: Config,
    scheduler: Scheduler,
    *,
    receipts: Callable[[Sequence[ipc.Receipt]], Awaitable[None]],
    incoming: Callable[[Sequence[Incoming]], Awaitable[None]],
    removed: Callable[[], Sequence[RemovedDevice]],
    unattributed: UnattributedReports,
) -> list[PathWebhook]:
    """One for each address; none: the config has no such webhook."""
    by_address: dict[str, dict[str, str]] = {}
    for transport in WITH_PATHS:
        webhook = getattr(config.transports, transport).webhook
        if webhook.listen is not None:
            by_address.setdefault(webhook.listen, {})[transport] = webhook.secret
    return [
        PathWebhook(
            address,
            f"transports.{next(iter(secrets))}.webhook.listen",
            DevicePaths(scheduler, secrets, removed),
            regions=config.transports.regions,
            receipts=receipts,
            incoming=incoming,
            unattributed=unattributed,
        )
        for address, secrets in by_address.items()
    ]
