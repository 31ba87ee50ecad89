"""Fetching what a message carries: from an http(s) URL, a `data:` URI, or a file below the configured folder.

It happens before the device's turn is used, and it has an end: a limit of bytes and one of time. A file's real place, links
resolved, must lie in the folder; that is asked of the opened file, so nothing can be swapped in between.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import aiohttp

from shardd.errors import ErrorClass, PermanentError, TransientError

CHUNK: Final = 256 * 1024
MAX_REDIRECTS: Final = 5
MAX_SHOWN: Final = 80
"""Characters of a URL that an error repeats."""
RETRIED: Final = frozenset({408, 425, 429})
"""HTTP statuses below 500 that may be another tomorrow."""


@dataclass(frozen=True, slots=True)
class Media:
    """What was fetched. `mime_type`: as its source named it; `file_name`: the last part of its path."""

    data: bytes
    mime_type: str | None = None
    file_name: str | None = None


class MediaFetcher:
    """Fetches for one worker."""

    def __init__(self, *, folder: str | None, max_bytes: int, timeout: float) -> None:
        """`folder`: below it files may be named, None: nowhere. `timeout`: seconds for one file, from the first step on."""
        self._folder = Path(folder).resolve() if folder else None
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, source: str) -> Media:
        """The bytes behind `source`. Raises PermanentError or TransientError."""
        scheme, colon, _ = source.partition(":")
        scheme = scheme.lower() if colon and scheme.isalpha() else ""
        if scheme in {"http", "https"}:
            return await self._download(source)
        if scheme == "data":
            return self._decode(source)
        if scheme in {"", "file"}:
            path = unquote(urlsplit(source).path) if scheme else source
            return await asyncio.get_running_loop().run_in_executor(None, self._read, path)
        raise PermanentError(
            f"media {_short(source)}: write an http(s) URL, a data: URI, or a file below media_dir",
            error_class=ErrorClass.CONTENT,
        )

    async def close(self) -> None:
        """End the connections that are kept for the next download."""
        if self._session is not None:
            await self._session.close()

    async def _download(self, url: str) -> Media:
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=True)
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session.get(url, max_redirects=MAX_REDIRECTS, timeout=aiohttp.ClientTimeout()) as response,
            ):
                self._check_status(url, response.status)
                self._check_size(url, response.content_length or 0)
                data = bytearray()
                async for chunk in response.content.iter_chunked(CHUNK):
                    data += chunk
                    self._check_size(url, len(data))
                known = "Content-Type" in response.headers
                name = PurePosixPath(unquote(response.url.path)).name
                return Media(bytes(data), response.content_type if known else None, name or None)
        except TimeoutError:
            raise TransientError(
                f"media {_short(url)} did not arrive within {self._timeout:g} seconds", error_class=ErrorClass.TIMEOUT
            ) from None
        except aiohttp.TooManyRedirects:
            raise PermanentError(
                f"media {_short(url)} cannot be fetched: more than {MAX_REDIRECTS} redirects",
                error_class=ErrorClass.CONTENT,
            ) from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError):
            raise PermanentError(
                f"media {_short(url)} cannot be fetched: it is, or leads to, no http(s) URL",
                error_class=ErrorClass.CONTENT,
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError(
                f"media {_short(url)} cannot be fetched: {str(error) or type(error).__name__}",
                error_class=ErrorClass.CONNECTION,
            ) from error

    def _check_status(self, url: str, status: int) -> None:
        if status == 200:
            return
        text = f"media {_short(url)} cannot be fetched: the server answered {status}"
        if 400 <= status < 500 and status not in RETRIED:
            raise PermanentError(text, error_class=ErrorClass.CONTENT)
        raise TransientError(text, error_class=ErrorClass.SERVER)

    def _check_size(self, source: str, size: int) -> None:
        if size > self._max_bytes:
            raise PermanentError(
                f"media {_short(source)} is larger than media_max_bytes ({self._max_bytes} bytes)",
                error_class=ErrorClass.CONTENT,
            )

    def _decode(self, uri: str) -> Media:
        head, comma, body = uri.partition(",")
        if not comma:
            raise PermanentError(
                f"media {_short(uri)}: a data: URI is data:image/png;base64,… or data:text/plain,…",
                error_class=ErrorClass.CONTENT,
            )
        mime_type, *parameters = head.removeprefix("data:").split(";")
        # Four characters of base64 are three bytes; a percent-coded text is at least as long as what it means.
        self._check_size(uri, len(body) * 3 // 4 - 2 if "base64" in parameters else len(body) // 3)
        try:
            data = base64.b64decode(unquote(body), validate=True) if "base64" in parameters else unquote_to_bytes(body)
        except (binascii.Error, ValueError):
            raise PermanentError(
                f"media {_short(uri)}: what follows the comma is not base64", error_class=ErrorClass.CONTENT
            ) from None
        self._check_size(uri, len(data))
        return Media(data, mime_type or None)

    def _read(self, path: str) -> Media:
        if self._folder is None:
            raise PermanentError(
                f"media {_short(path)}: files are not allowed, since transports.whatsapp.media_dir is not set",
                error_class=ErrorClass.CONTENT,
            )
        try:
            # A pipe must not make us wait; what it is is asked of the opened file.
            handle = os.open(self._folder / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a path"
            raise PermanentError(
                f"media {_short(path)} cannot be read in {self._folder}: {why}", error_class=ErrorClass.CONTENT
            ) from None
        try:
            place = Path(f"/proc/self/fd/{handle}").readlink()
            status = os.fstat(handle)
            if not place.is_relative_to(self._folder):
                raise PermanentError(
                    f"media {_short(path)} is not below {self._folder} (transports.whatsapp.media_dir)",
                    error_class=ErrorClass.CONTENT,
                )
            if not stat.S_ISREG(status.st_mode):
                raise PermanentError(f"media {_short(path)} is not a file", error_class=ErrorClass.CONTENT)
            self._check_size(path, status.st_size)
            with os.fdopen(os.dup(handle), "rb") as file:
                data = file.read(self._max_bytes + 1)
        finally:
            os.close(handle)
        self._check_size(path, len(data))
        return Media(data, None, place.name)


def _short(source: str) -> str:
    """Without a query, which may hold a signature, and without a body."""
    shown = source.split(",", 1)[0].split("?", 1)[0]
    return shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + "…"
