"""Fetching a message's file: from an http(s) URL, a `data:` URI, or the configured folder.

It happens before the device's lock is taken, with limits on bytes and time. A file's real path, links resolved, must lie in the
folder; that is checked on the opened file, so nothing can be swapped in between.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from aiohttp.abc import AbstractResolver

from shardd.addresses import AllowedHosts
from shardd.transports.details import content_error
from shardd.transports.whatsapp.media.download import Downloader, Listed, check_size
from shardd.transports.whatsapp.media.file_names import safe_name
from shardd.transports.whatsapp.media.memory import Media, MediaMemory, Share
from shardd.urls import safe_url

URL_PATIENCE: Final = 2.0
"""Seconds that `fetch_url` waits for memory."""


class MediaFetcher:
    """Fetches for one worker."""

    def __init__(
        self,
        *,
        folder: str | Path | None,
        hosts: Iterable[str] = (),
        max_bytes: int,
        memory: int,
        timeout: float,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`folder`: below it jobs may name files; None: nowhere. `hosts`: allowed although they are not in the internet.

        `memory`: bytes of all files held at once. `timeout`: seconds for one download. `resolver`: of host names; None: the
        system's.
        """
        self._folder = Path(folder).resolve() if folder else None
        self._max_bytes = max_bytes
        self._memory = MediaMemory(memory)
        self._downloader = Downloader(
            allowed=AllowedHosts(hosts), max_bytes=max_bytes, timeout=timeout, resolver=resolver
        )

    async def fetch(self, source: str) -> Media:
        """The bytes behind `source`, which the caller releases.

        Raises PermanentError, TransientError or, when there is no memory for it now, DeviceUnavailableError.
        """
        return await self._held(lambda share: self._fetch(source.strip(), share))

    async def fetch_url(self, url: str, *, most: int | None = None, listed: bool = True) -> Media:
        """Like `fetch`, of an http(s) URL that no job names as its media.

        `most`: bytes after which it is not read any further; `listed`: whether it may be on a host of `media_hosts`, to which
        another host never redirects. It waits for memory for at most URL_PATIENCE seconds, before the
        server is asked.
        """
        hops = Listed.FIRST if listed else Listed.NONE

        async def fetch(share: Share) -> Media:
            await share.hold(most or 0)
            return await self._downloader.download(url, share, most=most, listed=hops)

        return await self._held(fetch, patience=URL_PATIENCE)

    async def _held(self, fetch: Callable[[Share], Awaitable[Media]], *, patience: float | None = None) -> Media:
        share = self._memory.begin(patience)
        try:
            media = await fetch(share)
        except BaseException:
            share.release()
            raise
        share.finish()
        media.share = share
        return media

    async def _fetch(self, source: str, share: Share) -> Media:
        scheme, colon, _ = source.partition(":")
        scheme = scheme.lower() if colon and scheme.isalpha() else ""
        if scheme in {"http", "https"}:
            return await self._downloader.download(source, share)
        if scheme == "data":
            return await self._decode(source, share)
        if scheme in {"", "file"}:
            return await self._read(_file_path(source) if scheme else source, share)
        raise content_error(f"media {safe_url(source)}: write an http(s) URL, a data: URI, or a file below media_dir")

    async def _decode(self, uri: str, share: Share) -> Media:
        """RFC 2397; as in browsers, case, white space and missing padding do not matter."""
        head, comma, body = uri.partition(",")
        if not comma:
            raise content_error(f"media {safe_url(uri)}: a data: URI is data:image/png;base64,… or data:text/plain,…")
        mime_type, *parameters = (part.strip() for part in head[len("data:") :].split(";"))
        packed = "base64" in (parameter.lower() for parameter in parameters)
        # Four characters of base64 are three bytes; percent-encoding only makes a text longer.
        plain = len(body) - body.count("%") * 2
        least = plain * 3 // 4 - 2 if packed and body.isprintable() else len(body) // 3
        check_size(self._max_bytes, uri, least)
        await share.hold(len(body))
        data = _unpack(uri, body) if packed else unquote_to_bytes(body)
        check_size(self._max_bytes, uri, len(data))
        return Media(data, mime_type.lower() or None)

    async def _read(self, path: str, share: Share) -> Media:
        # Opened twice, so that no descriptor is held while this waits for memory.
        await share.hold(await asyncio.to_thread(self._size, path))
        media = await asyncio.to_thread(self._load, path)
        await share.hold(len(media.data))
        return media

    def _size(self, path: str) -> int:
        with self._open(path) as (handle, _):
            return os.fstat(handle).st_size

    def _load(self, path: str) -> Media:
        with self._open(path) as (handle, name), os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(self._max_bytes + 1)
        check_size(self._max_bytes, name, len(data))  # it may have grown
        return Media(data, None, safe_name(name))

    @contextmanager
    def _open(self, path: str) -> Iterator[tuple[int, str]]:
        """The descriptor and the real name of a file that may be read."""
        if self._folder is None:
            raise content_error(
                f"media {safe_url(path)}: files are not allowed: transports.whatsapp.media_dir is not set"
            )
        try:
            # A pipe must not block; its type is checked once it is open.
            handle = os.open(self._folder / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a path"
            raise content_error(f"media {safe_url(path)} cannot be read in {self._folder}: {why}") from None
        try:
            place, status = Path(f"/proc/self/fd/{handle}").readlink(), os.fstat(handle)
            if not place.is_relative_to(self._folder):
                raise content_error(
                    f"media {safe_url(path)} is not below {self._folder} (transports.whatsapp.media_dir)"
                )
            if not stat.S_ISREG(status.st_mode):
                raise content_error(f"media {safe_url(path)} is not a file")
            check_size(self._max_bytes, path, status.st_size)
            yield handle, place.name
        finally:
            os.close(handle)


def _file_path(url: str) -> str:
    try:
        return unquote(urlsplit(url).path)
    except ValueError:
        raise content_error(
            f"media {safe_url(url)} is not the URL of a file; write file:///path, or the path"
        ) from None


def _unpack(uri: str, body: str) -> bytes:
    digits = "".join(unquote(body).split())
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise content_error(f"media {safe_url(uri)}: what follows the comma is not base64") from None
