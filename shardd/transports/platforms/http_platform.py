"""The base of all HTTP platforms: from a job to one POST, and from its answer to the job's outcome.

`prepare` reads the device's settings, parses the recipient, builds the request and waits for the account's rate limit; it
opens no connection. `deliver` posts once. Each platform adds only how a request looks and how its answers are read.
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
from shardd.config.transports.device_settings import account_of, check_proxy, read_settings, secret_names
from shardd.config.transports.platforms import PlatformConfig
from shardd.errors import (
    DeviceSettingsError,
    DeviceUnavailableError,
    ErrorClass,
    InDoubtError,
    PermanentError,
)
from shardd.ipc import DeviceSpec, JobSpec
from shardd.persons import BUSINESS_SERVER, recipient_at
from shardd.transports.base import Events, Sent, Surroundings, Transport
from shardd.transports.details import content_error
from shardd.transports.platforms.account_limits import AccountLimits
from shardd.transports.platforms.answers import Accepted, Context, Reading, Unclear, read_object, verdict
from shardd.transports.platforms.http_exchange import HttpExchange, Request
from shardd.transports.platforms.waits import SETUP_RETRY
from shardd.urls import safe_url

MAX_WAIT: Final = 5.0
"""Seconds that a job in flight waits for its account's rate limit; one that would wait longer goes back to its queue."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that `deliver` needs."""

    request: Request
    account: str
    context: Context


class HttpPlatform(Transport):
    """A platform. It is given media by URL."""

    definition: ClassVar[TransportDefinition[Any]]
    business_ids: ClassVar = False
    """Whether it sends to business-scoped ids, too."""
    _config: PlatformConfig

    def __init__(self, settings: PlatformConfig, surroundings: Surroundings, events: Events) -> None:  # noqa: ARG002 - nothing is heard outside a call
        self._config = settings
        self._limits = AccountLimits(self._config.rate)
        self._exchange = HttpExchange(connect_timeout=settings.connect_timeout, answer_timeout=settings.answer_timeout)

    @property
    def name(self) -> str:
        """Of the transport."""
        return self.definition.name

    async def close(self) -> None:
        """Close the HTTP session."""
        await self._exchange.close()

    async def prepare(self, device: DeviceSpec, job: JobSpec, fetched: Any) -> Prepared:  # noqa: ARG002 - media is not fetched
        """Build the request and wait for the account's rate limit. Nothing leaves here."""
        own = self._settings_of(device)
        account = account_of(self.name, device.settings) or device.id
        self._check_kind(job)
        request = self.request(own, job, self._recipient_of(job))
        await self._wait_for_rate(account)
        secrets = tuple(own[name] for name in secret_names(self.name) if name in own)
        return Prepared(request, account, Context(self.name, job.body, secrets))

    async def deliver(self, device: DeviceSpec, job: JobSpec, prepared: Prepared) -> Sent:
        """Post once, and read the answer."""
        try:
            answer = await self._exchange.post(prepared.request, device.proxy)
        except InDoubtError as error:
            self._limits.in_doubt(prepared.account, str(error), _now())
            raise
        context = dataclasses.replace(prepared.context, retry_after=answer.retry_after)
        found = read_object(answer, context)
        reading = found if isinstance(found, Unclear) else self.read(found, answer.status, context)
        result = verdict(answer, reading, context)
        if isinstance(result, Accepted):
            self._limits.answered(prepared.account)
            # An id of our own where the platform returns none, so that no two rows share one.
            return Sent(message_id=result.message_id or f"{self.name}-{job.id}-{job.attempt}")
        if isinstance(result, InDoubtError):
            self._limits.in_doubt(prepared.account, str(result), _now(), answer.retry_after)
        else:
            self._limits.answered(prepared.account)
        if isinstance(result, DeviceUnavailableError) and result.whole_account and result.retry_after is not None:
            self._limits.back_off(prepared.account, result.retry_after, str(result), result.error_class, _now())
        raise result

    # ---- what each platform adds

    @abstractmethod
    def request(self, own: Mapping[str, str], job: JobSpec, number: str) -> Request:
        """The request that sends a job. `own`: the device's settings; `number`: digits only, or `ID@bsuid` if it sends to such.

        Raises PermanentError when this platform cannot send the job.
        """

    @abstractmethod
    def read(self, body: Mapping[str, Any], status: int, context: Context) -> Reading:
        """The verdict in the JSON object of an answer."""

    # ---- inside

    def base_of(self, own: Mapping[str, str]) -> str:
        """The platform's base URL for a device."""
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

    def _recipient_of(self, job: JobSpec) -> str:
        recipient = recipient_at(job.recipient)
        if recipient.number is not None:
            return recipient.number
        if self.business_ids and recipient.jid.endswith(f"@{BUSINESS_SERVER}"):
            return recipient.jid
        raise PermanentError(
            f"recipient {job.recipient!r} is not a phone number, and {self.name} sends to phone numbers only"
            + (" (and to business-scoped ids)" if self.business_ids else ""),
            error_class=ErrorClass.RECIPIENT,
        )

    def _check_kind(self, job: JobSpec) -> None:
        if job.kind not in self.definition.kinds:
            raise content_error(
                f"kind {job.kind!r} cannot be sent by transport {self.name!r}: write one of {', '.join(self.definition.kinds)}"
            )
        if job.kind in MEDIA_KINDS and not _is_link(job.media or ""):
            raise content_error(
                f"media {safe_url(job.media or '')}: transport {self.name!r} sends media by URL only, which the platform "
                "fetches: write an http(s) URL"
            )

    async def _wait_for_rate(self, account: str) -> None:
        self._check_backoff(account)
        wait = self._limits.wait_of(account, _now())
        if wait > MAX_WAIT:
            raise DeviceUnavailableError(
                f"its account has sent {self._config.rate:g} messages per second, the limit in transports.{self.name}.rate",
                retry_after=wait,
                error_class=ErrorClass.RATE_LIMIT,
            )
        if (delay := self._limits.take(account, _now())) > 0:
            await asyncio.sleep(delay)
            self._check_backoff(account)

    def _check_backoff(self, account: str) -> None:
        now = _now()
        if (backoff := self._limits.backoff_of(account, now)) is not None:
            raise DeviceUnavailableError(
                f"its account is backing off: {backoff.why}",
                retry_after=backoff.until - now,
                error_class=backoff.error_class,
            )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_link(media: str) -> bool:
    try:
        parts = urlsplit(media)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and media.isprintable()
    except ValueError:
        return False
