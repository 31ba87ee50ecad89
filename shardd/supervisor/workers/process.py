"""One worker process, seen from the supervisor: start, channel, heartbeat, death.

It is exec'd, never forked, with everything that the Go library reads once in its environment. Death is seen through a
pidfd, so a reused pid cannot be mistaken for it. Restarting is somebody else's business (`shardd.supervisor.workers.shard`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from shardd import ipc
from shardd.channel import Channel
from shardd.errors import UnsafeFileError
from shardd.logs import get_logger
from shardd.postgres.dsn import without_libpq
from shardd.state_files import open_file
from shardd.supervisor.systemd import clean_environ
from shardd.wire import OutOfStepError, Unread, Unsent, supervisor_reader

log = get_logger(__name__)

ABORT_GRACE: Final = 2.0
"""Seconds between SIGABRT, which makes a worker print its stacks, and SIGKILL."""
DEAF_GRACE: Final = 5.0
"""Seconds that a worker gets to finish what has started when nothing that it says can be read."""
EOF_GRACE: Final = 5.0
"""Seconds after its death in which the end of its channel must come; a child of its own may still hold the socket."""
TAIL: Final = 64 * 1024
"""Bytes at the end of the file that are looked at; a panic prints every goroutine after its first line."""
_TELLING: Final = (
    "fatal error:",
    "panic:",
    "runtime: out of memory",
    "Fatal Python error:",
    "MemoryError",
    "ImportError",
)
_CHATTER: Final = ("Press Ctrl+C to exit",)


@dataclass(frozen=True, slots=True)
class Launch:
    """How every worker of this node is started."""

    node: str
    go_memory_limit: int
    """Bytes; GOMEMLIMIT."""
    log_level: str
    log_format: str
    lifeline: int
    """Read end of a pipe whose write end only the supervisor has."""
    state_dir: Path
    state_id: str
    """Of the state folder; its journals carry it."""


class Messages(Protocol):
    """Who hears what a worker says; see `shardd.channel.Listener`."""

    def heard(self, message: ipc.ToSupervisor) -> None:
        """A message."""

    def unread(self, what: Unread) -> None:
        """A message, or a part of one, that cannot be read."""

    def unsent(self, what: Unsent) -> None:
        """What the worker does not hear, because it cannot be encoded."""

    def failed(self, message: object, error: Exception) -> None:
        """Hearing a message raised this."""

    def out_of_step(self) -> None:
        """Nothing that it says can be read any more."""


class WorkerProcess:
    """A running worker. `died` is called once, with the exit status, when the process is gone."""

    def __init__(self, shard: int, launch: Launch, died: Callable[[int], None]) -> None:
        self.shard = shard
        self._launch = launch
        self._died = died
        self._messages: Messages
        self._unreadable: str | None = None
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self.started_at = time.monotonic()
        self.ready_at: float | None = None
        self.beat_at: float | None = None
        self.beat: ipc.Heartbeat | None = None
        self.rss_at_start = 0
        """Bytes that it took when it was ready."""
        self.gone = asyncio.Event()
        self._status: int | None = None
        """Its exit status, once it is dead."""
        self._hung_up = False
        """Nothing more will arrive on the channel."""
        self._aborted_at: float | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 before `start`."""
        return self._process.pid if self._process is not None else 0

    async def start(self, setup: ipc.Setup, messages: Messages) -> None:
        """Exec the worker and tell it who it is; `messages` hears what it says. Call it on the main thread."""
        self._messages = messages
        ours, theirs = socket.socketpair()
        words, log_fd = open_words(self._launch.state_dir, self.shard), os.dup(2)
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220  # an exec of some ms; uvloop's own spawn cannot hand over a pidfd
                self._command(theirs.fileno(), log_fd),
                env=self._environ(),
                pass_fds=(theirs.fileno(), self._launch.lifeline, log_fd),
                stdin=subprocess.DEVNULL,
                # The library prints remarks for people there, in the midst of our lines of JSON; its dying words go to stderr.
                stdout=subprocess.DEVNULL,
                stderr=words,
            )
        finally:
            theirs.close()
            os.close(words)
            os.close(log_fd)
        self._pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)
        self._channel = await Channel.connect(ours, supervisor_reader(), self)
        if self.gone.is_set():
            self._channel.close()  # it was killed meanwhile
        self.say(setup)

    def say(self, message: ipc.ToWorker) -> bool:
        """Tell the worker something; False when it is gone."""
        if self._channel is None or self.gone.is_set():
            return False
        self._channel.say(message)
        return True

    def signal(self, signum: int) -> None:
        """Send a signal, unless the process is gone."""
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, signum)

    def abort(self) -> None:
        """End a worker that does not answer: its stacks into the log, then death."""
        now = time.monotonic()
        if self._aborted_at is None:
            self._aborted_at = now
            self.signal(signal.SIGABRT)
        elif now > self._aborted_at + ABORT_GRACE:
            self.signal(signal.SIGKILL)

    def kill(self) -> None:
        """End it now."""
        self.signal(signal.SIGKILL)

    def silent_for(self) -> float:
        """Seconds since it was last heard, or since its start."""
        return time.monotonic() - (self.beat_at or self.ready_at or self.started_at)

    # ---- channel.Listener

    def heard(self, message: ipc.ToSupervisor) -> None:
        """It said something."""
        match message:
            case ipc.Heartbeat():
                self.beat, self.beat_at = message, time.monotonic()
            case ipc.Ready():
                self.ready_at, self.rss_at_start = time.monotonic(), message.rss
        self._messages.heard(message)

    def unread(self, what: Unread) -> None:
        """It said something that cannot be read."""
        self._messages.unread(what)

    def unsent(self, what: Unsent) -> None:
        """It cannot be told something; without its setup it is of no use."""
        self._messages.unsent(what)
        if isinstance(what.item, ipc.Setup):
            self.kill()

    def failed(self, message: Any, error: Exception) -> None:
        """What it said set off a defect."""
        self._messages.failed(message, error)

    def out_of_step(self, error: OutOfStepError) -> None:
        """Nothing that it says can be read any more: what it has in flight is settled from its journal."""
        self._unreadable = f"what it says cannot be read any more: {error}"
        log.error(self._unreadable, action="defect", shard=self.shard)
        self._hung_up = True
        self._messages.out_of_step()
        # It still hears: what has started may end, and does so in its journal.
        self.say(ipc.Drain(timeout=DEAF_GRACE))
        asyncio.get_running_loop().call_later(DEAF_GRACE + ABORT_GRACE, self.kill)

    def lost(self) -> None:
        """Everything that it said was heard. That it is dead is seen through the pidfd."""
        self._hung_up = True
        self._end()

    # ----

    def _reap(self) -> None:
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._status = self._process.wait()
        os.close(self._pidfd)
        self._pidfd = -1
        if self._channel is None or self._hung_up:
            self._end()
        else:
            # What it still said is in the socket's buffer, and ends with an EOF: see `lost`.
            asyncio.get_running_loop().call_later(EOF_GRACE, self._stop_listening)

    def _stop_listening(self) -> None:
        self._hung_up = True
        self._end()

    def _end(self) -> None:
        """Once it is dead and everything that it said was heard: tell whoever started it."""
        if self._status is None or self.gone.is_set() or not (self._hung_up or self._channel is None):
            return
        self.gone.set()
        if self._channel is not None:
            self._channel.close()
        self._died(self._status)

    def how_it_ended(self, status: int) -> str:
        """The exit status in words, with what the process itself said at the end."""
        if self._unreadable is not None:
            return self._unreadable
        how, said = describe_exit(status), stderr_tail(self._launch.state_dir, self.shard)
        return f"{how}: {said}" if said and status != 0 else how

    def _command(self, fd: int, log_fd: int) -> list[str]:
        return [
            sys.executable,
            "-m",
            "shardd.worker",
            f"--node={self._launch.node}",
            f"--shard={self.shard}",
            f"--channel={fd}",
            f"--lifeline={self._launch.lifeline}",
            f"--log={log_fd}",
            f"--log-level={self._launch.log_level}",
            f"--log-format={self._launch.log_format}",
        ]

    def _environ(self) -> dict[str, str]:
        return {
            # The DSN of the sessions says what these variables say; the library refuses to start with some of them.
            **without_libpq(clean_environ(os.environ)),
            # Parallel connects and stops crash the Go library on its unlocked maps when it runs on more than one
            # processor.
            "GOMAXPROCS": "1",
            "GOMEMLIMIT": str(self._launch.go_memory_limit),
            "NEONIZE_BOT_TAG": "off",
            "MALLOC_ARENA_MAX": "2",
        }


def describe_exit(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


# ---- stderr


def open_words(state_dir: Path, shard: int) -> int:
    """A descriptor of a shard's file, emptied, to append to. Raises OSError, UnsafeFileError."""
    return open_file(state_dir, _name(shard), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)


def stderr_tail(state_dir: Path, shard: int) -> str | None:
    """The line that tells most: the first that names a fatal error, else the last one; None when nothing was said."""
    try:
        fd = open_file(state_dir, _name(shard), os.O_RDONLY)
        try:
            text = os.pread(fd, TAIL, max(0, os.fstat(fd).st_size - TAIL)).decode(errors="replace")
        finally:
            os.close(fd)
    except (OSError, UnsafeFileError):
        return None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_CHATTER)]
    telling = [line for line in lines if line.startswith(_TELLING)]
    found = telling[:1] or lines[-1:]
    return found[0][:300] if found else None


def _name(shard: int) -> str:
    return f"stderr/shard-{shard:03d}.txt"
