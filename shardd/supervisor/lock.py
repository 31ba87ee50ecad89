"""The state folder's lock: two supervisors on one folder would share its journals and its database."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from shardd.errors import AlreadyRunningError, SharddError


class StateLock:
    """Held for the life of the supervisor; the kernel gives it back when the process is gone, so no stale lock can stay."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "supervisor.lock"
        self._fd = -1

    def __enter__(self) -> Self:
        """Take it. Raises AlreadyRunningError."""
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SharddError(f"state_dir {self._path.parent}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(self._fd, 20).decode() or "unknown"
            os.close(self._fd)
            raise AlreadyRunningError(
                f"another shardd (pid {pid}) is running on {self._path.parent}: stop it with shardd stop, or give this one "
                "a state_dir of its own"
            ) from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, str(os.getpid()).encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        os.close(self._fd)
