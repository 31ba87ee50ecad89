"""The benchmark's own PostgreSQL: durable, in a temporary folder that is deleted at the end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import sql
from stormlib.link import Link

from shardd.embedded import EmbeddedPostgres
from shardd.embedded.binaries import find_binaries
from shardd.embedded.home import SOCKET_NAME, Home

REPORTED: Final = (
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_level", "shared_buffers", "max_wal_size",
    "autovacuum_naptime", "jit",
)  # fmt: skip
"""Server settings that are included in the results."""

LOOK_EVERY: Final = 0.02


class Cluster:
    """The embedded server of `shardd start`; every queue gets its own databases in it."""

    def __init__(self, folder: Path, server: EmbeddedPostgres) -> None:
        """`folder`: for what a benchmark writes."""
        self.folder = folder
        self._server = server

    def dsn(self, database: str, role: str = "shardd") -> str:
        """Connection string of a role; `postgres` is the superuser."""
        return self._server.dsn(role, database)

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection of the superuser."""
        return psycopg.connect(self.dsn(database, "postgres"), autocommit=True)

    @asynccontextmanager
    async def database(self, name: str) -> AsyncIterator[str]:
        """The connection string of a new database, owned by the role `shardd`, which is dropped at the end."""
        identifier = sql.Identifier(name)
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER shardd").format(identifier))
        try:
            yield self.dsn(name)
        finally:
            with self.connect() as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))

    def settle_down(self) -> None:
        """Write all dirty pages, so that earlier measurements do not affect the next one."""
        with self.connect() as connection:
            connection.execute("CHECKPOINT")

    def settings(self) -> dict[str, str]:
        """The server settings in REPORTED."""
        with self.connect() as connection:
            return {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in REPORTED}  # type: ignore[index]  # SHOW always has a row

    def open_to_own_account(self) -> Home:
        """Let the server's account log in as the role `shardd`, for a pooler."""
        home = self._server.home
        rows, row = home.folder / "ident.conf", f'shardd "{home.account.name}" "shardd"\n'
        if row not in (known := rows.read_text()):
            home.account.write(rows, known + row)
        with self.connect() as connection:
            connection.execute("SELECT pg_reload_conf()")
        return home

    async def link(self, folder: Path) -> Link:
        """A link from a socket in `folder` to the server's."""
        return await Link.to(self._server.home.folder / SOCKET_NAME, folder / SOCKET_NAME)

    def by_link(self, dsn: str, folder: Path) -> str:
        """The connection string for what is at `dsn`, by that link."""
        return dsn.replace(quote(str(self._server.home.folder), safe=""), quote(str(folder), safe=""))

    def program(self, name: str) -> str | None:
        """The path of a program beside the server's, or in PATH; None if there is none."""
        beside = find_binaries(self._server.home).folder / name
        return str(beside) if beside.exists() else shutil.which(name)

    async def start(self) -> None:
        """Create and start the server."""
        await self._server.start()

    async def crash(self) -> None:
        """End the server at once, as a crash does, and start it again."""
        pid = self._server.pid
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        while not await self._server.restart_if_dead():  # noqa: ASYNC110  # another process's end
            await asyncio.sleep(LOOK_EVERY)

    async def stop(self) -> None:
        """Stop the server."""
        await self._server.stop()


@asynccontextmanager
async def temporary_cluster(settings: Mapping[str, str] | None = None) -> AsyncIterator[Cluster]:
    """A running cluster with these settings, which is deleted at the end."""
    # Short, because a socket path has at most 107 bytes, and accessible for the server's account.
    folder = Path(tempfile.mkdtemp(prefix="shardd-bench-", dir="/tmp"))
    os.chmod(folder, 0o711)  # noqa: PTH101  # one system call; a Path's method would be called blocking here
    cluster = Cluster(folder, EmbeddedPostgres(folder / "server", settings=settings, spare=folder / "spare"))
    try:
        await cluster.start()
        yield cluster
    finally:
        await asyncio.shield(cluster.stop())
        shutil.rmtree(folder)
