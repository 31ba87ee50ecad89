"""The HTTP listener for Meta: receipts of messages that went through the Cloud API, and texts that people wrote.

| | |
|---|---|
| GET path?hub.mode=subscribe&hub.verify_token=…&hub.challenge=… | the registration: repeats the challenge if the token is right |
| POST path | a notification, signed over its bytes in X-Hub-Signature-256 |

An unsigned body is not parsed. 200 means that the receipts and texts are on the disk; after anything else Meta repeats the
notification for days. Of what people write to a number that is not a device of ours, only opt-outs are kept, as written to
`phone_number_id …`: Meta signed it with our secret, so it is a number of our account. Statuses of such a number are dropped. Both
are counted.

Anybody may reach this port. What a peer without the secret can hold is bounded: connections and time by `Listener`, the bytes of
all incomplete bodies here (aiohttp's `request.read()` bounds only each one). Above the bound the oldest is dropped; a signed
notification arrives at once, and so gets through.
"""

from __future__ import annotations

import hmac
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

import msgspec
from aiohttp import web

from shardd import ipc
from shardd.config import CloudWebhookConfig, Config
from shardd.config.source import substitute
from shardd.config.transports.cloud_api import CLOUD_API, PHONE_NUMBER_ID
from shardd.config.values import RefusedError
from shardd.errors import DeviceUnavailableError
from shardd.incoming import Incoming
from shardd.logs import get_logger
from shardd.queue.records import Device, RemovedDevice
from shardd.storable import storable
from shardd.supervisor.http_listener import Listener, refusal
from shardd.supervisor.inbound.cloud_notifications import Wrote, read_notification
from shardd.supervisor.inbound.cloud_statuses import Status
from shardd.supervisor.inbound.unattributed import UnattributedReports
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.services import Service

log = get_logger(__name__)

MAX_BODY: Final = 3 * 1024 * 1024
"""Bytes; Meta's own limit of a notification."""
MOST_HELD: Final = 16 * 1024 * 1024
"""Bytes of all incomplete bodies."""
MOST_CONNECTIONS: Final = 128
PATIENCE: Final = 10.0
"""Seconds in which a notification must have arrived."""
NUMBERS_FOR: Final = 5.0
"""Seconds for which the devices of each number are cached."""
WARN_EVERY: Final = 10.0
"""Seconds between warnings about unsigned notifications."""
_SIGNATURE: Final = re.compile(r"sha256=[0-9a-f]{64}")


class CloudNumbers:
    """The devices that send with each number of the Cloud API."""

    def __init__(
        self, scheduler: Scheduler, environ: Mapping[str, str], removed: Callable[[], Sequence[RemovedDevice]]
    ) -> None:
        """`removed`: see `DeviceSync.removed`."""
        self._scheduler = scheduler
        self._environ = environ
        self._removed = removed
        self._devices: dict[str, list[str]] = {}
        self._read_at = -NUMBERS_FOR

    def devices(self, phone_number_ids: set[str]) -> dict[str, list[str]]:
        """The ids of each number's devices: mostly one, none for an unknown number, removed ones if there is no other.

        Takes many numbers at once, because reading all devices takes long and a notification may name ten thousand numbers.
        """
        now = time.monotonic()
        if now >= self._read_at + NUMBERS_FOR or not phone_number_ids <= self._devices.keys():
            self._read()
            self._read_at = now
        return {number: self._devices.get(number, []) for number in phone_number_ids}

    def _read(self) -> None:
        self._devices = self._by_number(queue.device for queue in self._scheduler.queues.values())
        for number, devices in self._by_number(self._removed()).items():
            self._devices.setdefault(number, devices)

    def _by_number(self, devices: Iterable[Device | RemovedDevice]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for device in devices:
            number = device.settings.get(PHONE_NUMBER_ID)
            if device.transport == CLOUD_API.name and isinstance(number, str):
                try:
                    found.setdefault(substitute(number, self._environ), []).append(device.id)
                except RefusedError:
                    continue  # the device cannot send either, and reports why
        return found


class CloudWebhook(Service):
    """Passes on what Meta reports."""

    def __init__(
        self,
        config: CloudWebhookConfig,
        devices_of: Callable[[set[str]], Mapping[str, list[str]]],
        *,
        receipts: Callable[[Sequence[ipc.Receipt]], Awaitable[None]],
        incoming: Callable[[Sequence[Incoming]], Awaitable[None]],
        unavailable: Callable[[str, DeviceUnavailableError, float], None],
        unattributed: UnattributedReports,
    ) -> None:
        """`devices_of` phone_number_ids: see CloudNumbers.

        `receipts` gets receipts, failures included; `incoming` what people wrote. They must
        keep what they get, because Meta is told that it arrived; if one of them raises, Meta repeats the notification.
        `unavailable`: a device cannot send, as a failed message of this time (POSIX seconds) shows.
        """
        assert config.listen is not None
        assert config.app_secret is not None
        assert config.verify_token is not None
        self._address = config.listen
        self._path = config.path
        self._secret = config.app_secret.encode()
        self._token = config.verify_token.encode()
        self._devices_of = devices_of
        self._receipts = receipts
        self._incoming = incoming
        self._unavailable = unavailable
        self._unattributed = unattributed
        self._arriving: dict[_Body, None] = {}
        """Incomplete bodies, the oldest first."""
        self._held = 0
        self._unsigned = 0
        """Unsigned notifications since the last warning."""
        self._warned_at = -WARN_EVERY
        routes = [web.get(self._path, self._register), web.post(self._path, self._notified)]
        self._listener = Listener("cloud_webhook", routes, most=MOST_CONNECTIONS, patience=PATIENCE, max_body=MAX_BODY)

    async def start(self) -> None:
        """Listen, until `close`. Raises SharddError."""
        await self._listener.listen_on_port(self._address, "transports.cloud_api.webhook.listen")
        log.info("listening to Meta", action="webhook", listen=self._address, path=self._path)

    async def close(self) -> None:
        """Hang up, after the notifications that are being handled."""
        await self._listener.close()

    async def _register(self, request: web.Request) -> web.Response:
        # Bytes that are not UTF-8 arrive as surrogate escapes.
        token = request.query.get("hub.verify_token", "").encode(errors="surrogatepass")
        if request.query.get("hub.mode") != "subscribe" or not hmac.compare_digest(token, self._token):
            return refusal(403, "the verify token is wrong")
        challenge = request.query.get("hub.challenge", "").encode(errors="replace")
        return web.Response(body=challenge, content_type="text/plain", headers={"X-Content-Type-Options": "nosniff"})

    async def _notified(self, request: web.Request) -> web.Response:
        signature = request.headers.get("X-Hub-Signature-256", "")
        if not _SIGNATURE.fullmatch(signature):
            return self._refuse_unsigned(request)
        if (request.content_length or 0) > MAX_BODY:
            return refusal(413, f"a notification has at most {MAX_BODY} bytes")
        try:
            body = await self._read(request)
        except _TooLongError:
            return refusal(413, f"a notification has at most {MAX_BODY} bytes")
        right = hmac.new(self._secret, body, "sha256").hexdigest()
        if not hmac.compare_digest(signature.removeprefix("sha256="), right):
            return self._refuse_unsigned(request)
        with self._listener.working(request):
            return await self._handle(body)

    async def _read(self, request: web.Request) -> bytearray:
        """The body. Raises _TooLongError, and what aiohttp raises when the connection is lost; `Listener` bounds the time."""
        body = _Body(request)
        self._arriving[body] = None
        try:
            async for chunk in request.content.iter_any():
                if len(body.content) + len(chunk) > MAX_BODY:
                    raise _TooLongError
                body.content += chunk
                self._held += len(chunk)
                while self._held > MOST_HELD:
                    self._drop(next(iter(self._arriving)))
            if body not in self._arriving:
                raise ConnectionAbortedError
            return body.content
        finally:
            self._forget(body)

    def _drop(self, body: _Body) -> None:
        self._forget(body)
        body.content = bytearray()  # free it now, not when the dropped request is collected
        self._listener.hang_up(body.request)

    def _forget(self, body: _Body) -> None:
        if body in self._arriving:
            del self._arriving[body]
            self._held -= len(body.content)

    def _refuse_unsigned(self, request: web.Request) -> web.Response:
        self._unsigned += 1
        now = time.monotonic()
        if now >= self._warned_at + WARN_EVERY:
            text = "a notification without Meta's signature"
            log.warning(text, action="webhook", peer=request.remote, since_last_warning=self._unsigned)
            self._warned_at, self._unsigned = now, 0
        return refusal(401, "the signature is missing or wrong")

    async def _handle(self, body: bytearray) -> web.Response:
        """A signed body."""
        try:
            notification = msgspec.json.decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return refusal(400, "not JSON", close=False)
        try:
            reports = list(read_notification(notification))
            devices_of = self._devices_of({report.phone_number_id for report in reports})
            statuses, messages = [], []
            for report in reports:
                devices = devices_of[report.phone_number_id]
                number = unknown_number(report.phone_number_id)
                if not devices:
                    self._unattributed.note(f"the Cloud API's {number}")
                match report:
                    case Status():
                        statuses += [(device_id, report) for device_id in devices]
                    case Wrote():
                        # One message, however many devices have the number: two rows of it would be answered twice.
                        messages += [
                            msgspec.structs.replace(report.message, device_id=device_id)
                            for device_id in sorted(devices)[:1] or [number]
                        ]
                    case _:
                        assert_never(report)
            if messages:
                await self._incoming(messages)
            now = time.time()
            await self._receipts([receipt_of(device_id, status, now) for device_id, status in statuses])
            for device_id, status in statuses:
                if isinstance(status.error, DeviceUnavailableError):
                    self._unavailable(device_id, status.error, now if status.at is None else status.at)
        except Exception as error:  # of the one who should keep it
            log.exception("a notification was not kept; Meta repeats it", action="webhook", error=error)
            return refusal(503, "not kept: repeat it", close=False)
        return web.Response()


def unknown_number(phone_number_id: str) -> str:
    """In place of the device's id, for a message to a number that no device has. It has a space, unlike any id."""
    return storable(f"phone_number_id {phone_number_id}", 80)


def receipt_of(device_id: str, status: Status, now: float) -> ipc.Receipt:
    """A status as the row of its job records it. `now`: POSIX seconds."""
    error = None if status.error is None else str(status.error)
    if error is not None:
        text = "an accepted message was not delivered"
        log.warning(text, action="webhook", device=device_id, message=status.message_id, error=error)
    return ipc.Receipt(
        device_id,
        [status.message_id],
        status.kind,
        now if status.at is None else status.at,
        error,
        None if status.error is None else status.error.error_class.value,
        status.claim,
        addresses=status.addresses,
    )


def make_cloud_webhook(
    config: Config,
    scheduler: Scheduler,
    *,
    receipts: Callable[[Sequence[ipc.Receipt]], Awaitable[None]],
    incoming: Callable[[Sequence[Incoming]], Awaitable[None]],
    unavailable: Callable[[str, DeviceUnavailableError, float], None],
    removed: Callable[[], Sequence[RemovedDevice]],
    unattributed: UnattributedReports,
) -> CloudWebhook | None:
    """None: the config has no webhook."""
    webhook = config.transports.cloud_api.webhook
    if webhook.listen is None:
        return None
    return CloudWebhook(
        webhook,
        CloudNumbers(scheduler, os.environ, removed).devices,
        receipts=receipts,
        incoming=incoming,
        unavailable=unavailable,
        unattributed=unattributed,
    )


@dataclass(eq=False, slots=True)
class _Body:
    """An incomplete body."""

    request: web.Request
    content: bytearray = field(default_factory=bytearray)


class _TooLongError(Exception):
    """A body beyond `MAX_BODY`."""
