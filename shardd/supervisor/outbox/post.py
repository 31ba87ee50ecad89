"""One signed POST to a receiver, according to Standard Webhooks (standardwebhooks.com), and what its answer means.

The signature is an HMAC over id, time and body: five lines with the standard library. The reference implementation
(standardwebhooks) signs with one secret only, but a secret that is being replaced needs two; the tests check against it.

Only the head of the answer counts. Redirects are not followed: they would carry phone numbers to a URL that is not in the config.
The answer's body is not shown anywhere, because many receivers repeat what they were sent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from enum import Enum
from typing import Final

import aiohttp

from shardd import __version__
from shardd.config import WebhookConfig
from shardd.config.values.words import webhook_key
from shardd.queue.webhooks import Event
from shardd.transports.http_errors import connection_words
from shardd.transports.platforms.http_exchange import read_retry_after

_AGAIN: Final = frozenset({408, 425, 429})
"""Statuses below 500 that do not blame the event."""
_GONE: Final = 410


class Meaning(Enum):
    """What an answer means for the event."""

    ACCEPTED = "accepted"
    FAILED = "failed"  # retry later
    REFUSED = "refused"  # retry later, a few times: the event may be at fault
    GONE = "gone"  # the receiver wants no more events


@dataclass(frozen=True, slots=True)
class Answer:
    """A receiver's answer. `error`: for operators. `retry_after`: seconds, if it sent Retry-After."""

    meaning: Meaning
    error: str = ""
    retry_after: float | None = None


class WebhookPost:
    """Posts to one receiver; needs a running event loop. Its connections are its own, so that it blocks no other."""

    def __init__(self, config: WebhookConfig) -> None:
        self._url = config.url
        self._timeout = config.timeout
        secrets = [config.secret, config.previous_secret]
        self._keys = [webhook_key(secret) for secret in secrets if secret is not None]
        self._session = aiohttp.ClientSession(
            # One more for events that are posted again.
            connector=aiohttp.TCPConnector(limit=config.concurrency + 1),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=config.timeout),
            headers={"User-Agent": f"shardd/{__version__}", "Content-Type": "application/json"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()

    async def post(self, event: Event) -> Answer:
        """Post once; raises nothing."""
        body = event.body.encode()
        headers = signed_headers(event.event_id, int(time.time()), body, self._keys)
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                return _read(response.status, read_retry_after(response.headers.get("Retry-After"), time.time()))
        except TimeoutError:
            return Answer(Meaning.FAILED, f"no answer within {self._timeout:g} s")
        except (aiohttp.ClientConnectorError, aiohttp.ClientSSLError) as error:
            return Answer(Meaning.FAILED, f"cannot be reached: {connection_words(error)}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(Meaning.FAILED, f"no answer: {connection_words(error)}")


def signed_headers(number: str, at: int, body: bytes, keys: list[bytes]) -> dict[str, str]:
    """The headers of Standard Webhooks: id, POSIX seconds, and a signature by each key."""
    signed = f"{number}.{at}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": number,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _read(status: int, retry_after: float | None) -> Answer:
    if 200 <= status < 300:
        return Answer(Meaning.ACCEPTED)
    error = f"HTTP {status}"
    if status == _GONE:
        return Answer(Meaning.GONE, f"{error}: it wants no more events")
    if status in _AGAIN or status >= 500:
        return Answer(Meaning.FAILED, error, retry_after)
    if 300 <= status < 400:
        error += ": a redirect, which is not followed; configure the URL that it leads to"
    return Answer(Meaning.REFUSED, error)
