"""The state folder's lock: two supervisors on one folder would share its journals and its database."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from shardd.errors import AlreadyRunningError, SharddError
from shardd.state_files import open_file

NAME: Final = "supervisor.lock"


class StateLock:
    """Held for the life of the supervisor; the kernel gives it back when the process is gone, so no stale lock can stay."""

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
        """Give it back."""
        os.close(self._fd)

    def displaced(self) -> str | None:
        """Why the lock no longer protects what lies at the folder's path; None: it does."""
        mine = os.fstat(self._fd)
        try:
            found = (self.state_dir / NAME).lstat()
        except FileNotFoundError:
            what = NAME if self.state_dir.is_dir() else "it"
            return f"{what} was deleted or moved away"
        except OSError as error:
            return f"it cannot be looked at: {error.strerror}"
        if (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
            return "another folder stands in its place" if mine.st_nlink else f"its {NAME} was replaced"
        return None
