"""One POST to a platform, and what is certain about it afterwards.

Before the connection is established nothing can have left, so a failure until then only means that the platform is
unreachable. From then on the request is being written, and what the other side read of it cannot be known: a reset or a
timeout leaves the message in doubt. An answer whose body is lost still has its status.

Each request has a connection of its own. On a reused one a platform may hang up just as the next request is written, which
looks like a request that was read and lost; a handshake per message is cheap at the pace of a device. So nothing is ever
repeated: not by this module, and not by aiohttp, which repeats only on reused connections. Redirects are not followed, as
that too would send twice.
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import aiohttp

from shardd.errors import DeviceUnavailableError, ErrorClass, InDoubtError
from shardd.transports.http_errors import connection_words

MAX_ANSWER: Final = 256 * 1024
"""Bytes; a real answer has a few hundred."""
MAX_RETRY_AFTER: Final = 24 * 3600.0
"""Seconds: a longer Retry-After is taken for a mistake."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is posted. Its repr shows neither headers nor body, which hold secrets and messages."""

    url: str
    body: bytes | aiohttp.FormData = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer. `retry_after`: seconds; `body` None: it is incomplete, for the reason in `lost`."""

    status: int
    body: bytes | None
    retry_after: float | None = None
    lost: str = ""


class HttpExchange:
    """Posts requests; needs a running event loop."""

    def __init__(self, *, connect_timeout: float, answer_timeout: float) -> None:
        """In seconds; connecting includes the host name lookup and the TLS handshake."""
        self._answer_timeout = answer_timeout
        trace = aiohttp.TraceConfig(trace_config_ctx_factory=SimpleNamespace)
        trace.on_connection_create_end.append(_connected)
        self._session = aiohttp.ClientSession(
            # No limit, since a device has one request at a time; a limit would only make devices wait for slow others.
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            # Accounts must not share cookies.
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=connect_timeout + answer_timeout, connect=connect_timeout),
            # Decompressed, a small answer can become a huge one.
            auto_decompress=False,
            headers={"User-Agent": "shardd", "Accept": "application/json", "Accept-Encoding": "identity"},
            trace_configs=[trace],
        )

    async def close(self) -> None:
        """Close the session and its connections."""
        await self._session.close()

    async def post(self, request: Request, proxy: str | None) -> Answer:
        """Post once. Raises DeviceUnavailableError when nothing left, InDoubtError when that cannot be known."""
        connected = asyncio.Event()
        try:
            async with self._session.post(
                request.url,
                data=request.body,
                headers=request.headers,
                proxy=proxy,
                allow_redirects=False,
                trace_request_ctx=connected,
            ) as response:
                retry_after = read_retry_after(response.headers.get("Retry-After"), time.time())
                body, lost = await _read(response)
                return Answer(response.status, body, retry_after, lost)
        except TimeoutError:
            if not connected.is_set():
                raise _unreachable(request, "no connection in time") from None
            raise InDoubtError(
                f"no answer from {_host(request)} in {self._answer_timeout:g} s to a message that was handed over",
                error_class=ErrorClass.TIMEOUT,
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = connection_words(error)
            if not connected.is_set():
                raise _unreachable(request, why) from None
            raise InDoubtError(
                f"the connection to {_host(request)} ended without an answer to a message that was handed over: {why}",
                error_class=ErrorClass.CONNECTION,
            ) from None


async def _connected(_: aiohttp.ClientSession, context: Any, __: aiohttp.TraceConnectionCreateEndParams) -> None:
    context.trace_request_ctx.set()


async def _read(response: aiohttp.ClientResponse) -> tuple[bytes | None, str]:
    """The body, or None and why it is incomplete."""
    body = bytearray()
    try:
        async for chunk in response.content.iter_chunked(MAX_ANSWER):
            body += chunk
            if len(body) > MAX_ANSWER:
                return None, f"it is longer than {MAX_ANSWER} bytes"
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        return None, f"it was truncated ({connection_words(error)})"
    return bytes(body), ""


def read_retry_after(text: str | None, now: float) -> float | None:
    """Seconds from `now` (POSIX seconds) that a Retry-After header means, or None; RFC 9110, section 10.2.3."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), MAX_RETRY_AFTER)
    try:
        at = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, at - now), MAX_RETRY_AFTER)


def _host(request: Request) -> str:
    return request.url.split("/")[2].rpartition("@")[2]


def _unreachable(request: Request, why: str) -> DeviceUnavailableError:
    return DeviceUnavailableError(
        f"{_host(request)} cannot be reached: {why}; nothing was sent", error_class=ErrorClass.CONNECTION
    )
