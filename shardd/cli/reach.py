"""Reaching the database from a command.

Without `database:` in the config that is the embedded PostgreSQL: the running one, else one that is started for the command
and stopped after it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from shardd.cli.client import ask
from shardd.cli.output import say
from shardd.config import Config
from shardd.embedded import EmbeddedPostgres, embedded_dsn
from shardd.errors import AlreadyRunningError, DatabaseError, SharddError
from shardd.postgres.errors import has_no_room
from shardd.queue.database import Database
from shardd.supervisor.cluster.server_watch import CONNECTIONS_OPEN

Result = TypeVar("Result")

PATIENCE: Final = 60.0
"""Seconds that one statement of a command may take: a person waits for it, no lease hangs on it."""

LOCK_PATIENCE: Final = 5.0
"""Seconds that one may wait for a lock. The server ends it then, even if nobody waits for the command any more."""


@asynccontextmanager
async def reach_dsn(config: Config, *, make: bool) -> AsyncGenerator[str]:
    """The DSN of a database that answers; `make` says whether an embedded one may come into being by this."""
    if config.database is not None:
        yield config.database.dsn
        return
    if not make:
        embedded_dsn(config.state_dir)  # raises when there is none
    server = EmbeddedPostgres(config.state_dir)
    try:
        dsn = await server.start()
    except AlreadyRunningError:
        yield embedded_dsn(config.state_dir)
        return
    try:
        yield dsn
    finally:
        await server.stop()


def command_pool(config: Config, dsn: str, *, connections: int = 1) -> Database:
    """A pool for a command that a person waits for; `async with` opens it."""
    return Database(
        dsn,
        application_name="shardd/command",
        connect_timeout=config.connect_timeout,
        statement_timeout=PATIENCE,
        max_size=connections + 1,  # and one that sees who blocks them
        session=False,
        lock_timeout=LOCK_PATIENCE,
    )


@asynccontextmanager
async def reach_database(config: Config) -> AsyncGenerator[Database]:
    """A pool on the database. Raises DatabaseError."""
    try:
        async with reach_dsn(config, make=False) as dsn, command_pool(config, dsn) as database:
            yield database
    except DatabaseError as error:
        if has_no_room(error) and (whose := await _whose_connections(config)):
            raise DatabaseError(f"{error}. Now {whose}") from error
        raise


async def _whose_connections(config: Config) -> str | None:
    """Who has the server's connections, if the daemon has seen it."""
    try:
        status = await ask(config.control_socket, "GET", "/status")
    except SharddError:
        return None
    return next((text for text in status["problems"] if CONNECTIONS_OPEN in text), None)


def with_database(config: Config, work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Do `work` on the database, from a program without an event loop. Raises DatabaseError.

    SIGTERM ends the statement that is under way, as ^C does.
    """

    async def run() -> Result:
        task = asyncio.current_task()
        assert task is not None  # this coroutine runs in one
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with reach_database(config) as database:
            return await work(database)

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        say("aborted", err=True)
        raise SystemExit(128 + signal.SIGTERM) from None
