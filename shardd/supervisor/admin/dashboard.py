"""The process of the web page: `python -m shardd.dashboard`, started by the first connection and watched.

The supervisor owns the listening socket and hands it down, so an address in use shows at the start, nobody else gets the port
while the process is started again, and a page that nobody opens costs nothing. The process has database connections of its own;
it asks this node's control socket for what only the supervisor knows.

What it needs to know goes through its stdin, which stays open, as a line of JSON: another one when the config was read again, so
that who may use the page changes at once. At its end, the process ends. It writes a line to its stdout
every `BEAT` seconds; one that is silent while the supervisor runs is killed. After a crash, the next one is started by the next
connection, after a growing pause.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import msgspec

from shardd.backoff import full_jitter
from shardd.config import Config
from shardd.config.values.network import split_address
from shardd.logs import get_logger
from shardd.pairing.context import SessionSettings, session_settings
from shardd.supervisor.admin.sign_in_links import SignInLinks
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.services import Service
from shardd.supervisor.silence import Silence
from shardd.supervisor.systemd import clean_environ
from shardd.supervisor.workers.launch import exit_words
from shardd.tasks import end_tasks, uncancelled

log = get_logger(__name__)

BEAT: Final = 2.0
"""Seconds between signs of life."""
SILENT: Final = 30.0
"""Seconds of silence after which the process is killed."""
ENDS: Final = 3.0
"""Seconds in which the process ends when its stdin does."""
BACKLOG: Final = 64
RETRY_FIRST, RETRY_CAP = 0.5, 60.0
"""Seconds until a process that crashed is replaced, after the first and after many crashes."""
STABLE: Final = 60.0
"""Seconds after which a process has not crashed at once."""
SHOWN_FOR: Final = 300.0
"""Seconds for which a crash is a problem."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may use the page; see `DashboardUserConfig`."""

    password: str | None
    """The hash."""
    role: str

    def __repr__(self) -> str:
        return f"User(role={self.role!r})"


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Who may use the page; see `DashboardConfig`."""

    listen: str
    origin: str | None = None
    trusted_header: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    trusted_role: str | None = None
    users: dict[str, User] = {}


class DashboardSetup(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told."""

    node: str
    dsn: str
    connect_timeout: float
    statement_timeout: float
    """Seconds."""
    control_socket: str
    log_level: str
    log_format: str
    access: Access
    links_key: bytes
    """Of the marks of sign-in links."""
    sessions: SessionSettings
    """For pairing."""

    def __repr__(self) -> str:
        return f"DashboardSetup(node={self.node!r})"  # the DSN has a password


class Dashboard(Service):
    """Listens, and runs the process."""

    def __init__(self, config: Config, dsn: str, sessions_dsn: str) -> None:
        self._config = config
        self.links = SignInLinks()
        self._setup = DashboardSetup(
            node=config.node,
            dsn=dsn,
            connect_timeout=config.connect_timeout,
            statement_timeout=config.statement_timeout,
            control_socket=str(config.control_socket),
            log_level=config.log.level,
            log_format=config.log.format,
            access=_access(config),
            links_key=self.links.key,
            sessions=session_settings(config, sessions_dsn),
        )
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        self._not_listening: str | None = None
        self._crash: str | None = None
        self._crashed_at = 0.0
        self._crashes = 0

    def configure(self, config: Config) -> None:
        """Let a new config decide who may use the page, and how phones are linked."""
        sessions = session_settings(config, self._setup.sessions.store)
        setup = msgspec.structs.replace(self._setup, access=_access(config), sessions=sessions)
        if setup == self._setup:
            return
        self._setup = setup
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(
                self._line()
            )  # of a process that has just ended, the pipe is closed, and this is dropped

    @property
    def url(self) -> str | None:
        """Where it listens; None: nowhere."""
        return None if self._socket is None else f"http://{self._config.dashboard.listen}/"

    @property
    def site(self) -> str | None:
        """Where browsers find it; None: nowhere."""
        origin = self._setup.access.origin
        return self.url if self._socket is None or origin is None else f"{origin}/"

    async def start(self) -> None:
        """Listen. An address that cannot be used is a note, because nothing that is sent depends on it."""
        address = self._config.dashboard.listen
        if address is None or self._socket is not None:
            return
        host, port = split_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen(BACKLOG)
            listening.setblocking(False)
        except OSError as error:
            listening.close()
            why = os.strerror(error.errno or 0)
            self._not_listening = f"no dashboard: dashboard.listen {address}: {why}: choose another port, or null"
            log.warning("the dashboard cannot listen", action="dashboard", address=address, error=why)
            return
        self._socket = listening

    async def serve(self) -> None:
        """Start the process when somebody connects, again and again."""
        if self._socket is None:
            await asyncio.Event().wait()
            return
        while True:
            await _connection(self._socket)
            began = time.monotonic()
            how = await self._run(self._socket)
            self._crashes = 1 if time.monotonic() - began > STABLE else self._crashes + 1
            self._crash, self._crashed_at = how, time.monotonic()
            log.error("the dashboard's process ended", action="dashboard", how=how, crashes=self._crashes)
            await asyncio.sleep(full_jitter(self._crashes, RETRY_FIRST, RETRY_CAP))

    def problems(self) -> Iterator[Problem]:
        """See `shardd.supervisor.problems`."""
        if self._crash is not None and self._crashes > 1 and time.monotonic() < self._crashed_at + SHOWN_FOR:
            yield Problem(
                ProblemKind.DASHBOARD, f"the dashboard's process has ended {self._crashes} times: {self._crash}"
            )

    def notes(self) -> list[str]:
        """What an operator should know."""
        return [] if self._not_listening is None else [self._not_listening]

    async def close(self) -> None:
        """Stop listening."""
        listening, self._socket = self._socket, None
        if listening is not None:
            listening.close()

    async def _run(self, listening: socket.socket) -> str:
        """Run one process until it ends; returns how it did."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # no module of the folder in which shardd was started
            "-m",
            "shardd.dashboard",
            f"--listen={listening.fileno()}",
            env=clean_environ(os.environ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(listening.fileno(),),
        )
        log.info("the dashboard's process runs", action="dashboard", pid=process.pid)
        beats = asyncio.create_task(self._watch(process))
        try:
            assert process.stdin is not None
            with suppress(ConnectionError):
                process.stdin.write(self._line())
                self._process = process
                await process.stdin.drain()
            status = await process.wait()
            if not beats.done():
                await asyncio.wait([beats], timeout=ENDS)
            return "it hung" if beats.done() and beats.result() else exit_words(status)
        finally:
            self._process = None
            await end_tasks([beats])
            await uncancelled(_end(process))

    def _line(self) -> bytes:
        return msgspec.json.encode(self._setup) + b"\n"

    async def _watch(self, process: asyncio.subprocess.Process) -> bool:
        """Kill it when it is silent; returns whether it was."""
        assert process.stdout is not None
        silence = Silence(counts=BEAT)
        hears = asyncio.create_task(_hear(process.stdout, silence))
        try:
            while silence.look() < SILENT:
                await asyncio.wait([hears], timeout=BEAT / 2)
                if hears.done():
                    return False
        finally:
            await end_tasks([hears])
        with suppress(ProcessLookupError):
            process.kill()
        return True


async def _hear(stdout: asyncio.StreamReader, silence: Silence) -> None:
    """Until it says nothing any more."""
    while await stdout.readline():
        silence.end()


def _access(config: Config) -> Access:
    page = config.dashboard
    return Access(
        listen=page.listen or "",
        origin=page.origin,
        trusted_header=page.trusted_header,
        trusted_proxies=page.trusted_proxies or (),
        trusted_role=page.trusted_role,
        users={name: User(password=user.password, role=user.role) for name, user in page.users.items()},
    )


async def _connection(listening: socket.socket) -> None:
    """Wait until somebody connects."""
    came = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(listening, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(listening)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Have it end, by the end of its stdin, or by force."""
    if process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(ENDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
