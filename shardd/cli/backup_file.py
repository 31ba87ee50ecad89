"""The file of a backup: only this user may read it, and it has its name once it is complete.

Until then it is `.NAME.partial` beside it, locked. One that a killed backup left there is used again, so that none accumulate;
what is not certainly such a file is not touched.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from shardd.errors import UsageError

ARCHIVE: Final = b"PGDMP"
"""How a file of pg_dump --format=custom begins."""


@contextmanager
def new_file(file: Path) -> Iterator[IO[bytes]]:
    """An empty file for this block, which gets its name at the end, unless an error ends the block. Raises UsageError."""
    _refuse_existing(file)
    partial = file.with_name(f".{file.name}.partial")
    try:
        descriptor = _open(partial)
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as target:
        try:
            yield target
            target.flush()
            os.fsync(descriptor)
            _refuse_existing(file)
            partial.rename(file)  # while it is locked: whoever waits for this lock looks whether it has its name yet
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _refuse_existing(file: Path) -> None:
    if os.path.lexists(file):
        raise UsageError(f"{file}: is there already: name another file, or delete it")


def _open(partial: Path) -> int:
    """A descriptor of the empty and locked file. Raises UsageError, OSError."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        try:
            descriptor, made = os.open(partial, flags | os.O_CREAT | os.O_EXCL, 0o600), True
        except FileExistsError:
            try:
                descriptor, made = os.open(partial, flags), False
            except FileNotFoundError:
                continue
        try:
            if _is_at(partial, descriptor, made=made):
                os.ftruncate(descriptor, 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(partial: Path, descriptor: int, *, made: bool) -> bool:
    """Lock the file; False: another backup has renamed or deleted it meanwhile. Raises UsageError for one that is not ours.

    `made`: it was made just now. Not every file system keeps the mode or the owner that it was made with (vfat, SMB).
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{partial}: another backup is being written there: wait until it has ended") from None
    mine = os.fstat(descriptor)
    try:
        found = partial.lstat()
    except FileNotFoundError:
        return False
    if (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
        return False
    if made:
        return True
    begin = os.pread(descriptor, len(ARCHIVE), 0) if stat.S_ISREG(mine.st_mode) else b"?"
    ours = mine.st_uid == os.geteuid() and mine.st_nlink == 1 and stat.S_IMODE(mine.st_mode) == 0o600
    if not ours or not ARCHIVE.startswith(begin):
        raise UsageError(f"{partial}: was not left by a backup of yours: move it away, or name another file")
    return True
