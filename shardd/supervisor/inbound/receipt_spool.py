"""Receipts of platforms, and retry receipts, that are not in the database yet, in a file of the state folder: they come once.

One line with a checksum for each receipt. A batch is written and synchronised to the disk before its notification is answered
with 200; the file is deleted once all of them are stored, and rewritten without the stored ones when those are many. After a
crash receipts may be written to the database twice, which changes nothing. A damaged line costs only itself.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _Batch:
    """Receipts that are written together: those that arrive before the thread begins."""

    receipts: list[Receipt]
    synchronised: bool
    """They must be on the disk itself."""
    begun: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def join(self, receipts: Sequence[Receipt], *, synchronised: bool) -> bool:
        """Add some; False: it is too late."""
        with self.lock:
            if not self.begun:
                self.receipts += receipts
                self.synchronised = self.synchronised or synchronised
            return not self.begun

    def begin(self) -> None:
        with self.lock:
            self.begun = True


class ReceiptSpool:
    """The file of one node.

    One thread does everything that touches the disk, in the order in which it was asked for, so a disk that hangs delays nothing
    but receipts, and what is added while the file is rewritten is added to the new one.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="receipts")
        self._lines = 0
        """In the file, once the thread has done what it was asked."""
        self._batch: _Batch | None = None
        """The last one, which may be joined unless the file is rewritten after it."""
        self._future: Future[None] | None = None
        """Of this batch."""
        self._outdated = False
        """The file could not be rewritten."""
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
        # Others wait for the same write: whoever gives up must not cancel it.
        await asyncio.shield(asyncio.wrap_future(self._add(receipts, synchronised=True)))

    def note(self, receipt: Receipt) -> None:
        """Write one soon, so that it outlives this process. If that fails, the database still gets it."""
        self._add([receipt], synchronised=False)

    async def stored(self, waiting: Sequence[Receipt]) -> None:
        """Only these, of all that were added so far, are not in the database yet."""
        if not self._outdated and (not self._lines or (waiting and self._lines <= 2 * len(waiting) + SPARE)):
            return
        self._batch, self._lines = None, len(waiting)
        await asyncio.shield(asyncio.wrap_future(self._disk.submit(self._replace, list(waiting))))

    async def check(self) -> None:
        """After an error: try whether the disk takes something again."""
        if self._error is not None and not self._outdated:
            await asyncio.shield(asyncio.wrap_future(self._disk.submit(self._probe)))

    async def flush(self) -> None:
        """Wait until everything that was added is written."""
        await asyncio.wrap_future(self._disk.submit(lambda: None))

    def problems(self) -> Iterator[Problem]:
        """A disk that takes none."""
        if self._error is not None:
            yield Problem(ProblemKind.INBOX, self._error)

    def _add(self, receipts: Sequence[Receipt], *, synchronised: bool) -> Future[None]:
        self._lines += len(receipts)
        if self._future is None or self._batch is None or not self._batch.join(receipts, synchronised=synchronised):
            self._batch = _Batch(list(receipts), synchronised)
            self._future = self._disk.submit(self._write_batch, self._batch)
        return self._future

    # ---- in the thread

    def _write_batch(self, batch: _Batch) -> None:
        batch.begin()
        try:
            fd = open_file(self._state_dir, NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                _write(fd, _lines(batch.receipts))
                if batch.synchronised:
                    os.fsync(fd)
            finally:
                os.close(fd)
            if batch.synchronised:
                self._synchronise_folder()
        except (OSError, UnsafeFileError) as error:
            self._failed(
                "receipts cannot be written to the disk; those of platforms are refused, so they repeat them", error
            )
            raise
        self._error = None

    def _replace(self, waiting: Sequence[Receipt]) -> None:
        try:
            if waiting:
                self._rewrite(waiting)
            else:
                (self._state_dir / NAME).unlink(missing_ok=True)
        except (OSError, UnsafeFileError) as error:
            self._outdated = True
            self._failed("old receipts cannot be deleted", error)
        else:
            if self._outdated:
                self._outdated, self._error = False, None

    def _probe(self) -> None:
        name = f"{NAME}.probe"
        try:
            fd = open_file(self._state_dir, name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                _write(fd, b"probe")
                os.fsync(fd)
            finally:
                os.close(fd)
                (self._state_dir / name).unlink()
            # The file itself may be what cannot be written.
            os.close(open_file(self._state_dir, NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        except (OSError, UnsafeFileError):
            return
        self._error = None

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
