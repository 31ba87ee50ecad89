"""The state folder: one supervisor at a time, and whether what is written there survives a crash.

Two supervisors on one folder would share its journals and its database. A journal that cannot be found again does not
prevent a second send: while the folder is gone, or a journal cannot be written, nothing is handed over, and `status` shows why.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from shardd.errors import AlreadyRunningError, SharddError
from shardd.journal import boot_id
from shardd.logs import get_logger
from shardd.state_files import file_identity, open_file
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.services import Service
from shardd.supervisor.workers.shard import Shard

log = get_logger(__name__)

NAME: Final = "supervisor.lock"
CHECK_EVERY: Final = 2.0
"""Seconds between checks of the state folder."""


class StateLock:
    """Held for the life of the supervisor; the kernel releases it with the process, so it is never stale."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._fd = -1

    def __enter__(self) -> Self:
        """Take it. Raises AlreadyRunningError, UnsafeFileError, SharddError."""
        try:
            self._fd = open_file(self.state_dir, NAME, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise SharddError(f"state_dir {self.state_dir}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(self._fd, 20)
            os.close(self._fd)
            holder = f"pid {int(pid)}" if pid.isdigit() else "pid unknown"
            raise AlreadyRunningError(
                f"another shardd ({holder}) is running on {self.state_dir}: stop it with shardd stop, or give this one "
                "a state_dir of its own"
            ) from None
        try:
            os.ftruncate(self._fd, 0)
            os.write(self._fd, str(os.getpid()).encode())
        except OSError as error:
            os.close(self._fd)
            raise SharddError(f"{self.state_dir / NAME}: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release it."""
        os.close(self._fd)

    def place(self) -> str | None:
        """Identifies this lock, in this run of the kernel: who had it before is dead. None: the run is unknown."""
        boot = boot_id()
        return None if boot is None else f"{boot}/{os.fstat(self._fd).st_dev}/{file_identity(self._fd)}"

    def displaced(self) -> str | None:
        """Why the lock does not protect the folder at the path any more; None: it does."""
        mine = os.fstat(self._fd)
        try:
            found = (self.state_dir / NAME).lstat()
        except FileNotFoundError:
            what = NAME if self.state_dir.is_dir() else "it"
            return f"{what} was deleted or moved away"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        if (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
            return "it was replaced by another folder" if mine.st_nlink else f"its {NAME} was replaced"
        return None


class StateWatch(Service):
    """Checks the folder, and reports journals that cannot be written."""

    def __init__(self, lock: StateLock, shards: Callable[[], Sequence[Shard]], changed: Callable[[], None]) -> None:
        """`changed`: called when jobs may be claimed again, or may no longer be."""
        self._lock = lock
        self._shards = shards
        self._changed = changed
        self.error: str | None = None
        """Why nothing may be claimed on this node; None: the folder is fine."""
        self._since = 0.0

    async def serve(self) -> None:
        """Check periodically."""
        while True:
            self._check()
            await asyncio.sleep(CHECK_EVERY)

    def _check(self) -> None:
        folder, flaw = self._lock.state_dir, self._lock.displaced()
        before, self.error = self.error, None
        if flaw is not None:
            self.error = (
                f"state_dir {folder}: {flaw} while shardd runs: nothing is claimed, and after lease.ttl its shards go to "
                f"other nodes; put it back, or stop shardd (systemctl stop, or kill {os.getpid()}) and start it again"
            )
        if before is None:
            self._since = time.monotonic()
        if before == self.error:
            return
        if self.error is not None:
            log.error("the state folder is gone or was replaced", action="state", problem=self.error)
        else:
            log.info("the state folder is back", action="state", path=str(folder))
        self._changed()

    def failing_for(self) -> float:
        """Seconds for which nothing may be claimed, more than 0; 0: jobs may be claimed."""
        return 0.0 if self.error is None else max(0.001, time.monotonic() - self._since)

    def problems(self) -> Iterable[Problem]:
        """The folder, and journals that cannot be written; shards with the same error share one problem."""
        if self.error is not None:
            yield Problem(ProblemKind.STATE_FOLDER, self.error)
        by_error: dict[str, list[str]] = {}
        for shard in self._shards():
            if shard.journal_error is not None:
                by_error.setdefault(shard.journal_error, []).append(str(shard.index))
        folder = self._lock.state_dir / "journal"
        for error, shards in by_error.items():
            whose = "the journal of shard" if len(shards) == 1 else "the journals of shards"
            text = f"{whose} {', '.join(shards)} in {folder}: {error}; until then, nothing of theirs is sent"
            yield Problem(ProblemKind.JOURNAL, text)
