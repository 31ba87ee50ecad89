"""One worker process, seen from the supervisor: start, channel, heartbeat, death.

It is exec'd, never forked, with everything that the Go library reads at load time in its environment. Its death is noticed by a
pidfd, so that a reused pid cannot be mistaken for it. Restarting is up to `shardd.supervisor.workers.pool`.

A worker's stderr leads to a file in the state folder, one for each shard, emptied for each worker: there the panic of the Go
library, a stack or an error of the interpreter is found. Its log goes to the supervisor's stderr by a descriptor of its own, so
that the library's chatter does not get between the events.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shardd import ipc
from shardd.channel import Channel, Listener
from shardd.config import Config
from shardd.errors import SharddError, UnsafeFileError
from shardd.logs import get_logger
from shardd.postgres.dsn import without_libpq
from shardd.state_files import open_file
from shardd.supervisor.systemd import clean_environ
from shardd.supervisor.workers.installed import REPLACED, were_replaced
from shardd.wire import OutOfSyncError, supervisor_reader

log = get_logger(__name__)

ABORT_GRACE: Final = 2.0
"""Seconds between SIGABRT, which makes a worker print its stacks, and SIGKILL."""
OUT_OF_SYNC_GRACE: Final = 5.0
"""Seconds that a worker whose messages cannot be decoded gets to finish what has started."""
CLOSE_GRACE: Final = 20.0
"""Seconds beyond a drain in which a worker ends: its clients still have to store what WhatsApp was told they have received."""
EOF_GRACE: Final = 5.0
"""Seconds from its death to the end of its channel, at most; a child of its own may still hold the socket."""
CLOSE_TIMEOUT: Final = 60.0
"""Seconds for the close of a client: its send must end before, then it may take 40 s to store what it has received."""
TAIL: Final = 64 * 1024
"""Bytes at the end of stderr that are searched; a panic prints every goroutine after its first line."""
_FATAL: Final = (
    "fatal error:",
    "panic:",
    "runtime: out of memory",
    "Fatal Python error:",
    "MemoryError",
    "ImportError",
)
_CHATTER: Final = ("Press Ctrl+C to exit",)


class WorkerProcess:
    """A running worker. `died` is called once, with how it ended, when the process is gone and its channel has ended."""

    def __init__(
        self, shard: int, config: Config, lifeline: int, died: Callable[[str], None], *, epoch: int | None
    ) -> None:
        """`lifeline`: read end of a pipe whose write end only the supervisor has; `epoch`: of the lease that it serves."""
        self.shard = shard
        self.epoch = epoch
        self._config = config
        self._lifeline = lifeline
        self._died = died
        self._out_of_sync: str | None = None
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self.started_at = time.monotonic()
        self.ready_at: float | None = None
        self.beat_at: float | None = None
        self.beat: ipc.Heartbeat | None = None
        self.rss_at_start = 0
        """Bytes that it took when it was ready."""
        self.arrived = 0
        """`Arrived` messages that were received."""
        self.gone = asyncio.Event()
        self._status: int | None = None
        """Its exit status, once it is dead."""
        self._disconnected = False
        """Nothing more will arrive on the channel."""
        self._aborted_at: float | None = None
        self._requests = itertools.count(1)
        self._closing: dict[int, asyncio.Future[None]] = {}
        """By request: clients that it was asked to close."""

    @property
    def exit_status(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None: it lives."""
        return self._status

    @property
    def pid(self) -> int:
        """The process id; 0 before `start`."""
        return self._process.pid if self._process is not None else 0

    async def start(self, setup: ipc.Setup, listener: Listener) -> None:
        """Exec the worker and send it its setup; `listener` gets its messages. Call it on the main thread."""
        ours, theirs = socket.socketpair()
        stderr, log_fd = open_stderr(self._config.state_dir, self.shard), os.dup(2)
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220  # an exec of some ms; uvloop's own spawn cannot hand over a pidfd
                self._command(theirs.fileno(), log_fd),
                env=self._environ(),
                pass_fds=(theirs.fileno(), self._lifeline, log_fd),
                stdin=subprocess.DEVNULL,
                # The library prints remarks for people there, amid our lines of JSON; its last errors go to stderr.
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        finally:
            theirs.close()
            os.close(stderr)
            os.close(log_fd)
        self._pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)
        self._channel = await Channel.connect(ours, supervisor_reader(), listener)
        if self.gone.is_set():
            self._channel.close()  # it was killed meanwhile
        self.send(setup)

    def send(self, message: ipc.ToWorker) -> bool:
        """Send the worker a message; False when it is gone."""
        if self._channel is None or self.gone.is_set():
            return False
        self._channel.send(message)
        return True

    async def close_client(self, device_id: str) -> None:
        """Close a device's client; when the worker dies, its client is gone too. Raises SharddError."""
        request = next(self._requests)
        closed = self._closing[request] = asyncio.get_running_loop().create_future()
        gone = asyncio.ensure_future(self.gone.wait())
        try:
            self.send(ipc.Close(device_id, request))
            done, _ = await asyncio.wait([closed, gone], timeout=CLOSE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            del self._closing[request]
        if not done:
            raise SharddError(
                f"the client of device {device_id} did not close within {CLOSE_TIMEOUT:g} s: the device is still sending, or "
                "what it received is still being stored; pause it, then try again"
            )

    def abort(self) -> None:
        """End a worker that does not answer: it prints its stacks, then is killed."""
        now = time.monotonic()
        if self._aborted_at is None:
            self._aborted_at = now
            self._signal(signal.SIGABRT)
        elif now > self._aborted_at + ABORT_GRACE:
            self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """End it now."""
        self._signal(signal.SIGKILL)

    def silent_for(self) -> float:
        """Seconds since its last heartbeat, or since its start."""
        return time.monotonic() - (self.beat_at or self.ready_at or self.started_at)

    # ---- what its messages report

    def ready(self, message: ipc.Ready) -> None:
        """It takes jobs."""
        self.ready_at, self.rss_at_start = time.monotonic(), message.rss

    def heartbeat(self, message: ipc.Heartbeat) -> None:
        """Its event loop runs."""
        self.beat, self.beat_at = message, time.monotonic()

    def client_closed(self, request: int) -> None:
        """The answer to `close_client`."""
        closed = self._closing.get(request)
        if closed is not None and not closed.done():
            closed.set_result(None)

    def out_of_sync(self, error: OutOfSyncError) -> None:
        """None of its messages can be decoded any more: it is replaced."""
        self._out_of_sync = f"its messages cannot be decoded any more: {error}"
        log.error(self._out_of_sync, action="defect", shard=self.shard)
        self._disconnected = True
        # It still receives: what has started may end, and is in its journal then.
        self.send(ipc.Drain(timeout=OUT_OF_SYNC_GRACE))
        asyncio.get_running_loop().call_later(OUT_OF_SYNC_GRACE + CLOSE_GRACE, self.kill)

    def disconnected(self) -> None:
        """Everything that it sent has arrived. Its death is noticed through the pidfd."""
        self._disconnected = True
        self._end()

    # ----

    def _signal(self, signum: int) -> None:
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, signum)

    def _reap(self) -> None:
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._status = self._process.wait()
        os.close(self._pidfd)
        self._pidfd = -1
        if self._channel is None or self._disconnected:
            self.disconnected()
        else:
            # Its last messages may still be in the socket's buffer; EOF follows them.
            asyncio.get_running_loop().call_later(EOF_GRACE, self.disconnected)

    def _end(self) -> None:
        """Call `died` once it is dead and everything that it sent has arrived."""
        if self._status is None or self.gone.is_set() or not self._disconnected:
            return
        self.gone.set()
        if self._channel is not None:
            self._channel.close()
        how = self._out_of_sync or self._describe_exit(self._status)
        self._died(f"{how}; {REPLACED}" if were_replaced() else how)

    def _describe_exit(self, status: int) -> str:
        """The exit status in words, with the last error that the process printed."""
        if status == 0:
            return "exit code 0"
        try:
            how = f"exit code {status}" if status > 0 else signal.Signals(-status).name
        except ValueError:
            how = f"signal {-status}"
        error = stderr_tail(self._config.state_dir, self.shard)
        return f"{how}: {error}" if error else how

    def _command(self, fd: int, log_fd: int) -> list[str]:
        return [
            sys.executable,
            "-P",  # no module of the folder in which shardd was started
            "-m",
            "shardd.worker",
            f"--node={self._config.node}",
            f"--shard={self.shard}",
            f"--channel={fd}",
            f"--lifeline={self._lifeline}",
            f"--log={log_fd}",
            f"--log-level={self._config.log.level}",
            f"--log-format={self._config.log.format}",
        ]

    def _environ(self) -> dict[str, str]:
        return {
            # The DSN of the sessions holds what these variables do; the library refuses to start with some of them.
            **without_libpq(clean_environ(os.environ)),
            # Parallel connects and stops crash the Go library on its unlocked maps when it runs on more than one
            # processor.
            "GOMAXPROCS": "1",
            "GOMEMLIMIT": str(self._config.worker.go_memory_limit),
            "NEONIZE_BOT_TAG": "off",
            "MALLOC_ARENA_MAX": "2",
        }


# ---- stderr


def open_stderr(state_dir: Path, shard: int) -> int:
    """A descriptor of a shard's file, emptied, to append to. Raises OSError, UnsafeFileError."""
    return open_file(state_dir, _name(shard), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)


def stderr_tail(state_dir: Path, shard: int) -> str | None:
    """The most useful line: the first that names a fatal error, else the last one; None: nothing was printed."""
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
    fatal = [line for line in lines if line.startswith(_FATAL)]
    found = fatal[:1] or lines[-1:]
    return found[0][:300] if found else None


def _name(shard: int) -> str:
    return f"stderr/shard-{shard:03d}.txt"
