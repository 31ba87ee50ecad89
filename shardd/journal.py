"""The journal: what a shard started and how it ended, on local disk, before it is reported.

One file per shard (format: `shardd.journal_lines`). A line is written when the preparation of a job begins, *before* a message
is handed to its transport, and when the outcome is known, each with one write, so the kernel has it even if worker and supervisor
are killed with -9. After a crash: no `started` → it never left; an outcome → that is known; `started` alone → in doubt.

A power failure may lose lines that the kernel had not written to disk. The header names the boot, so that a later reader notices,
and takes "no line" for "in doubt" unless fsync was on. Any other damage (a flipped bit, a lost end, a copy put in its place) is a
hole: what it may have covered is in doubt. See `Record.flaw`.

The worker holds the file's lock (flock) for its whole life: only the process with the lock has clients of that shard on this
host. Entries are removed when the supervisor reports that they are settled in the database.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from shardd.errors import JournalError, JournalHeldError, UnsafeFileError
from shardd.ipc import ClaimKey, Outcome
from shardd.journal_lines import (
    HEADER_MOST,
    MARK_SIZE,
    Header,
    Record,
    header_line,
    mark_line,
    outcome_line,
    preparing_line,
    probe_line,
    read_header,
    read_journal,
    started_line,
)
from shardd.logs import get_logger
from shardd.state_files import file_identity, open_file, open_folder, read_others_file

log = get_logger(__name__)

FOLDER: Final = "journal"
"""Of the state folder: where the journals are."""
COMPACT_ABOVE: Final = 4 * 1024 * 1024
"""Bytes; a larger file in which something is always open is rewritten."""
CUT_ABOVE: Final = 64 * 1024
"""Bytes; a larger file in which everything is settled is truncated. A smaller one is only marked, which costs a tenth."""
READ_MOST: Final = 16 * COMPACT_ABOVE
"""Bytes of a file that are read: no worker writes more, and a damaged one may have any size."""
ROOM: Final = 256 * 1024
"""Bytes that must be free on the disk before a message is handed over: the outcomes of all jobs in flight need them."""


def journal_path(state_dir: Path, shard: int) -> Path:
    """A shard's journal."""
    return state_dir / FOLDER / f"shard-{shard:03d}.journal"


def journals_of(state_dir: Path) -> list[Path]:
    """All journals of a state folder."""
    found = (state_dir / FOLDER).glob("shard-*.journal")
    return sorted(path for path in found if re.fullmatch("shard-[0-9]{3,9}", path.stem))


def shard_of_journal(path: Path) -> int:
    """The shard whose journal this is."""
    return int(path.stem.removeprefix("shard-"))


def boot_id() -> str | None:
    """Identifies this run of the kernel; None: it is hidden (systemd's ProcSubset=pid)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


@dataclass(slots=True)
class _Open:
    """What the journal knows about a claim that is not settled."""

    alone: bool | None = None
    """Whether it was prepared alone; None: its preparation has not begun."""
    started: bool = False
    outcome: Outcome | None = None


class Journal:
    """A shard's journal, opened and locked: the worker writes it, the supervisor reads it after the worker's death."""

    def __init__(self, path: Path, *, state: str, shard: int, fsync: bool = False) -> None:
        self.path = path
        self._state = state
        self._shard = shard
        self._fsync = fsync
        self._fd = -1
        self._file = ""  # its identity
        self._life = b""
        self._number = 0  # of the last entry
        self._settled = 0  # all up to this one are
        self._head = 0  # size of mark and header
        self._size = 0
        self._pid: int | None = None
        self._open: defaultdict[ClaimKey, _Open] = defaultdict(_Open)
        self._refused = False
        """The disk refused the last entry."""
        self._state_folder = (0, 0)
        """Device and inode of the state folder."""
        self.unusable: str | None = None
        """Why an entry that is written now might not be found after a crash; None: it would be."""

    @classmethod
    def open(cls, path: Path, *, state: str, shard: int, fsync: bool = False) -> Self:
        """Open and lock `STATE_DIR/journal/NAME` without waiting; `state`: the state folder's id.

        Raises JournalHeldError when another process holds it, JournalError when it is not a plain file of our own, or the disk
        refuses.
        """
        journal = cls(path, state=state, shard=shard, fsync=fsync)
        try:
            while True:
                journal._fd = open_file(path.parent.parent, f"{path.parent.name}/{path.name}", os.O_RDWR | os.O_CREAT)
                fcntl.flock(journal._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(journal._fd)
                if found.st_ino == path.lstat().st_ino:
                    journal._file, journal._size = file_identity(journal._fd), found.st_size
                    journal._state_folder = _identity(path.parent.parent.stat())
                    break
                # Its owner replaced the file (compaction) between our open and our lock.
                os.close(journal._fd)
        except BlockingIOError:
            pid = read_pid(path)
            journal.close()
            raise JournalHeldError(f"{path} is held by another process" + (f" (pid {pid})" if pid else "")) from None
        except UnsafeFileError as error:
            journal.close()
            raise JournalError(str(error)) from error
        except OSError as error:
            journal.close()
            raise JournalError(f"{path}: {error.strerror}") from error
        return journal

    def read(self) -> Record:
        """Everything in the file, even if it is damaged. Raises JournalError when it cannot be read."""
        try:
            data = os.pread(self._fd, min(READ_MOST, os.fstat(self._fd).st_size), 0)
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror}") from error
        return read_journal(data, state=self._state, shard=self._shard, file=self._file, boot=boot_id())

    def begin(self) -> None:
        """Start an empty journal of this process. Call it only when everything in the old one is settled."""
        self._start_over(os.getpid())

    def preparing(self, claim: ClaimKey, *, alone: bool = False) -> None:
        """The preparation of a job begins; `alone`: no other job is in this worker. Raises JournalError."""
        self._must_be_found()
        self._append(preparing_line(self._life, self._number + 1, claim, alone=alone))
        self._open[claim].alone = alone

    def started(self, claim: ClaimKey) -> None:
        """The message is about to be handed over. Raises JournalError; then it must not be."""
        self._must_be_found()
        self._append(started_line(self._life, self._number + 1, claim), marked=True)
        self._open[claim].started = True

    def outcome(self, outcome: Outcome) -> None:
        """A claim ended. Raises JournalError; the outcome is then known only to this process."""
        self._append(outcome_line(self._life, self._number + 1, outcome))
        self._open[outcome.key].outcome = outcome

    def settled(self, claims: list[ClaimKey]) -> None:
        """Forget claims that the database has; without open claims the file shrinks. Raises JournalError."""
        for claim in claims:
            self._open.pop(claim, None)
        if not self._open and self._number > self._settled:
            self._settle_all()
        elif self._size > COMPACT_ABOVE:
            self._rewrite()

    def open_claims(self) -> list[ClaimKey]:
        """Claims that this process has started and that are not settled."""
        return [claim for claim, entry in self._open.items() if entry.started]

    def open_outcomes(self) -> list[Outcome]:
        """The outcomes of those that have ended."""
        return [entry.outcome for entry in self._open.values() if entry.outcome is not None]

    def clear(self) -> None:
        """Empty the file: everything in it is settled. The header remains: nothing is missing. Raises JournalError."""
        self._start_over(None)

    def check(self) -> str | None:
        """Check whether the file is still in place and takes entries; returns why it is not or does not.

        A file that was deleted or changed by another program is rewritten, if its folder exists.
        """
        try:
            why = self._displaced() or self._without_room()
            if why is None and self._refused:
                self._append(probe_line(self._life, self._number + 1))
                self._refused = False
        except JournalError as error:
            why = str(error).removeprefix(f"{self.path}: ")
        except UnsafeFileError as error:
            why = str(error)
        except OSError as error:
            why = error.strerror
        self.unusable = why
        return why

    def close(self) -> None:
        """Release the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _must_be_found(self) -> None:
        if self.unusable is not None:
            raise JournalError(f"{self.path}: {self.unusable}")

    def _displaced(self) -> str | None:
        folder = self.path.parent
        with contextlib.suppress(FileNotFoundError):
            if _identity(self.path.lstat()) == _identity(mine := os.fstat(self._fd)) and mine.st_size == self._size:
                return None
        with contextlib.suppress(FileNotFoundError):
            if _identity(folder.parent.stat()) == self._state_folder:
                os.close(open_folder(folder.parent, folder.name))
                log.warning("the journal was deleted or changed by another program: rewriting it", action="journal")
                self._rewrite()
                return None
            # The shardd of that folder may have workers of this shard.
            return "another state folder is in its place"
        return f"{folder} was deleted or moved away: put it back, or make it again (mkdir -m 700)"

    def _without_room(self) -> str | None:
        disk = os.fstatvfs(self._fd)
        if disk.f_flag & os.ST_RDONLY:
            return "its disk is read-only"
        free = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
        # Some file systems do not report their size.
        return "its disk is full" if disk.f_blocks and free * disk.f_frsize < ROOM else None

    def _append(self, line: bytes, *, marked: bool = False) -> None:
        try:
            self._write(line, self._size)
            if self._fsync:
                os.fdatasync(self._fd)
            if marked:
                # After the line: a process that dies in between leaves a mark that is too low, and no file that looks damaged.
                self._write(mark_line(self._life, self._settled, self._number + 1), 0)
        except OSError as error:
            # Neither half a line may remain, nor one that was not acted upon; the next one takes its place.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            self._refused, self.unusable = True, error.strerror
            raise JournalError(f"{self.path}: {error.strerror}") from error
        self._size += len(line)
        self._number += 1

    def _write(self, data: bytes, place: int) -> None:
        """Write all or raise: a full disk may take a part without an error."""
        if os.pwrite(self._fd, data, place) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _settle_all(self) -> None:
        """Nothing is left to remember."""
        try:
            # First the mark: a process that dies in between leaves lines that are ignored.
            self._write(mark_line(self._life, self._number, self._number), 0)
            self._settled = self._number
            if self._size > CUT_ABOVE:
                os.ftruncate(self._fd, self._head)
                self._size = self._head
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror}") from error

    def _start_over(self, pid: int | None) -> None:
        self._pid = pid
        self._open.clear()
        header = self._begin_life(self._file)
        head = mark_line(self._life, 0, 0) + header
        try:
            # In this order a file can be cleared on a full disk, which still overwrites.
            self._write(head, 0)
            os.ftruncate(self._fd, len(head))
            if self._fsync:
                os.fdatasync(self._fd)
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror}") from error
        self._size = len(head)
        self._sync_folder()

    def _begin_life(self, file: str) -> bytes:
        """The header of a file that has no entries yet."""
        self._life, self._number, self._settled = secrets.token_hex(4).encode(), 0, 0
        header = Header(
            state=self._state, shard=self._shard, file=file, fsync=self._fsync, boot=boot_id(), pid=self._pid
        )
        line = header_line(self._life, header)
        self._head = MARK_SIZE + len(line)
        return line

    def _rewrite(self) -> None:
        """Keep only what is not settled, in a second file that is complete and locked before it replaces the first."""
        before = self._life, self._number, self._settled, self._head
        folder = self.path.parent
        spare = self.path.with_suffix(".new")
        fd = -1
        try:
            with contextlib.suppress(FileNotFoundError):
                # Left by an interrupted compaction. Of a link, the link itself is removed.
                spare.unlink()
            fd = open_file(folder.parent, f"{folder.name}/{spare.name}", os.O_RDWR | os.O_CREAT | os.O_EXCL)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file = file_identity(fd)
            header, kept = self._begin_life(file), b"".join(self._kept())
            data = mark_line(self._life, 0, self._number) + header + kept
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301  # one place for each way to fail
            os.fsync(fd)
            spare.replace(self.path)
        except (OSError, UnsafeFileError) as error:
            if fd >= 0:
                os.close(fd)
            self._life, self._number, self._settled, self._head = before
            if isinstance(error, IsADirectoryError):
                place = error.filename2 or error.filename
                raise JournalError(f"{self.path}: {place} is a folder: move it away") from error
            raise JournalError(f"{self.path}: {getattr(error, 'strerror', None) or error}") from error
        old, self._fd, self._file, self._size = self._fd, fd, file, len(data)
        os.close(old)
        self._sync_folder()

    def _kept(self) -> Iterator[bytes]:
        """Everything that is not settled, as the entries of a new life."""
        for claim, entry in self._open.items():
            if entry.alone is not None:
                self._number += 1
                yield preparing_line(self._life, self._number, claim, alone=entry.alone)
            if entry.started:
                self._number += 1
                yield started_line(self._life, self._number, claim)
            if entry.outcome is not None:
                self._number += 1
                yield outcome_line(self._life, self._number, entry.outcome)

    def _sync_folder(self) -> None:
        """A file is found after a power failure only if its folder is on the disk too."""
        if not self._fsync:
            return
        try:
            fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise JournalError(f"{self.path.parent}: {error.strerror}") from error


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def read_pid(path: Path) -> int | None:
    """The process that wrote the journal's header; None: it has none."""
    try:
        header = read_header(read_others_file(path, HEADER_MOST) or b"")
    except (OSError, UnsafeFileError):
        return None
    return None if header is None else header.pid
