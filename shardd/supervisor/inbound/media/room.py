"""Room for the files of one node: within `inbox.media_total`, and on the disk.

What finds none is remembered with its bytes, so it is attempted again as soon as they are free, and nothing else is: what waits
for a server, or for more room than there is, keeps its pause.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from shardd.config import Config
from shardd.errors import UnsafeFileError
from shardd.supervisor.inbound.media.folder import MediaFolder
from shardd.supervisor.inbound.media.transfer import NotDownloadedError
from shardd.tasks import end_in_thread

T = TypeVar("T")


class NoRoomError(NotDownloadedError):
    """A file of `size` bytes found no room; None: the disk refused it only later, so its free bytes say nothing."""

    def __init__(self, why: str, size: int | None) -> None:
        super().__init__(f"it cannot be stored: {why}", final=False)
        self.why = why
        self.size = size


class Room:
    """The bytes of the files, and which files wait for some. These are known by a number."""

    def __init__(self, config: Config) -> None:
        self._used = self._reserved = 0
        self._counted: Path | None = None
        """The folder whose files `_used` counts."""
        self._changing = asyncio.Lock()
        """While a file appears or is deleted, and while they are counted."""
        self._refused: dict[int, int | None] = {}
        self._error: str | None = None
        self.configure(config)

    def configure(self, config: Config) -> None:
        """The config was reloaded."""
        self._total = config.inbox.media_total
        self.folder = MediaFolder(config.state_dir, config.inbox.media_dir, config.node)

    @property
    def error(self) -> str | None:
        """Why some files cannot be stored; None: there is room for all."""
        return self._error

    async def count(self) -> None:
        """Count the bytes of the files, unless they are known. Raises OSError."""
        folder = self.folder
        if self._counted != folder.path:
            async with self._changing:
                self._used = await asyncio.to_thread(folder.used)
                self._counted = folder.path

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Keep so many bytes for a file until it is stored. Raises NoRoomError."""
        if size > self._left:
            raise NoRoomError(self._used_up, size)
        self._reserved += size
        try:
            yield
        finally:
            self._reserved -= size

    async def on_disk(self, call: Callable[[], T], *, needs: int | None = None) -> T:
        """Call in a thread what waits for the disk; `needs`: the bytes that it looks for. Raises NoRoomError."""
        try:
            return await end_in_thread(call)
        except (OSError, UnsafeFileError) as error:
            raise NoRoomError(self._describe(error), needs) from None

    async def store(self, finish: Callable[[], str], size: int) -> str:
        """Complete a file of `size` bytes; returns its path. Raises NoRoomError, and what `finish` raises."""
        async with self._changing:
            path = await self.on_disk(finish)
            if Path(path).parent == self._counted:
                self._used += size
        return path

    async def delete(self, paths: Collection[str]) -> None:
        """Delete these files. Raises OSError."""
        async with self._changing:
            folder = self.folder
            freed = await asyncio.to_thread(folder.delete, paths)
            if folder.path == self._counted:
                self._used -= freed

    def refuse(self, number: int, error: NoRoomError) -> None:
        """A file found no room."""
        self._refused[number] = error.size
        self._error = error.why

    def forget(self, number: int) -> None:
        """A file is stored, or is not for want of room."""
        self._refused.pop(number, None)
        if not self._refused:
            self._error = None

    @property
    def refused(self) -> Collection[int]:
        """The files that found no room."""
        return self._refused.keys()

    async def look(self) -> Collection[int]:
        """Those of the files that found no room for which there is now, all together."""
        if not self._refused:
            return ()
        try:
            free = await asyncio.to_thread(self.folder.probe)
        except (OSError, UnsafeFileError) as error:
            self._error = self._describe(error)
            return ()
        room, fits = min(self._left, free), set()
        for number, size in list(self._refused.items()):
            if size is None:
                del self._refused[number]
            elif size <= room:
                room -= size
                fits.add(number)
        if len(fits) == len(self._refused):
            self._error = None
        elif self._left <= free:
            self._error = self._used_up
        else:
            self._error = self._describe(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        return fits

    # ---- inside

    @property
    def _left(self) -> int:
        return self._total - self._used - self._reserved

    @property
    def _used_up(self) -> str:
        return f"inbox.media_total ({self._total} bytes) is used up: make room"

    def _describe(self, error: OSError | UnsafeFileError) -> str:
        if isinstance(error, UnsafeFileError):
            return str(error)
        fix = ": make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return f"{self.folder.path}: {error.strerror}{fix}"
