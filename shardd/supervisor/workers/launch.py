"""The exec of a worker process: its command line, its environment, its descriptors, and the file of its stderr.

It is exec'd, never forked, with everything that the Go library reads at load time in its environment. No shard is on its command
line: it gets that with its setup, so that it can be started before anybody knows which shard will need it.

A worker's stderr leads to a file in the state folder, emptied for each worker: there the panic of the Go library, a stack or an
error of the interpreter is found. Its log goes to the supervisor's stderr by a descriptor of its own, so that the library's
chatter does not get between the events.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from shardd.config import Config
from shardd.errors import UnsafeFileError
from shardd.postgres.dsn import without_libpq
from shardd.state_files import open_file, rename_file
from shardd.supervisor.systemd import clean_environ
from shardd.supervisor.workers.installed import Installed

STDERR: Final = "stderr"
"""A folder in the state folder."""
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


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """All that a process gets with its exec. One that was started before fits as long as another would be started alike."""

    node: str
    log_level: str
    log_format: str
    go_memory_limit: int
    modules: tuple[str, ...] | None = None
    """Imported by a spare worker; None: it is none, its shard waits for it."""
    installed: Installed | None = None
    """The files that a spare worker has loaded."""

    @classmethod
    def of(cls, config: Config) -> LaunchSpec:
        """Of a worker whose shard waits for it."""
        return cls(config.node, config.log.level, config.log.format, config.worker.go_memory_limit)

    def loading(self, modules: tuple[str, ...], files: Installed) -> LaunchSpec:
        """Of a spare worker."""
        return replace(self, modules=modules, installed=files)

    def command(self, channel: int, lifeline: int, log: int) -> list[str]:
        """With these descriptors."""
        return [
            sys.executable,
            "-P",  # no module of the folder in which shardd was started
            "-m",
            "shardd.worker",
            f"--node={self.node}",
            f"--channel={channel}",
            f"--lifeline={lifeline}",
            f"--log={log}",
            f"--log-level={self.log_level}",
            f"--log-format={self.log_format}",
            *([] if self.modules is None else [f"--spare={','.join(self.modules)}"]),
        ]

    def environ(self) -> dict[str, str]:
        """Of the process."""
        return {
            # The DSN of the sessions holds what these variables do; the library refuses to start with some of them.
            **without_libpq(clean_environ(os.environ)),
            # Parallel connects and stops crash the Go library on its unlocked maps when it runs on more than one
            # processor.
            "GOMAXPROCS": "1",
            "GOMEMLIMIT": str(self.go_memory_limit),
            "NEONIZE_BOT_TAG": "off",
            "MALLOC_ARENA_MAX": "2",
        }


class Launched:
    """A worker process that has got no setup yet, and our end of its channel."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.process = process
        self.channel = channel
        self.pidfd = os.pidfd_open(process.pid)

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def signal(self, signum: int) -> None:
        """Nothing happens if it is dead."""
        if self.pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signum)

    def reap(self) -> int:
        """It is dead: returns its exit status."""
        os.close(self.pidfd)
        self.pidfd = -1
        return self.process.wait()


def launch(spec: LaunchSpec, state_dir: Path, stderr: str, lifeline: int) -> Launched:
    """Exec a worker; call it on the main thread. Raises OSError, UnsafeFileError.

    `stderr`: the name of its file; `lifeline`: read end of a pipe whose write end only the supervisor has.
    """
    error_fd, log_fd = open_stderr(state_dir, stderr), os.dup(2)
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            spec.command(theirs.fileno(), lifeline, log_fd),
            env=spec.environ(),
            pass_fds=(theirs.fileno(), lifeline, log_fd),
            stdin=subprocess.DEVNULL,
            # The library prints remarks for people there, amid our lines of JSON; its last errors go to stderr.
            stdout=subprocess.DEVNULL,
            stderr=error_fd,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(error_fd)
        os.close(log_fd)
    return Launched(process, ours)


# ---- stderr


def stderr_of_shard(shard: int) -> str:
    """The name of the file of a shard's worker."""
    return f"shard-{shard:03d}.txt"


def open_stderr(state_dir: Path, name: str) -> int:
    """A descriptor of a file, emptied, to append to. Raises OSError, UnsafeFileError."""
    return open_file(state_dir, f"{STDERR}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)


def rename_stderr(state_dir: Path, name: str, new: str) -> None:
    """The worker that writes to a file has a shard now. Raises OSError, UnsafeFileError."""
    rename_file(state_dir, STDERR, name, new)


def describe_exit(status: int, state_dir: Path, name: str) -> str:
    """An exit status in words, with the last error that the process printed to this file."""
    error = stderr_tail(state_dir, name) if status != 0 else None
    return f"{exit_words(status)}: {error}" if error else exit_words(status)


def exit_words(status: int) -> str:
    """An exit status, or minus the signal that ended a process, in words: `exit code 1`, `SIGKILL`."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:  # a realtime signal
        return f"signal {-status}"


def stderr_tail(state_dir: Path, name: str) -> str | None:
    """The most useful line: the first that names a fatal error, else the last one; None: nothing was printed."""
    try:
        fd = open_file(state_dir, f"{STDERR}/{name}", os.O_RDONLY)
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
