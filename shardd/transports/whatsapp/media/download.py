"""Downloading media from a URL that a stranger chose.

Each address is checked where its socket is made, right before the connect: after DNS, for IP literals in any spelling, again
for every redirect, and for each of several addresses that are tried in turn. So a DNS answer that changes in between changes
nothing. Each request has its own connection and session, so producers share neither cookies nor connections; the
environment's proxies and netrc are not used.
"""

from __future__ import annotations

import asyncio
import errno
import io
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from shardd import __version__
from shardd.addresses import Address, AllowedHosts, reached, read_address, why_not_public
from shardd.errors import ErrorClass, PermanentError, TransientError
from shardd.transports.details import content_error
from shardd.transports.http_errors import connection_words
from shardd.transports.whatsapp.media.file_names import disposition_name, path_name
from shardd.transports.whatsapp.media.memory import Media, Share
from shardd.urls import safe_url

MAX_HOST: Final = 100
"""Characters of a host that an error quotes."""
CHUNK: Final = 256 * 1024
MAX_REDIRECTS: Final = 5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
RETRIED: Final = frozenset({408, 425, 429})
"""HTTP statuses below 500 that may change."""
WEB_PORTS: Final = frozenset({80, 443})
SYSTEM_PORTS: Final = 1024
"""Below it other protocols listen, whose servers an HTTP request may confuse."""


class Listed(Enum):
    """For which hops of a download the allowed hosts count."""

    ALL = auto()
    FIRST = auto()
    """The URL's own host and port, or https there; not another host that a redirect names."""
    NONE = auto()

    def counts(self, first: URL, hop: URL) -> bool:
        """Whether they count for a hop of the download that began with `first`."""
        if self is not Listed.FIRST:
            return self is Listed.ALL
        upgraded = (first.scheme, first.port, hop.scheme, hop.port) == ("http", 80, "https", 443)
        return hop.host == first.host and (hop.port == first.port or upgraded)


class Guard:
    """Decides what the request to one host may connect to."""

    def __init__(self, allowed: AllowedHosts, host: str) -> None:
        self._allowed = allowed
        self._host = host
        self._connecting = False
        self._why: str | None = None

    @property
    def refusal(self) -> str | None:
        """Why none of the host's addresses may be reached; None when one was tried."""
        return None if self._connecting else self._why

    def make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for the address that is about to be connected to (`info` as of getaddrinfo). Raises OSError."""
        family, kind, protocol, _, (place, port, *_) = info
        address = read_address(place)
        self._why = "an unreadable IP address" if address is None else self._refuse(address, port)
        if self._why is not None:
            raise OSError(errno.EACCES, self._why)
        self._connecting = True
        return socket.socket(family, kind, protocol)

    def _refuse(self, address: Address, port: int) -> str | None:
        if self._allowed.allow(self._host, port, address):
            return None
        if what := why_not_public(address):
            return what
        if _is_own(address):
            return "an address of this machine"
        return f"port {port}, which is not a web server's" if port < SYSTEM_PORTS and port not in WEB_PORTS else None


class Downloader:
    """Downloads for one worker."""

    def __init__(
        self, *, allowed: AllowedHosts, max_bytes: int, timeout: float, resolver: AbstractResolver | None = None
    ) -> None:
        """`timeout`: seconds for one file with all redirects. `resolver`: of host names; None: the system's."""
        self._allowed = allowed
        self._none_allowed = AllowedHosts(())
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._resolver = resolver

    async def download(
        self, source: str, share: Share, *, most: int | None = None, listed: Listed = Listed.ALL
    ) -> Media:
        """Download an http(s) URL, its bytes accounted to `share`.

        `most`: bytes after which it is not read any further; `listed`: for which hops the allowed hosts count. Raises
        PermanentError or TransientError, whose texts contain no secret of the URL.
        """
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                return await self._follow(source, share, deadline, most, listed)
        except TimeoutError:
            raise TransientError(
                f"media {safe_url(source)} did not arrive within {self._timeout:g} seconds",
                error_class=ErrorClass.TIMEOUT,
            ) from None

    async def _follow(
        self, source: str, share: Share, deadline: asyncio.Timeout, most: int | None, listed: Listed
    ) -> Media:
        first = url = _read_url(source)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                async with self._get(source, url, listed.counts(first, url)) as response:
                    location = response.headers.get("Location")
                    if response.status not in REDIRECTS or location is None:
                        return await self._read(source, response, share, deadline, most)
            except (aiohttp.InvalidURL, ValueError):
                raise _not_fetched(source, "it is not an http(s) URL, or redirects to something else") from None
            except (aiohttp.ClientError, OSError) as error:
                raise TransientError(
                    f"media {safe_url(source)} cannot be fetched: {connection_words(error)}",
                    error_class=ErrorClass.CONNECTION,
                ) from None
            url = _next_url(source, url, location)
        raise _not_fetched(source, f"more than {MAX_REDIRECTS} redirects")

    @asynccontextmanager
    async def _get(self, source: str, url: URL, listed: bool) -> AsyncIterator[aiohttp.ClientResponse]:
        guard = Guard(self._allowed if listed else self._none_allowed, url.host or "")
        connector = aiohttp.TCPConnector(
            socket_factory=guard.make_socket, resolver=self._resolver, use_dns_cache=False, force_close=True
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=None),
            headers={"User-Agent": f"shardd/{__version__}", "Accept-Encoding": "identity"},
        ) as session:
            try:
                response = await session.get(url, allow_redirects=False)
            except aiohttp.ClientConnectorError:
                if guard.refusal is None:
                    raise
                raise _refused(source, url, guard.refusal, listed) from None
            async with response:
                yield response

    async def _read(
        self,
        source: str,
        response: aiohttp.ClientResponse,
        share: Share,
        deadline: asyncio.Timeout,
        most: int | None,
    ) -> Media:
        _check_status(source, response.status)
        if most is None:
            check_size(self._max_bytes, source, response.content_length or 0)
        data = io.BytesIO()
        # Counted as it is unpacked, in case the server compresses against our request.
        async for chunk in response.content.iter_chunked(CHUNK):
            size = data.tell() + len(chunk)
            if most is None:
                check_size(self._max_bytes, source, size)
            await _off_the_clock(deadline, share.hold(size))
            data.write(chunk)
            if most is not None and size >= most:
                break
        # The server's headers are only hints.
        mime_type = response.content_type if "Content-Type" in response.headers else None
        disposition = response.headers.get("Content-Disposition")
        name = disposition_name(disposition) if disposition else None
        return Media(
            data.getvalue()[:most],
            mime_type,
            name or path_name(response.url.path),
            charset=response.charset,
            url=str(response.url),
        )


def _check_status(source: str, status: int) -> None:
    if status == 200:
        return
    text = f"media {safe_url(source)} cannot be fetched: the server answered {status}"
    if 300 <= status < 500 and status not in RETRIED:
        raise content_error(text)
    raise TransientError(text, error_class=ErrorClass.SERVER)


def check_size(limit: int, source: str, size: int) -> None:
    """Raises PermanentError when a file has more bytes than `limit`."""
    if size > limit:
        raise content_error(f"media {safe_url(source)} is larger than media_max_bytes ({limit} bytes)")


async def _off_the_clock(deadline: asyncio.Timeout, waiting: Awaitable[None]) -> None:
    """Wait for something that the server does not delay: the deadline moves by as much."""
    loop, end = asyncio.get_running_loop(), deadline.when()
    assert end is not None
    begin = loop.time()
    if not deadline.expired():
        deadline.reschedule(None)
    await waiting
    deadline.reschedule(end + loop.time() - begin)


def _read_url(source: str) -> URL:
    try:
        url = URL(source)
        if url.scheme in {"http", "https"} and url.host and url.port:
            return url
    except ValueError:
        pass
    raise _not_fetched(source, "it is not an http(s) URL")


def _next_url(source: str, url: URL, location: str) -> URL:
    """The target of a redirect, if it may be followed."""
    try:
        target = url.with_user(None).join(URL(location))
        host, port = target.host, target.port
    except ValueError:
        raise _not_fetched(source, "it redirects to something that is not a URL") from None
    shown = safe_url(str(target))
    if target.scheme not in {"http", "https"} or not host or not port:
        raise _not_fetched(source, f"it redirects to {shown}, which is not an http(s) URL")
    if url.scheme == "https" and target.scheme == "http":
        raise _not_fetched(source, f"it redirects from https to {shown}, which could be tampered with on the way")
    if target.user is not None or target.password is not None:
        raise _not_fetched(source, f"it redirects to {shown} with a user and password that the job does not give")
    if target.origin() == url.origin():
        return target.with_user(url.user).with_password(url.password)
    return target


def _not_fetched(source: str, why: str) -> PermanentError:
    return content_error(f"media {safe_url(source)} cannot be fetched: {why}")


def _refused(source: str, url: URL, why: str, listed: bool) -> PermanentError:
    leads = "" if url == URL(source) else f"it redirects to {safe_url(str(url))}, and "
    fix = (
        "; if media may come from there, name the host or its address in transports.whatsapp.media_hosts"
        if listed
        else ", where a page may not lead"
    )
    return content_error(f"media {safe_url(source)} is refused: {leads}{(url.host or '')[:MAX_HOST]} has {why}{fix}")


def _is_own(address: Address) -> bool:
    """Whether an address belongs to this machine, where a firewall may hide services from the internet."""
    address = reached(address)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        # Sends nothing. The system's source address for an address of its own is that address.
        probe.connect((str(address), 9))
        return bool(probe.getsockname()[0] == str(address))
    return False
