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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from aiohttp.abc import AbstractResolver

from shardd.addresses import AllowedHosts
from shardd.errors import ErrorClass, PermanentError
from shardd.transports.whatsapp.media_download import Downloader
from shardd.urls import safe_url


@dataclass(frozen=True, slots=True)
class Media:
    """What was fetched. `mime_type`: as its source named it; `file_name`: the last part of its path."""

    data: bytes
    mime_type: str | None = None
    file_name: str | None = None


class MediaFetcher:
    """Fetches for one worker."""

    def __init__(
        self,
        *,
        folder: str | None,
        hosts: Iterable[str] = (),
        max_bytes: int,
        timeout: float,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """Remember the bounds.

        `folder`: below it files may be named, None: nowhere. `hosts`: those that may be fetched from although they are not in
        the internet. `timeout`: seconds for one file. `resolver`: who is asked for addresses; None: the system.
        """
        self._folder = Path(folder).resolve() if folder else None
        self._max_bytes = max_bytes
        self._downloader = Downloader(
            allowed=AllowedHosts(hosts), max_bytes=max_bytes, timeout=timeout, resolver=resolver
        )

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
            f"media {safe_url(source)}: write an http(s) URL, a data: URI, or a file below media_dir",
            error_class=ErrorClass.CONTENT,
        )

    async def _download(self, url: str) -> Media:
        got = await self._downloader.download(url)
        return Media(got.data, got.mime_type, PurePosixPath(unquote(got.path)).name or None)

    def _check_size(self, source: str, size: int) -> None:
        if size > self._max_bytes:
            raise PermanentError(
                f"media {safe_url(source)} is larger than media_max_bytes ({self._max_bytes} bytes)",
                error_class=ErrorClass.CONTENT,
            )

    def _decode(self, uri: str) -> Media:
        head, comma, body = uri.partition(",")
        if not comma:
            raise PermanentError(
                f"media {safe_url(uri)}: a data: URI is data:image/png;base64,… or data:text/plain,…",
                error_class=ErrorClass.CONTENT,
            )
        mime_type, *parameters = head.removeprefix("data:").split(";")
        # Four characters of base64 are three bytes; a percent-coded text is at least as long as what it means.
        self._check_size(uri, len(body) * 3 // 4 - 2 if "base64" in parameters else len(body) // 3)
        try:
            data = base64.b64decode(unquote(body), validate=True) if "base64" in parameters else unquote_to_bytes(body)
        except (binascii.Error, ValueError):
            raise PermanentError(
                f"media {safe_url(uri)}: what follows the comma is not base64", error_class=ErrorClass.CONTENT
            ) from None
        self._check_size(uri, len(data))
        return Media(data, mime_type or None)

    def _read(self, path: str) -> Media:
        if self._folder is None:
            raise PermanentError(
                f"media {safe_url(path)}: files are not allowed, since transports.whatsapp.media_dir is not set",
                error_class=ErrorClass.CONTENT,
            )
        try:
            # A pipe must not make us wait; what it is is asked of the opened file.
            handle = os.open(self._folder / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a path"
            raise PermanentError(
                f"media {safe_url(path)} cannot be read in {self._folder}: {why}", error_class=ErrorClass.CONTENT
            ) from None
        try:
            place = Path(f"/proc/self/fd/{handle}").readlink()
            status = os.fstat(handle)
            if not place.is_relative_to(self._folder):
                raise PermanentError(
                    f"media {safe_url(path)} is not below {self._folder} (transports.whatsapp.media_dir)",
                    error_class=ErrorClass.CONTENT,
                )
            if not stat.S_ISREG(status.st_mode):
                raise PermanentError(f"media {safe_url(path)} is not a file", error_class=ErrorClass.CONTENT)
            self._check_size(path, status.st_size)
            with os.fdopen(os.dup(handle), "rb") as file:
                data = file.read(self._max_bytes + 1)
        finally:
            os.close(handle)
        self._check_size(path, len(data))
        return Media(data, None, place.name)
