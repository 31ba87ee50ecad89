"""WhatsApp's storage of files: one GET from a fixed host, through the proxy of the device, bounded in time and bytes.

The sender chooses the path and nothing else: neither the host nor where a redirect leads. Every byte passes a gate of the
supervisor's own, as those of the library pass that of its worker, because it knows both kinds of proxies. A change of the
message's size is possible in between, so what counts is what arrives.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
from yarl import URL

from shardd.incoming import MediaSource
from shardd.proxies import Proxy
from shardd.supervisor.inbound.media.sealed import OVERHEAD
from shardd.transports.egress.gate import Gate
from shardd.transports.http_errors import connection_words

HOST: Final = "mmg.whatsapp.net"
ORIGIN: Final = "https://web.whatsapp.com"
"""Sent by linked devices (whatsmeow, download.go: doMediaDownloadRequest)."""
CHUNK: Final = 256 * 1024
CONNECT: Final = 20.0
"""Seconds for a dial, the proxy's handshake included."""
SILENCE: Final = 30.0
"""Seconds that the storage may send nothing."""
LONGEST: Final = 900.0
"""Seconds for one file."""
GONE: Final = frozenset({403, 404, 410})
"""Statuses of files that are deleted or expired (whatsmeow, errors.go: ErrMediaDownloadFailedWith…)."""
RETRIED: Final = frozenset({408, 425, 429})
"""HTTP statuses below 500 that may change."""


class NotDownloadedError(Exception):
    """A file was not downloaded; `final`: and will not be."""

    def __init__(self, text: str, *, final: bool) -> None:
        super().__init__(text)
        self.final = final


class MediaStorage:
    """Fetches for one node."""

    def __init__(self) -> None:
        self._gate: Gate | None = None
        self._starting = asyncio.Lock()
        self._tls: ssl.SSLContext | None = None

    async def fetch(
        self, source: MediaSource, proxy: Proxy | None, most: int, add: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Pass the encrypted file to `add` as it arrives, if it is not larger than a file of `most` bytes is.

        Raises NotDownloadedError, and what `add` raises.
        """
        gate = await self._open_gate()
        egress = gate.admit("", on_lost=lambda: None, proxy=proxy)
        try:
            await self._get(URL(f"https://{HOST}{source.path}", encoded=True), egress.url, most + OVERHEAD, add)
        except TimeoutError:
            raise NotDownloadedError("WhatsApp's storage did not send it in time", final=False) from None
        except (aiohttp.ClientError, ValueError) as error:
            why = egress.dial_error or connection_words(error)
            raise NotDownloadedError(f"WhatsApp's storage did not send it: {why}", final=False) from None
        finally:
            egress.kill()

    async def close(self) -> None:
        """Cut what is open."""
        if self._gate is not None:
            await self._gate.close()

    async def _get(self, url: URL, proxy: str, most: int, add: Callable[[bytes], Awaitable[None]]) -> None:
        if url.host != HOST:
            raise NotDownloadedError("its path leads to another host", final=True)
        timeout = aiohttp.ClientTimeout(total=LONGEST, sock_connect=CONNECT, sock_read=SILENCE)
        async with (
            aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, timeout=timeout, auto_decompress=False
            ) as session,
            session.get(
                url,
                proxy=proxy,
                ssl=self._tls or True,
                allow_redirects=False,
                headers={"Origin": ORIGIN, "Referer": f"{ORIGIN}/", "Accept-Encoding": "identity"},
            ) as response,
        ):
            _check_status(response.status)
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
        text = f"it has more than {most - OVERHEAD} bytes, as many as its message or inbox.media_max_bytes allows"
        raise NotDownloadedError(text, final=True)


def _check_status(status: int) -> None:
    if status == 200:
        return
    if status in GONE:
        raise NotDownloadedError(f"WhatsApp's storage does not have it any more ({status})", final=True)
    final = status < 500 and status not in RETRIED
    raise NotDownloadedError(f"WhatsApp's storage answered {status}", final=final)
