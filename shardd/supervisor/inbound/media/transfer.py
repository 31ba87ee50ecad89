"""One GET, through the proxy of the device, bounded in time and bytes.

Every byte passes a gate of the supervisor's own, as those of the library pass that of its worker, because it knows both kinds of
proxies. No redirect is followed, and nothing is unpacked.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from shardd.proxies import Proxy
from shardd.transports.egress.gate import Gate
from shardd.transports.http_errors import connection_words

CHUNK: Final = 256 * 1024
CONNECT: Final = 20.0
"""Seconds for a dial, the proxy's handshake included."""
SILENCE: Final = 30.0
"""Seconds that a server may send nothing."""
LONGEST: Final = 900.0
"""Seconds for one file."""
RETRIED: Final = frozenset({401, 408, 425, 429})
"""HTTP statuses below 500 that may change: a token may get other rights, or be replaced."""

Add = Callable[[bytes], Awaitable[None]]
"""Takes the next bytes."""


@dataclass(frozen=True, slots=True)
class Server:
    """Whom an error names, because the URL may be secret; and its statuses of files that are deleted or expired."""

    name: str
    gone: frozenset[int]


class NotDownloadedError(Exception):
    """A file was not downloaded; `final`: and will not be."""

    def __init__(self, text: str, *, final: bool) -> None:
        super().__init__(text)
        self.final = final


class Transfer:
    """Requests of one node."""

    def __init__(self) -> None:
        self._gate: Gate | None = None
        self._starting = asyncio.Lock()
        self._tls: ssl.SSLContext | None = None

    async def get(
        self, url: URL, headers: Mapping[str, str], *, server: Server, proxy: Proxy | None, most: int, add: Add
    ) -> None:
        """Pass the answer to `add` as it arrives, up to `most` bytes.

        Raises NotDownloadedError, and what `add` raises.
        """
        gate = await self._open_gate()
        egress = gate.admit("", on_lost=lambda: None, proxy=proxy)
        # Plain HTTP is only for servers on this host, and the gate speaks CONNECT.
        through = egress.url if url.scheme == "https" else None
        try:
            await self._get(url, headers, server, through, most, add)
        except TimeoutError:
            raise NotDownloadedError(f"{server.name} did not send it in time", final=False) from None
        except (aiohttp.ClientError, ValueError) as error:
            why = egress.dial_error or connection_words(error)
            raise NotDownloadedError(f"{server.name} did not send it: {why}", final=False) from None
        finally:
            egress.kill()

    async def close(self) -> None:
        """Cut what is open."""
        if self._gate is not None:
            await self._gate.close()

    async def _get(  # noqa: PLR0917  # of `get`
        self, url: URL, headers: Mapping[str, str], server: Server, through: str | None, most: int, add: Add
    ) -> None:
        timeout = aiohttp.ClientTimeout(total=LONGEST, sock_connect=CONNECT, sock_read=SILENCE)
        async with (
            aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, timeout=timeout, auto_decompress=False
            ) as session,
            session.get(
                url,
                proxy=through,
                ssl=self._tls or True,
                allow_redirects=False,
                headers={"Accept-Encoding": "identity", **headers},
            ) as response,
        ):
            _check_status(response.status, server)
            _check_size(response.content_length or 0, most)
            size = 0
            async for chunk in response.content.iter_chunked(CHUNK):
                size += len(chunk)
                _check_size(size, most)
                await add(chunk)

    async def _open_gate(self) -> Gate:
        async with self._starting:
            if self._gate is None:
                # It reads the certificates of the system from the disk.
                self._tls = await asyncio.to_thread(ssl.create_default_context)
                gate = Gate(connect_timeout=CONNECT)
                await gate.start()
                self._gate = gate
            return self._gate


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise NotDownloadedError("it is larger than its message or inbox.media_max_bytes allows", final=True)


def _check_status(status: int, server: Server) -> None:
    if status == 200:
        return
    if status in server.gone:
        raise NotDownloadedError(f"{server.name} does not have it any more ({status})", final=True)
    final = status < 500 and status not in RETRIED
    raise NotDownloadedError(f"{server.name} answered {status}", final=final)
