"""The storm's PostgreSQL: a primary and a synchronous standby, either of which can be the other.

With a synchronous standby a fail-over loses nothing that was confirmed, so nothing may be lost or repeated. The standby is made
by a backup of the running primary, with SQL and tar: not every PostgreSQL comes with pg_basebackup.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg

from shardd.embedded.home import Home
from shardd.queue.migrate import migrate
from stormlib.node import send
from tests.support.servers import Server

SETTINGS = {"max_connections": "200", "logging_collector": "on", "log_lock_waits": "on", "max_wal_size": "256MB"}
"""`logging_collector`: nobody reads the servers' stderr."""
LIMIT = 60.0
"""Seconds in which a step must end: a start, a promotion, a standby that catches up."""
LOOK_EVERY = 0.05


class Databases:
    """Two servers with the database `shardd`; `primary` and `standby` change with each fail-over."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.promoted: Callable[[int], Awaitable[None]] | None = None
        """Is told the port of a new primary."""
        self.servers = [Server(home, home.folder / f"data-{number}", settings=dict(SETTINGS)) for number in (1, 2)]
        self._first = 0

    @property
    def primary(self) -> Server:
        """The one that accepts writes."""
        return self.servers[self._first]

    @property
    def standby(self) -> Server:
        """The other one."""
        return self.servers[1 - self._first]

    def dsn(self, user: str = "shardd") -> str:
        """Both servers, without a link in between."""
        return dsn_of([server.port for server in self.servers], user)

    async def start(self) -> None:
        """Make the primary with a migrated database, and the standby."""
        await asyncio.to_thread(self.primary.make)
        await self.start_server(self.primary)
        await self.execute("CREATE ROLE shardd LOGIN CREATEROLE")
        await self.execute("CREATE DATABASE shardd OWNER shardd")
        await migrate(self.dsn())
        await self.execute("CREATE ROLE producer LOGIN IN ROLE shardd_producer")
        await self.rebuild_standby()

    async def stop(self) -> None:
        """End both."""
        for server in self.servers:
            for pid in processes_of(server):
                send(pid, signal.SIGCONT)
            await asyncio.to_thread(server.stop, signal.SIGQUIT)

    async def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute a statement on the primary as superuser."""
        return await asyncio.to_thread(self.primary.execute, statement, database=database)

    async def start_server(self, server: Server) -> None:
        """Start one and wait until it answers."""
        server.start(wait=False)  # on this thread: the server ends with the thread that started it
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                await asyncio.to_thread(server.execute, "SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(LOOK_EVERY)
            else:
                return

    async def stop_server(self, server: Server, signum: int = signal.SIGINT) -> None:
        """SIGINT: a fast shutdown; SIGQUIT: an immediate one, as in a crash."""
        await asyncio.to_thread(server.stop, signum)

    async def fail_over(self, behind: float = 0.0) -> None:
        """Crash the primary and promote the standby, which has everything that was confirmed until `behind` seconds before."""
        await self.wait_synchronous()
        if behind:
            await asyncio.to_thread(partial(self._set_synchronous, self.primary, wanted=False))
            await asyncio.to_thread(self.standby.stop_following)
            await asyncio.sleep(behind)
        await self.stop_server(self.primary, signal.SIGQUIT)
        await asyncio.to_thread(partial(self._set_synchronous, self.standby, wanted=False))
        await asyncio.to_thread(self.standby.promote)
        self._first = 1 - self._first
        if self.promoted is not None:
            await self.promoted(self.primary.port)

    async def rebuild_standby(self) -> None:
        """Make the standby anew from the running primary, and let commits wait for it from then on."""
        await asyncio.to_thread(self._copy)
        self.standby.follow(self.primary)
        await self.start_server(self.standby)
        await asyncio.to_thread(partial(self._set_synchronous, self.primary, wanted=True))
        await self.wait_synchronous()

    async def wait_synchronous(self) -> None:
        """Wait until commits wait for the standby, and it has everything. Raises TimeoutError."""
        query = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"
        async with asyncio.timeout(LIMIT):
            while not await self.execute(query):  # noqa: ASYNC110  # another process's state
                await asyncio.sleep(LOOK_EVERY)
        await asyncio.to_thread(self.standby.wait_caught_up, self.primary)

    async def set(self, name: str, value: str | None) -> None:
        """Change a setting of the primary; None: back to what it was."""
        change = f"RESET {name}" if value is None else f"SET {name} = '{value}'"
        await self.execute(f"ALTER SYSTEM {change}")
        await self.execute("SELECT pg_reload_conf()")

    @staticmethod
    def _set_synchronous(server: Server, *, wanted: bool) -> None:
        server.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{'*' if wanted else ''}'")
        server.execute("SELECT pg_reload_conf()")

    def _copy(self) -> None:
        source, target, run = str(self.primary.data), str(self.standby.data), self.home.account.run
        for words in (("rm", "-rf", target), ("mkdir", "-m", "700", target)):
            status, said = run(["/usr/bin/env", *words])
            assert status == 0, said
        with psycopg.connect(self.primary.dsn("postgres", "postgres"), autocommit=True) as connection:
            old = connection.info.server_version < 150000
            begin, end = ("pg_start_backup", "pg_stop_backup") if old else ("pg_backup_start", "pg_backup_stop")
            connection.execute(f"SELECT {begin}('storm', true{', false' if old else ''})")
            leave = ("postmaster.pid", "postmaster.opts", "standby.signal", "pg_wal/*", "pg_replslot/*", "log/*")
            copy = (
                f"tar -C '{source}' {' '.join(f'--exclude=./{one}' for one in leave)} -cf - . | tar -C '{target}' -xf -"
            )
            # Files may vanish meanwhile: what counts is whether the copy starts.
            run(["/bin/sh", "-c", copy])
            ((label,),) = connection.execute(f"SELECT labelfile FROM {end}({'false, ' if old else ''}false)").fetchall()
        self.home.account.write(self.standby.data / "backup_label", label)


def dsn_of(ports: list[int], user: str = "shardd", *, host: str = "127.0.0.1") -> str:
    """A DSN that names several servers of one host."""
    return f"postgresql://{user}@{','.join(f'{host}:{port}' for port in ports)}/shardd?sslmode=disable"


def processes_of(server: Server) -> list[int]:
    """The server's process and its children."""
    if server.process is None or server.process.poll() is not None:
        return []
    pid = server.process.pid
    found = [pid]
    with suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:  # noqa: PTH123  # of the kernel
        found += [int(child) for child in children.read().split()]
    return found
