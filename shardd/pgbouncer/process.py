"""The process: started, watched, redirected to another server, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo

from shardd.file_limit import most_files
from shardd.logs import get_logger
from shardd.pgbouncer.errors import PgBouncerError
from shardd.pgbouncer.folder import Folder, prepare_folder
from shardd.pgbouncer.ini import DATABASE, PORT, USER, Limits, Target, ini_text
from shardd.pgbouncer.output import Output
from shardd.pgbouncer.program import Program
from shardd.postgres.sql_files import queries_of
from shardd.tasks import wait_for_event

log = get_logger(__name__)

START_TIMEOUT: Final = 10.0
STOP_TIMEOUT: Final = 3.0
"""Seconds for what still runs on its server connections."""
CONSOLE_TIMEOUT: Final = 5.0
_POLL: Final = 0.02  # seconds between two looks at a socket or a process, whose changes no event announces
_CONSOLE: Final = "pgbouncer"
_SPARE_FDS: Final = 64
_MOST_FDS: Final = 100_000


class PgBouncer:
    """The PgBouncer of one state folder; it can be started and stopped any number of times, from the main thread."""

    def __init__(self, program: Program, state_dir: Path) -> None:
        """Nothing runs yet. Raises PgBouncerError."""
        self.program = program
        self.target: Target | None = None
        """The server that it connects to."""
        self._folder = prepare_folder(state_dir)
        self._servers = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._output: Output | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it is alive."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def dsn(self) -> str:
        """Of the target, through it; complete, so that no environment changes it."""
        return self._dsn(DATABASE)

    @property
    def most_clients(self) -> int:
        """Connections from clients that it takes."""
        return _most_fds() - self._servers - _SPARE_FDS

    async def start(self, target: Target, *, servers: int) -> None:
        """Start it; returns once it listens. `servers`: connections to the target, at most. Raises PgBouncerError."""
        await self._end_orphan()
        self._servers = servers
        await self._write(target)
        output = self._output = Output()
        try:
            process = self._process = self._folder.account.spawn(
                [self.program.path, str(self._folder.ini)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise PgBouncerError(f"{self.program.path} cannot be started: {error.strerror}") from error
        # Where that is forbidden, as by the unit, the limit is high from the start.
        with contextlib.suppress(OSError):
            resource.prlimit(
                process.pid, resource.RLIMIT_NOFILE, (_most_fds(), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            )
        assert process.stderr is not None
        await output.read(process.stderr)
        await _wait_until(lambda: self.pid is None or _listener(self._folder) is not None, START_TIMEOUT)
        if self.pid is None or _listener(self._folder) != self.pid:
            if self.pid is None:
                await wait_for_event(output.ended, 1.0)
            await self.stop()
            raise PgBouncerError(f"{self.program.path} does not start: {output.last or 'it does not report why'}")
        log.info("PgBouncer started", action="pgbouncer", pid=self.pid, version=self.program.version, servers=servers)

    async def lead_to(self, target: Target) -> None:
        """Connect every client to another server from now on; what goes on at the earlier one is cut off.

        Raises PgBouncerError; then it may still be connected to the earlier one, and has to be stopped.
        """
        await self._write(target)
        await self._command("reload", "kill_sessions", "resume_sessions")

    async def check(self) -> None:
        """Whether it answers. Raises PgBouncerError."""
        await self._command("show_version")

    async def stop(self) -> None:
        """Stop it, if it runs; clients are cut off. If this is cancelled, it can be called again."""
        if (process := self._process) is not None:
            for signum, patience in ((signal.SIGINT, STOP_TIMEOUT), (signal.SIGKILL, STOP_TIMEOUT)):
                if process.poll() is not None:
                    break
                process.send_signal(signum)
                await _wait_until(lambda: process.poll() is not None, patience)
            self._process = None
        if self._output is not None:
            self._output.close()
            self._output = None

    async def close(self) -> None:
        """Stop it for good, and leave no password behind."""
        await self.stop()
        self._folder.remove()

    # ---- inside

    async def _write(self, target: Target) -> None:
        text = ini_text(target, Limits(self._servers, self.most_clients), self._folder.path)
        await asyncio.to_thread(self._folder.write, text)
        self.target = target

    async def _command(self, *names: str) -> None:
        try:
            async with (
                asyncio.timeout(CONSOLE_TIMEOUT),
                await psycopg.AsyncConnection.connect(self._dsn(_CONSOLE), autocommit=True) as console,
            ):
                for name in names:
                    await console.execute(queries_of("shardd.pgbouncer")[name], prepare=False)
        except TimeoutError:
            raise PgBouncerError("it does not answer") from None
        except (psycopg.Error, OSError) as error:
            raise PgBouncerError(f"its console failed: {' '.join(str(error).split())}") from error

    def _dsn(self, database: str) -> str:
        place = make_conninfo(host=str(self._folder.path), port=PORT, user=USER, dbname=database)
        return make_conninfo(place, sslmode="disable", gssencmode="disable", options="")

    async def _end_orphan(self) -> None:
        """What listens here has lost its supervisor, because the lock of the state folder is ours."""
        pid = _listener(self._folder)
        if pid is None:
            return
        if pid == 0:  # to kill(2): our own process group
            raise PgBouncerError(f"a process of another container listens on {self._folder.socket}: stop that one")
        log.warning("ending the PgBouncer of an earlier run", action="pgbouncer", pid=pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        if not await _wait_until(lambda: _listener(self._folder) is None, STOP_TIMEOUT):
            raise PgBouncerError(f"another process (pid {pid}) listens on {self._folder.socket} and does not end")


def _listener(folder: Folder) -> int | None:
    """Process id of who listens on the socket; 0: of another process id namespace (unix(7), pid_namespaces(7))."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONSOLE_TIMEOUT)
        try:
            probe.connect(str(folder.socket))
        except OSError:
            return None
        # Of the process that called listen (unix(7), SO_PEERCRED: struct ucred).
        answer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", answer)
    return int(pid)


def _most_fds() -> int:
    return min(most_files(), _MOST_FDS)


async def _wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Whether it was done in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not done():
        if loop.time() > deadline:
            return False
        await asyncio.sleep(_POLL)
    return True
