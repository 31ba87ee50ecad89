"""The connection of a command to the database.

Without `database:` in the config that is the embedded PostgreSQL: the running one, or one started for the command and stopped
after it. For root, one in the state folder of another account must be running.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from shardd.cli.control import ask
from shardd.cli.output import say
from shardd.config import Config
from shardd.embedded import EmbeddedPostgres, embedded_dsn, others_dsn
from shardd.errors import AlreadyRunningError, DatabaseError, SharddError
from shardd.postgres.errors import has_no_room
from shardd.queue.database import Database
from shardd.supervisor.problems import ProblemKind

Result = TypeVar("Result")

STATEMENT_TIMEOUT: Final = 60.0
"""Seconds for one statement of a command: a person waits for it, no lease depends on it."""
LOCK_TIMEOUT: Final = 5.0
"""Seconds that a statement may wait for a lock; the server ends it then, even if the command is gone."""


@asynccontextmanager
async def reach_dsn(config: Config, *, make: bool) -> AsyncGenerator[str]:
    """The DSN of a database that answers; `make`: create the embedded one if it does not exist yet."""
    if config.database is not None:
        yield config.database.dsn
        return
    if not make:
        embedded_dsn(config.state_dir)  # raises when there is none
    if (dsn := others_dsn(config.state_dir)) is not None:
        yield dsn
        return
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
        statement_timeout=STATEMENT_TIMEOUT,
        max_size=connections + 1,  # one more to find out which session blocks the others
        session=False,
        lock_timeout=LOCK_TIMEOUT,
    )


@asynccontextmanager
async def reach_database(config: Config) -> AsyncGenerator[Database]:
    """A pool on the database. Raises DatabaseError."""
    try:
        async with reach_dsn(config, make=False) as dsn, command_pool(config, dsn) as database:
            yield database
    except DatabaseError as error:
        if has_no_room(error) and (problems := await _server_problems(config)):
            raise DatabaseError(f"{error}. {'; '.join(problems)}") from error
        raise


async def _server_problems(config: Config) -> list[str]:
    """What the running daemon, which has connections, reports about the server: who uses up the others."""
    try:
        status = await ask(config.control_socket, "GET", "/status")
    except SharddError:
        return []
    return list(status.get("problems_by_kind", {}).get(ProblemKind.SERVER, []))


def with_database(config: Config, work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Do `work` on the database, from a program without an event loop; SIGTERM cancels it. Raises DatabaseError."""

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
