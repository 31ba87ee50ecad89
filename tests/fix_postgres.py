"""A real PostgreSQL for the tests: one cluster per session, one migrated database per test.

The cluster is the embedded one of the product, in a short folder that the server's account can reach also when the tests run as
root. `SHARDD_POSTGRES_BIN` chooses the programs. Writes are not flushed to the disk: no test pulls the plug.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg import sql

from shardd.embedded import EmbeddedPostgres
from shardd.embedded.home import find_home, my_name
from shardd.queue.database import Database
from shardd.queue.migrate import migrate

Result = TypeVar("Result")

TEMPLATE = "migrated"
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "60"}


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on a loop of its own, leaving the test's loop alone."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


class Cluster:
    """The session's PostgreSQL."""

    def __init__(self, state_dir: Path, bin_dir: Path | None = None) -> None:
        self.server = EmbeddedPostgres(state_dir, bin_dir=bin_dir, settings=FAST, spare=state_dir / "spare")
        self._numbers = itertools.count(1)

    def dsn(self, database: str, role: str = "shardd") -> str:
        """Where a role connects to a database; `postgres` is the superuser."""
        return self.server.dsn(role, database)

    def superuser(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn(database, "postgres"), autocommit=True)

    def create_database(self, template: str = "template0", owner: str = "shardd") -> str:
        """Name of a new database."""
        name = f"test_{next(self._numbers)}"
        with self.superuser() as connection:
            self._create(connection, name, template, owner)
        return name

    def drop_database(self, name: str) -> None:
        with self.superuser() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def create_role(self, name: str, *groups: str, login: bool = True) -> str:
        """A role that is a member of `groups`; one with LOGIN may come in as the server's own roles do."""
        names = {"name": sql.Identifier(name), "login": sql.SQL("LOGIN" if login else "NOLOGIN")}
        with self.superuser() as connection:
            connection.execute(sql.SQL("CREATE ROLE {name} {login}").format(**names))
            for group in groups:
                connection.execute(sql.SQL("GRANT {} TO {name}").format(sql.Identifier(group), **names))
        if login:
            self._let_in(name)
        return name

    def drop_role(self, name: str) -> None:
        with self.superuser() as connection:
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))

    def make_template(self) -> None:
        with self.superuser() as connection:
            self._create(connection, TEMPLATE, "template0", "shardd")
        run(migrate(self.dsn(TEMPLATE)))

    async def start(self) -> None:
        await self.server.start()

    async def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back."""
        await self.server.stop()

    async def restart(self) -> None:
        await self.server.stop()
        await self.server.start()

    async def crash(self) -> None:
        """Kill the server as the kernel would, and start it again, which replays its log."""
        pid = self.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert await self.server.restart_if_dead()

    def _let_in(self, role: str) -> None:
        home = self.server.home
        map_file = home.folder / "ident.conf"
        row = f'shardd "{my_name()}" "{role}"\n'
        rows = map_file.read_text()
        if row not in rows:
            home.account.write(map_file, rows + row)
        with self.superuser() as connection:
            connection.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30.0
        while True:  # no event tells that the server has read the file
            try:
                psycopg.connect(self.dsn("shardd", role)).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, f"{role} is not let in"
            else:
                return

    @staticmethod
    def _create(connection: psycopg.Connection[Any], name: str, template: str, owner: str) -> None:
        names = {"name": sql.Identifier(name), "template": sql.Identifier(template), "owner": sql.Identifier(owner)}
        connection.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template} OWNER {owner}").format(**names))


def make_state_dir() -> Path:
    """A short folder that every account can reach; a socket path has 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="shardd-", dir="/tmp"))
    folder.chmod(0o711)
    return folder


def remove_state_dir(folder: Path) -> None:
    """Also where root had to keep the data elsewhere."""
    home = find_home(folder)
    if home is not None and not home.is_relative_to(folder):
        shutil.rmtree(home.parent)
    shutil.rmtree(folder)


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """An empty state folder, in which an embedded PostgreSQL can live too."""
    folder = make_state_dir()
    yield folder
    remove_state_dir(folder)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The session's PostgreSQL, running, with the migrated template."""
    folder = make_state_dir()
    cluster = Cluster(folder)
    try:
        run(cluster.start())
        cluster.make_template()
        yield cluster
    finally:
        run(cluster.stop())
        remove_state_dir(folder)


@pytest.fixture
def postgres(cluster: Cluster) -> Cluster:
    """The session's PostgreSQL, running again should a test have left it stopped."""
    if cluster.server.pid is None:
        run(cluster.start())
    return cluster


@pytest.fixture
def dbname(postgres: Cluster) -> Iterator[str]:
    """A fresh migrated database of this test's own."""
    name = postgres.create_database(TEMPLATE)
    yield name
    if postgres.server.pid is None:
        run(postgres.start())
    postgres.drop_database(name)


@pytest.fixture
def dsn(postgres: Cluster, dbname: str) -> str:
    """The daemon's DSN of this test's database."""
    return postgres.dsn(dbname)


@pytest.fixture
def producer_dsn(postgres: Cluster, dbname: str) -> str:
    """The DSN of a producer: may insert jobs and read outcomes."""
    return postgres.dsn(dbname, "producer")


@pytest.fixture
def make_role(postgres: Cluster) -> Iterator[Callable[..., str]]:
    """Makes roles of the server as `Cluster.create_role` does; they are dropped with the test."""
    made: list[str] = []

    def make(name: str, *groups: str, login: bool = True) -> str:
        made.append(name)
        return postgres.create_role(name, *groups, login=login)

    yield make
    for name in reversed(made):
        postgres.drop_role(name)


@pytest.fixture
def superuser_dsn(postgres: Cluster, dbname: str) -> str:
    """The superuser's DSN of this test's database."""
    return postgres.dsn(dbname, "postgres")


@pytest.fixture
def empty_dsn(postgres: Cluster) -> Iterator[str]:
    """The daemon's DSN of a database without shardd's schema."""
    name = postgres.create_database()
    yield postgres.dsn(name)
    postgres.drop_database(name)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """An open pool on this test's database."""
    async with Database(dsn, application_name="shardd/test") as database:
        yield database
