"""The journal: what a shard started and how it ended, on local disk, before anybody else is told.

One append-only file per shard. A line is written *before* a message is handed to its transport and another when the
outcome is known, each with one write(2), so the kernel has it even when worker and supervisor are killed with -9. After
a crash the three cases are plain: no line → never started; two lines → the outcome is known; one line → in doubt.

    {"boot": "…", "pid": 4711, "shard": 3}      the header
    {"s": [job, epoch, attempt]}                started
    {"o": [job, epoch, attempt, verdict, …]}    outcome: the array of shardd.ipc.Outcome

A machine that loses power may lose lines that the kernel had not written to disk. The header names the boot, so that a
later reader can tell, and then takes "no line" for "in doubt" unless fsync was on. A file without a header proves
nothing either: it is new, or what it said is lost.

The file's lock (flock) is held for as long as the worker lives, whoever started it: who has the lock is the only one
with clients of that shard on this host. Entries are forgotten when the supervisor says that they are settled in the
database.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import msgspec

from shardd.errors import JournalError
from shardd.ipc import Outcome

COMPACT_ABOVE: Final = 4 * 1024 * 1024
"""Bytes; a file that never comes to rest is rewritten when it is larger."""

Claim = tuple[int, int, int]
"""(job id, epoch, attempt)"""

_encoder = msgspec.json.Encoder()


class _Line(msgspec.Struct):
    boot: str | None = None
    pid: int | None = None
    shard: int | None = None
    fsync: bool = False
    s: Claim | None = None
    o: Outcome | None = None


_decoder = msgspec.json.Decoder(_Line)


def boot_id() -> str:
    """Names this run of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(slots=True)
class Record:
    """What a journal says about the claims that are not settled yet."""

    started: set[Claim] = field(default_factory=set)
    outcomes: dict[Claim, Outcome] = field(default_factory=dict)
    complete: bool = False
    """False when lines may be missing: the machine went down without fsync, or there is no header."""
    pid: int | None = None
    """The worker that wrote it."""


class Journal:
    """A shard's journal, opened and locked: the worker writes it, the supervisor reads it after the worker's death."""

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        self.path = path
        self._fsync = fsync
        self._fd = -1
        self._size = 0
        self._header = b""
        self._open: dict[tuple[int, int], tuple[Claim, Outcome | None]] = {}

    @classmethod
    def open(cls, path: Path, *, fsync: bool = False) -> Self:
        """Open and lock it without waiting. Raises JournalError when another process holds it or the disk refuses."""
        journal = cls(path, fsync=fsync)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            while True:
                journal._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                fcntl.flock(journal._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(journal._fd)
                if found.st_ino == path.stat().st_ino:
                    journal._size = found.st_size
                    break
                # Its owner replaced the file (compaction) between our open and our lock.
                os.close(journal._fd)
        except BlockingIOError:
            pid = read_pid(path)
            journal.close()
            raise JournalError(f"{path} is held by another process" + (f" (pid {pid})" if pid else "")) from None
        except OSError as error:
            journal.close()
            raise JournalError(f"{path}: {error.strerror}") from error
        return journal

    def read(self) -> Record:
        """Everything in the file. A torn last line (the process died in the write) was never acted upon, so it does not count."""
        record = Record()
        headed, whole = False, True
        data = self.path.read_bytes()
        for line in data.split(b"\n")[:-1]:
            try:
                entry = _decoder.decode(line)
            except msgspec.DecodeError:
                # A hole in the middle: the disk lost something, so nothing can be concluded from a missing line.
                whole = False
                continue
            if entry.boot is not None:
                headed = True
                record.pid = entry.pid
                whole = whole and (entry.fsync or entry.boot == boot_id())
            elif entry.s is not None:
                record.started.add(entry.s)
            elif entry.o is not None:
                record.outcomes[entry.o.id, entry.o.epoch, entry.o.attempt] = entry.o
        record.complete = headed and whole
        return record

    def begin(self, shard: int) -> None:
        """Start an empty journal of this process. Call it only when everything in the old one is settled."""
        self._start_over(_Line(boot=boot_id(), pid=os.getpid(), shard=shard, fsync=self._fsync))

    def started(self, claim: Claim) -> None:
        """Remember that the message is about to be handed over. Raises JournalError; then it must not be."""
        self._append(b'{"s":[%d,%d,%d]}\n' % claim)
        self._open[claim[0], claim[2]] = (claim, None)

    def outcome(self, outcome: Outcome) -> None:
        """Remember how a claim ended. Raises JournalError; the outcome is then known only to this process."""
        claim = (outcome.id, outcome.epoch, outcome.attempt)
        self._append(b'{"o":' + _encoder.encode(outcome) + b"}\n")
        self._open[outcome.id, outcome.attempt] = (claim, outcome)

    def settled(self, claims: list[tuple[int, int]]) -> None:
        """Forget claims (job id, attempt) that the database has; the file is emptied when nothing is left to remember."""
        for claim in claims:
            self._open.pop(claim, None)
        if not self._open and self._size > len(self._header):
            self._cut(len(self._header))
        elif self._size > COMPACT_ABOVE:
            self._rewrite()

    def clear(self) -> None:
        """Empty the file: everything in it is settled. A header stays, which says that nothing is missing."""
        self._start_over(_Line(boot=boot_id(), fsync=self._fsync))

    def close(self) -> None:
        """Give the lock back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, line: bytes) -> None:
        try:
            _write(self._fd, line)
            if self._fsync:
                os.fdatasync(self._fd)
        except OSError as error:
            # What was written of the line would make the next one unreadable.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise JournalError(f"{self.path}: {error.strerror}") from error
        self._size += len(line)

    def _start_over(self, header: _Line) -> None:
        self._header = _encoder.encode(header) + b"\n"
        self._open.clear()
        self._cut(0)
        self._append(self._header)
        self._sync_folder()

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror}") from error
        self._size = size

    def _rewrite(self) -> None:
        """Keep only what is not settled, in a second file that is whole and locked before it takes the first one's name."""
        kept = [self._header]
        for claim, outcome in self._open.values():
            kept.append(b'{"s":[%d,%d,%d]}\n' % claim)
            if outcome is not None:
                kept.append(b'{"o":' + _encoder.encode(outcome) + b"}\n")
        data = b"".join(kept)
        spare = self.path.with_suffix(".new")
        fd = -1
        try:
            fd = os.open(spare, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(fd, data)
            os.fsync(fd)
            spare.replace(self.path)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            raise JournalError(f"{self.path}: {error.strerror}") from error
        old, self._fd, self._size = self._fd, fd, len(data)
        os.close(old)
        self._sync_folder()

    def _sync_folder(self) -> None:
        """A file is found again after a loss of power only when its folder is on the disk too."""
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


def _write(fd: int, data: bytes) -> None:
    """All or an error: a full disk may take a part and tell nothing."""
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_pid(path: Path) -> int | None:
    """The process that wrote the journal's header; None when it has none."""
    try:
        with path.open("rb") as file:
            return _decoder.decode(file.readline()).pid
    except (OSError, msgspec.DecodeError):
        return None
