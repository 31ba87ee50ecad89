"""Listens to Meta: what becomes of messages that went through the Cloud API, and what people answer.

| | |
|---|---|
| GET path?hub.mode=subscribe&hub.verify_token=…&hub.challenge=… | the registration: repeats the challenge, if the word is right |
| POST path | a notification, signed over its bytes in X-Hub-Signature-256 |

Nothing is believed without the signature, and no byte of an unsigned body is read as anything. 200 says that what was heard is in
the hands of those who write it; anything else makes Meta say it again, for days. Notifications of numbers that are no device of
ours are answered with 200 and dropped.

Anybody may reach this port. What a peer without the secret can hold is bounded: connections and time by `Listener`, the bytes of
all unfinished bodies here. What has been on its way for longest gives way: a signed one comes at once, and so gets through.
"""

from __future__ import annotations

import hmac
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from aiohttp import web

from shardd import ipc
from shardd.config import CloudWebhookConfig, Config
from shardd.config.source import substitute
from shardd.config.values import RefusedError
from shardd.logs import get_logger
from shardd.supervisor.http_listener import Listener, refusal
from shardd.supervisor.inbound.cloud_notifications import Confirmed, NotDelivered, Wrote, read_notification
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.services import Service

log = get_logger(__name__)

MAX_BODY: Final = 3 * 1024 * 1024
"""Bytes; Meta's own bound of a notification."""
MOST_HELD: Final = 16 * 1024 * 1024
"""Bytes of all bodies that have not arrived whole."""
MOST_CONNECTIONS: Final = 128
PATIENCE: Final = 10.0
"""Seconds in which a notification must have arrived."""
NUMBERS_FOR: Final = 5.0
"""Seconds that it is remembered which number is which device's."""
REFUSALS_EVERY: Final = 10.0
"""Seconds between two words in the log about notifications that nobody signed."""
_SIGNATURE: Final = re.compile(r"sha256=[0-9a-f]{64}")


class CloudNumbers:
    """Which devices send with which number of the Cloud API."""

    def __init__(self, scheduler: Scheduler, environ: Mapping[str, str]) -> None:
        self._scheduler = scheduler
        self._environ = environ
        self._devices: dict[str, list[str]] = {}
        self._looked = -NUMBERS_FOR

    def devices(self, phone_number_ids: set[str]) -> dict[str, list[str]]:
        """By number the ids of its devices: mostly one, and none when the number is a stranger's.

        Many numbers at once, because a look at all devices takes long, and a notification may name ten thousand strangers.
        """
        now = time.monotonic()
        if now >= self._looked + NUMBERS_FOR or not phone_number_ids <= self._devices.keys():
            self._look()
            self._looked = now
        return {number: self._devices.get(number, []) for number in phone_number_ids}

    def _look(self) -> None:
        self._devices = {}
        for queue in self._scheduler.queues.values():
            number = queue.device.settings.get("phone_number_id")
            if queue.device.transport == "cloud_api" and isinstance(number, str):
                try:
                    self._devices.setdefault(substitute(number, self._environ), []).append(queue.device.id)
                except RefusedError:
                    continue  # the device cannot send either, and says why


class CloudWebhook(Service):
    """The listener."""

    def __init__(
        self,
        config: CloudWebhookConfig,
        devices_of: Callable[[set[str]], Mapping[str, list[str]]],
        *,
        receipt: Callable[[ipc.Receipt], None],
        incoming: Callable[[str, str, str], None],
    ) -> None:
        """`devices_of` phone_number_ids: see CloudNumbers.

        Who hears what: `receipt` of messages that were delivered or read, or failed after all; `incoming` (device, number of
        the sender, text) of what people wrote. They must keep what they hear, because Meta is told that it was heard; if one
        of them fails, Meta says it again.
        """
        assert config.listen is not None
        assert config.app_secret is not None
        assert config.verify_token is not None
        self._address = config.listen
        self._path = config.path
        self._secret = config.app_secret.encode()
        self._word = config.verify_token.encode()
        self._devices_of = devices_of
        self._receipt = receipt
        self._incoming = incoming
        self._arriving: dict[_Body, None] = {}
        """Bodies that are on their way, the oldest first."""
        self._held = 0
        self._unsigned = 0
        """Notifications without a signature since the log told of one."""
        self._told_unsigned = -REFUSALS_EVERY
        routes = [web.get(self._path, self._register), web.post(self._path, self._notified)]
        self._listener = Listener("cloud_webhook", routes, most=MOST_CONNECTIONS, patience=PATIENCE, max_body=MAX_BODY)

    async def start(self) -> None:
        """Listen, until `close`. Raises SharddError."""
        await self._listener.listen_on_port(self._address, "transports.cloud_api.webhook.listen")
        log.info("listening to Meta", action="webhook", listen=self._address, path=self._path)

    async def close(self) -> None:
        """Hang up; what is being heard is heard to its end."""
        await self._listener.close()

    async def _register(self, request: web.Request) -> web.Response:
        # Bytes that are not UTF-8 come as halves of surrogate pairs.
        word = request.query.get("hub.verify_token", "").encode(errors="surrogatepass")
        if request.query.get("hub.mode") != "subscribe" or not hmac.compare_digest(word, self._word):
            return refusal(403, "this is not the word that was agreed on")
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
            return self._hear(body)

    async def _read(self, request: web.Request) -> bytearray:
        """The body. The listener ends it when it takes too long. Raises _TooLongError, and whatever a cut connection makes."""
        body = _Body(request)
        self._arriving[body] = None
        try:
            async for chunk in request.content.iter_any():
                if len(body.content) + len(chunk) > MAX_BODY:
                    raise _TooLongError
                body.content += chunk
                self._held += len(chunk)
                while self._held > MOST_HELD:
                    self._give_up(next(iter(self._arriving)))
            if body not in self._arriving:
                raise ConnectionAbortedError
            return body.content
        finally:
            self._forget(body)

    def _give_up(self, body: _Body) -> None:
        self._forget(body)
        body.content = bytearray()  # now, and not when the last of the cut request is collected
        self._listener.hang_up(body.request)

    def _forget(self, body: _Body) -> None:
        if body in self._arriving:
            del self._arriving[body]
            self._held -= len(body.content)

    def _refuse_unsigned(self, request: web.Request) -> web.Response:
        self._unsigned += 1
        now = time.monotonic()
        if now >= self._told_unsigned + REFUSALS_EVERY:
            text = "a notification without Meta's signature"
            log.warning(text, action="webhook", peer=request.remote, since_last_told=self._unsigned)
            self._told_unsigned, self._unsigned = now, 0
        return refusal(401, "the signature is missing or wrong")

    def _hear(self, body: bytearray) -> web.Response:
        """What Meta signed."""
        try:
            said = msgspec.json.decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return refusal(400, "this is not JSON", close=False)
        try:
            everything = list(read_notification(said))
            devices_of = self._devices_of({heard.phone_number_id for heard in everything})
            for heard in everything:
                self._tell(heard, devices_of[heard.phone_number_id])
        except Exception as error:  # whoever keeps it cannot
            log.exception("a notification is not kept; Meta says it again", action="webhook", error=error)
            return refusal(503, "not kept: say it again", close=False)
        return web.Response()

    def _tell(self, heard: Confirmed | NotDelivered | Wrote, devices: list[str]) -> None:
        if not devices:
            log.debug("a notification for a stranger", action="webhook", phone_number_id=heard.phone_number_id)
        for device_id in devices:
            match heard:
                case Confirmed():
                    at = time.time() if heard.at is None else heard.at
                    self._receipt(ipc.Receipt(device_id, [heard.message_id], heard.kind, at))
                case NotDelivered():
                    self._fail(device_id, heard)
                case Wrote():
                    self._incoming(device_id, heard.sender, heard.text)

    def _fail(self, device_id: str, heard: NotDelivered) -> None:
        text = "a message was accepted, but not delivered"
        log.warning(text, action="webhook", device=device_id, message=heard.message_id, error=heard.error)
        failed = ipc.Receipt(device_id, [heard.message_id], "failed", time.time(), heard.error, heard.error_class.value)
        self._receipt(failed)


def make_cloud_webhook(
    config: Config,
    scheduler: Scheduler,
    *,
    receipt: Callable[[ipc.Receipt], None],
    incoming: Callable[[str, str, str], None],
) -> CloudWebhook | None:
    """The listener that the config asks for, if it does."""
    webhook = config.transports.cloud_api.webhook
    if webhook.listen is None:
        return None

    return CloudWebhook(webhook, CloudNumbers(scheduler, os.environ).devices, receipt=receipt, incoming=incoming)


@dataclass(eq=False, slots=True)
class _Body:
    """A body that is on its way."""

    request: web.Request
    content: bytearray = field(default_factory=bytearray)


class _TooLongError(Exception):
    """A body that is longer than Meta's are."""
