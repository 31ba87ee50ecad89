"""Where log lines are written: complete lines, no exceptions, no long wait for a reader that has stopped.

Before each write the descriptor is polled. If it has no room, the first line waits briefly, as a burst may have outrun the
reader; further lines are counted as lost until there is room again. Writes have at most PIPE_BUF bytes: a pipe that polls as
writable takes that many without blocking, and keeps the lines of the processes that share it apart. Neither holds for the
standard library's handlers: StreamHandler blocks, and QueueHandler loses what its thread has not written when a process dies.
"""

from __future__ import annotations

import os
import select
from typing import Final, TextIO

_PATIENCE_MS: Final = 100


class Outlet:
    """A destination of lines. `lost` counts those that could not be written since it was last set to 0."""

    def __init__(self, stream: TextIO | None) -> None:
        """`stream`: None discards everything; one without a descriptor is written to directly."""
        self.lost = 0
        self._stream = stream
        self._fd = _descriptor(stream)
        self._patience_ms = _PATIENCE_MS
        self._torn = False
        self.is_journal = self._fd is not None and _leads_to_journal(self._fd)
        """Whether this is the systemd journal, which takes a syslog priority (`<4>`) at the start of a line."""

    def writable(self) -> bool:
        """Whether a line would be written now."""
        return self._fd is None or self._poll(0)

    def put(self, line: bytes) -> None:
        """Write a line with its newline; what cannot be written counts as lost."""
        if self._stream is None or self._stream.closed:
            return
        try:
            if self._fd is None:
                self._stream.write(line.decode())
            elif not self._write(self._fd, b"\n" + line if self._torn else line):
                self.lost += 1
        except (OSError, ValueError):  # the reader is gone, the disk is full, the stream was closed in between
            self.lost += 1

    def _write(self, fd: int, line: bytes) -> bool:
        rest = memoryview(line)
        while rest:
            if not self._poll(self._patience_ms):
                self._patience_ms = 0
                self._torn = self._torn or len(rest) < len(line)
                return False
            rest = rest[os.write(fd, rest[: select.PIPE_BUF]) :]
        self._patience_ms = _PATIENCE_MS
        self._torn = False
        return True

    def _poll(self, timeout_ms: int) -> bool:
        assert self._fd is not None
        # A new object each time: one object cannot be polled by two threads at once.
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(timeout_ms))


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):  # a stream in memory, or a closed one
        return None


def _leads_to_journal(fd: int) -> bool:
    # JOURNAL_STREAM is "device:inode" of the socket that systemd gave as stderr: systemd.exec(5).
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
