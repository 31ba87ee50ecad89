"""What the transports of HTTP platforms have in common: from a job to one POST, and from its answer to the truth about the job.

`prepare` reads the device's settings, finds the number, puts the request together and waits for the account's turn; it opens no
connection. `deliver` posts once. A platform of its own adds how a request looks and how its answers are read.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from shardd.config.transports.definition import MEDIA_KINDS, TransportDefinition
from shardd.config.transports.platforms import PlatformConfig
from shardd.errors import (
    DeviceSettingsError,
    DeviceUnavailableError,
    ErrorClass,
    InDoubtError,
    PermanentError,
)
from shardd.ipc import DeviceSpec, JobSpec
from shardd.phone_numbers import parse_recipient
from shardd.transports.base import Events, Sent, Surroundings, Transport
from shardd.transports.platforms.account_limits import AccountLimits
from shardd.transports.platforms.device_settings import account_of, check_proxy, read_settings
from shardd.transports.platforms.http_answers import SETUP_RETRY, Accepted, Context, Said, Silent, read_object, verdict
from shardd.transports.platforms.http_exchange import HttpExchange, Request
from shardd.urls import safe_url

TURN_PATIENCE: Final = 5.0
"""Seconds that a job waits in flight for its account's turn; one whose turn comes later goes back to its queue until then."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that `deliver` needs."""

    request: Request
    account: str
    context: Context


class HttpPlatform(Transport):
    """A platform. Media goes by its URL."""

    definition: ClassVar[TransportDefinition[Any]]
    _config: PlatformConfig

    def __init__(self, settings: PlatformConfig, surroundings: Surroundings, events: Events) -> None:  # noqa: ARG002 - nothing is heard outside a call
        self._config = settings
        self._limits = AccountLimits(self._config.rate)
        self._exchange: HttpExchange | None = None

    @property
    def name(self) -> str:
        """Of the transport."""
        return self.definition.name

    async def start(self) -> None:
        """Make the place from which requests leave."""
        self._exchange = HttpExchange(
            connect_timeout=self._config.connect_timeout, answer_timeout=self._config.answer_timeout
        )

    async def close(self) -> None:
        """Cut what is open."""
        if self._exchange is not None:
            await self._exchange.close()

    async def prepare(self, device: DeviceSpec, job: JobSpec, fetched: Any) -> Prepared:  # noqa: ARG002 - media goes by its URL
        """Put the request together and wait for the account's turn. Nothing leaves here."""
        own = self._settings_of(device)
        account = account_of(self.name, device.settings) or device.id
        self._check_kind(job)
        recipient = parse_recipient(job.recipient, self._config.default_region, transport=self.name)
        if recipient.number is None:
            raise PermanentError(
                f"recipient {job.recipient!r} is no phone number, and {self.name} sends to phone numbers only",
                error_class=ErrorClass.RECIPIENT,
            )
        request = self.request(own, job, recipient.number, device.proxy)
        await self._wait_for_turn(account)
        secrets = tuple(own[name] for name in self.definition.secrets)
        return Prepared(request, account, Context(self.name, job.body, secrets))

    async def deliver(self, device: DeviceSpec, job: JobSpec, prepared: Prepared) -> Sent:  # noqa: ARG002 - all is prepared
        """Post once, and read the answer."""
        assert self._exchange is not None
        try:
            answer = await self._exchange.post(prepared.request)
        except InDoubtError as error:
            self._limits.troubled(prepared.account, str(error), _now())
            raise
        context = dataclasses.replace(prepared.context, retry_after=answer.retry_after)
        found = read_object(answer, context)
        said = found if isinstance(found, Silent) else self.read(found, answer.status, context)
        result = verdict(answer, said, context)
        if isinstance(result, Accepted):
            self._limits.answered(prepared.account)
            # One of our own, where the platform gives none, so that no two rows have the same.
            return Sent(message_id=result.message_id or f"{self.name}-{job.id}-{job.attempt}")
        if isinstance(result, InDoubtError):
            self._limits.troubled(prepared.account, str(result), _now(), answer.retry_after)
        else:
            self._limits.answered(prepared.account)
        if isinstance(result, DeviceUnavailableError) and result.whole_account and result.retry_after is not None:
            self._limits.rest(prepared.account, result.retry_after, str(result), result.error_class, _now())
        raise result

    # ---- what each platform adds

    @abstractmethod
    def request(self, own: Mapping[str, str], job: JobSpec, number: str, proxy: str | None) -> Request:
        """The request that sends a job. `own`: the device's settings; `number`: digits only.

        Raises PermanentError when the job cannot be told to this platform.
        """

    @abstractmethod
    def read(self, said: Mapping[str, Any], status: int, context: Context) -> Said:
        """What the object in an answer says about the message."""

    # ---- inside

    def base_of(self, own: Mapping[str, str]) -> str:
        """Where the platform is for a device."""
        return own.get("base", self._config.base)

    def _settings_of(self, device: DeviceSpec) -> dict[str, str]:
        try:
            check_proxy(self.name, device.proxy)
            return read_settings(self.name, device.settings, os.environ)
        except DeviceSettingsError as error:
            raise DeviceUnavailableError(
                f"{error}; change it with: shardd device set {device.id} --settings JSON",
                retry_after=SETUP_RETRY,
                error_class=ErrorClass.ACCOUNT,
            ) from None

    def _check_kind(self, job: JobSpec) -> None:
        if job.kind not in self.definition.kinds:
            raise PermanentError(
                f"kind {job.kind!r} cannot be sent by transport {self.name!r}: one of {', '.join(self.definition.kinds)}",
                error_class=ErrorClass.CONTENT,
            )
        if job.kind in MEDIA_KINDS and not _is_link(job.media or ""):
            raise PermanentError(
                f"media {safe_url(job.media or '')}: transport {self.name!r} sends media by its URL only, which the platform "
                "fetches: write an http(s) URL",
                error_class=ErrorClass.CONTENT,
            )

    async def _wait_for_turn(self, account: str) -> None:
        self._respect_rest(account)
        wait = self._limits.wait_of(account, _now())
        if wait > TURN_PATIENCE:
            raise DeviceUnavailableError(
                f"its account has sent {self._config.rate:g} messages in a second, as many as "
                f"transports.{self.name}.rate allows",
                retry_after=wait,
                error_class=ErrorClass.RATE_LIMIT,
            )
        if (turn := self._limits.take(account, _now())) > 0:
            await asyncio.sleep(turn)
            self._respect_rest(account)

    def _respect_rest(self, account: str) -> None:
        rest = self._limits.rest_of(account, _now())
        if rest is not None:
            raise DeviceUnavailableError(
                f"its account rests: {rest.why}", retry_after=rest.seconds, error_class=rest.error_class
            )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_link(media: str) -> bool:
    try:
        parts = urlsplit(media)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and media.isprintable()
    except ValueError:
        return False
