"""Listens to Meta: what becomes of messages that went through the Cloud API, and what people answer.

| | |
|---|---|
| GET path?hub.mode=subscribe&hub.verify_token=…&hub.challenge=… | the registration: repeats the challenge, if the word is right |
| POST path | a notification, signed over its bytes in X-Hub-Signature-256 |

Nothing is believed without the signature. 200 says that what was heard is in the hands of those who write it; anything else makes
Meta say it again, for days. Notifications of numbers that are no device of ours are answered with 200 and dropped.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from aiohttp import web

from shardd import ipc
from shardd.config import CloudWebhookConfig, Config
from shardd.config.special_values import split_address
from shardd.config.substitute import substitute
from shardd.config.values import RefusedError
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.supervisor.cloud_notifications import Confirmed, NotDelivered, Wrote, read_notification
from shardd.supervisor.lines import Lines

log = get_logger(__name__)

MAX_BODY: Final = 3 * 1024 * 1024
"""Bytes; Meta's own bound of a notification."""
BODY_TIMEOUT: Final = 10.0
"""Seconds in which a notification must have arrived."""
MOST_AT_ONCE: Final = 32
"""Notifications that are being read; whoever comes then is told to come again."""
NUMBERS_FOR: Final = 5.0
"""Seconds that it is remembered which number is which device's."""


class CloudNumbers:
    """Which devices send with which number of the Cloud API."""

    def __init__(self, lines: Lines, environ: Mapping[str, str]) -> None:
        self._lines = lines
        self._environ = environ
        self._devices: dict[str, list[str]] = {}
        self._looked = -NUMBERS_FOR

    def devices(self, phone_number_id: str) -> list[str]:
        """Ids of devices; mostly one, or none when the number is a stranger's."""
        now = time.monotonic()
        if phone_number_id not in self._devices or now >= self._looked + NUMBERS_FOR:
            self._look()
            self._looked = now
        return self._devices.get(phone_number_id, [])

    def _look(self) -> None:
        self._devices = {}
        for line in self._lines.by_id.values():
            number = line.device.settings.get("phone_number_id")
            if line.device.transport == "cloud_api" and isinstance(number, str):
                try:
                    self._devices.setdefault(substitute(number, self._environ), []).append(line.device.id)
                except RefusedError:
                    continue  # the device cannot send either, and says why


class CloudWebhook:
    """The listener."""

    def __init__(
        self,
        config: CloudWebhookConfig,
        devices_of: Callable[[str], list[str]],
        *,
        receipt: Callable[[ipc.Receipt], None],
        incoming: Callable[[str, str, str], None],
    ) -> None:
        """`devices_of` a phone_number_id.

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
        self._reading = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen, until `close`. Raises SharddError."""
        app = web.Application(client_max_size=MAX_BODY)
        app.add_routes([web.get(self._path, self._register), web.post(self._path, self._notified)])
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        host, port = split_address(self._address)
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.close()
            raise SharddError(
                f"transports.cloud_api.webhook.listen {self._address}: {os.strerror(error.errno or 0)}: "
                "choose another address or port"
            ) from error
        log.info("listening to Meta", action="webhook", listen=self._address, path=self._path)

    async def close(self) -> None:
        """Hang up; what is being heard is heard to its end."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _register(self, request: web.Request) -> web.Response:
        word = request.query.get("hub.verify_token", "").encode()
        if request.query.get("hub.mode") != "subscribe" or not hmac.compare_digest(word, self._word):
            return _refusal(403, "this is not the word that was agreed on")
        return web.Response(text=request.query.get("hub.challenge", ""), headers={"X-Content-Type-Options": "nosniff"})

    async def _notified(self, request: web.Request) -> web.Response:
        if self._reading >= MOST_AT_ONCE:
            return _refusal(503, "too many at once")
        self._reading += 1
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                body = await request.read()
        except TimeoutError:
            return _refusal(408, "the body did not come in time")
        finally:
            self._reading -= 1
        # Bytes that are no UTF-8 stand in a header as halves of surrogate pairs.
        signature = request.headers.get("X-Hub-Signature-256", "").encode(errors="surrogateescape")
        right = b"sha256=" + hmac.new(self._secret, body, "sha256").hexdigest().encode()
        if not hmac.compare_digest(signature, right):
            log.warning("a notification without Meta's signature", action="webhook", peer=request.remote)
            return _refusal(401, "the signature is missing or wrong")
        try:
            said = msgspec.json.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _refusal(400, "this is not JSON")
        for heard in read_notification(said):
            self._tell(heard)
        return web.Response()

    def _tell(self, heard: Confirmed | NotDelivered | Wrote) -> None:
        devices = self._devices_of(heard.phone_number_id)
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
    lines: Lines,
    *,
    receipt: Callable[[ipc.Receipt], None],
    incoming: Callable[[str, str, str], None],
) -> CloudWebhook | None:
    """The listener that the config asks for, if it does."""
    webhook = config.transports.cloud_api.webhook
    if webhook.listen is None:
        return None

    return CloudWebhook(webhook, CloudNumbers(lines, os.environ).devices, receipt=receipt, incoming=incoming)


def _refusal(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)
