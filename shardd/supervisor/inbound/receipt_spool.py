"""Receipts of platforms, and retry receipts, that are not in the database yet, in a file of the state folder: they come once.

One line with a checksum for each receipt. A batch is written and synchronised to the disk before its notification is answered
with 200; the file is deleted once all of them are stored, and rewritten without the stored ones when those are many. After a
crash receipts may be written to the database twice, which changes nothing. A damaged line costs only itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from shardd.checked_lines import checked_line, text_of
from shardd.errors import UnsafeFileError
from shardd.ipc import Receipt
from shardd.logs import get_logger
from shardd.state_files import open_file, open_state_folder
from shardd.supervisor.problems import Problem, ProblemKind

log = get_logger(__name__)

NAME: Final = "receipts.spool"
SPARE: Final = 10_000
"""Lines of stored receipts that the file may contain, besides as many as there are waiting ones."""
READ_MOST: Final = 64 * 1024 * 1024
"""Bytes that are read at the start: no spool grows so large, but a damaged one may have any size."""

_decoder = msgspec.json.Decoder(Receipt)


class ReceiptSpool:
    """The file of one node."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._lines = 0
        self._written = self._synchronised = 0
        """Batches."""
        self._syncing = asyncio.Lock()
        self._error: str | None = None

    def load(self) -> list[Receipt]:
        """What an earlier run of this node left, as far as readable."""
        try:
            fd = open_file(self._state_dir, NAME, os.O_RDONLY)
            try:
                data = os.pread(fd, READ_MOST, 0)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return []
        except (OSError, UnsafeFileError) as error:
            self._failed("receipts of an earlier run cannot be read", error)
            return []
        found = [_read(line) for line in data.split(b"\n") if line]
        receipts = [one for one in found if one is not None]
        if len(receipts) < len(found):
            log.error("receipts of an earlier run are damaged", action="receipt", lost=len(found) - len(receipts))
        self._lines = len(found)
        return receipts

    async def keep(self, receipts: Sequence[Receipt]) -> None:
        """Write these to the disk itself. Raises OSError, UnsafeFileError: then some may be there."""
        try:
            self._append(receipts)
            batch = self._written
            async with self._syncing:
                if self._synchronised < batch:  # otherwise the last one to hold the lock did it for this batch, too
                    covered = self._written
                    await asyncio.to_thread(self._synchronise)
                    self._synchronised = covered
        except (OSError, UnsafeFileError) as error:
            self._failed("receipts cannot be written to the disk, and are refused: the platform repeats them", error)
            raise
        self._error = None

    def note(self, receipt: Receipt) -> None:
        """Write one, so that it outlives this process."""
        try:
            self._append([receipt])
        except (OSError, UnsafeFileError) as error:
            # The database still gets it.
            self._failed("a retry receipt cannot be written to the disk", error)
        else:
            self._error = None

    def stored(self, waiting: Sequence[Receipt]) -> None:
        """Only these are not in the database yet."""
        if not self._lines or (waiting and self._lines <= 2 * len(waiting) + SPARE):
            return
        try:
            if waiting:
                self._rewrite(waiting)
            else:
                (self._state_dir / NAME).unlink(missing_ok=True)
        except (OSError, UnsafeFileError) as error:
            self._failed("old receipts cannot be deleted", error)
        else:
            self._lines = len(waiting)

    def problems(self) -> Iterator[Problem]:
        """A disk that takes none."""
        if self._error is not None:
            yield Problem(ProblemKind.INBOX, self._error)

    def _append(self, receipts: Sequence[Receipt]) -> None:
        fd = open_file(self._state_dir, NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            _write(fd, _lines(receipts))
        finally:
            os.close(fd)
        self._lines += len(receipts)
        self._written += 1

    def _synchronise(self) -> None:
        try:
            fd = open_file(self._state_dir, NAME, os.O_WRONLY)
        except FileNotFoundError:
            return  # all of them are stored meanwhile
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self._synchronise_folder()

    def _synchronise_folder(self) -> None:
        """The file is made anew after each time that nothing waits, and its name is in the folder, which is a file of its own."""
        fd = open_state_folder(self._state_dir)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _rewrite(self, receipts: Sequence[Receipt]) -> None:
        fd = open_file(self._state_dir, f"{NAME}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            _write(fd, _lines(receipts))
            os.fsync(fd)
        finally:
            os.close(fd)
        (self._state_dir / f"{NAME}.new").replace(self._state_dir / NAME)
        self._synchronise_folder()

    def _failed(self, what: str, error: OSError | UnsafeFileError) -> None:
        path = self._state_dir / NAME
        why = str(error) if isinstance(error, UnsafeFileError) else f"{error.filename or path}: {error.strerror}"
        self._error = f"{what}: {why}"
        log.error(what, action="receipt", error=why)


def _lines(receipts: Iterable[Receipt]) -> bytes:
    # The line before one may have been cut off, or have lost its end.
    return b"".join(b"\n" + checked_line(msgspec.json.encode(one)) for one in receipts)


def _read(line: bytes) -> Receipt | None:
    try:
        return _decoder.decode(text_of(line) or b"")
    except (msgspec.MsgspecError, UnicodeError):
        return None


def _write(fd: int, data: bytes) -> None:
    # A write to a disk that is nearly full may be short.
    while data:
        data = data[os.write(fd, data) :]
