"""The connection of a command to the database.

Without `database:` in the config that is the embedded PostgreSQL: the running one, or one started for the command and stopped
after it. For root, one in the state folder of another account must be running.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from shardd.cli.output import say
from shardd.cli.processes import is_being_started
from shardd.cli.running import run_coroutine
from shardd.config import Config
from shardd.control_client import ask, glance
from shardd.embedded import EmbeddedPostgres, embedded_dsn, is_others, is_up, others_dsn
from shardd.errors import AlreadyRunningError, DatabaseError, NotMigratedError, SharddError, UsageError
from shardd.postgres.errors import has_no_room
from shardd.queue.database import Database
from shardd.supervisor.problems import ProblemKind

Result = TypeVar("Result")

QUIET: Final = 1.0
"""Seconds of waiting before it is reported."""
POLL: Final = 0.1
"""Seconds between looks at a shardd that is starting."""
APPEARS: Final = 15.0
"""Seconds in which a shardd that was called just now answers: Python has to load it."""
JOIN_TIMEOUT: Final = 60.0
"""Seconds for another process to start, or to stop, the embedded PostgreSQL."""

STATEMENT_TIMEOUT: Final = 60.0
"""Seconds for one statement of a command: a person waits for it, no lease depends on it."""
LOCK_TIMEOUT: Final = 5.0
"""Seconds that a statement may wait for a lock; the server ends it then, even if the command is gone."""


@asynccontextmanager
async def reach_dsn(config: Config, *, make: bool) -> AsyncGenerator[str]:
    """The DSN of a database that answers, after the start of a shardd that is starting.

    `make`: create the embedded one if it does not exist yet; otherwise that is a NotMigratedError.
    """
    await wait_for_start(config)
    if config.database is not None:
        yield config.database.dsn
        return
    if not make:
        await find_embedded_dsn(config)
    if (dsn := others_dsn(config.state_dir)) is not None:
        yield dsn
        return
    server = EmbeddedPostgres(config.state_dir)
    dsn = await _start_or_join(config, server)
    if dsn is None:
        yield embedded_dsn(config.state_dir)
        return
    try:
        yield dsn
    finally:
        await server.stop()


@asynccontextmanager
async def reach_alone(config: Config) -> AsyncGenerator[str]:
    """The DSN of a database that no other process of this host stops meanwhile: an embedded one is made and started here.

    Raises UsageError when that is not possible now, or not for this account.
    """
    if config.database is not None:
        yield config.database.dsn
        return
    if is_others(config.state_dir):
        raise UsageError(
            f"the embedded database in {config.state_dir} belongs to another account, as which root does not start it: "
            "restore as that account, see the end of: shardd guide backup"
        )
    server = EmbeddedPostgres(config.state_dir)
    try:
        dsn = await server.start()
    except AlreadyRunningError as error:
        raise UsageError(f"{error}: shardd, or another command, such as a restore: repeat when it has ended") from None
    try:
        yield dsn
    finally:
        await server.stop()


async def _start_or_join(config: Config, server: EmbeddedPostgres) -> str | None:
    """The DSN of a server that was started for us; None: it is up, and belongs to another process."""
    began = time.monotonic()
    while True:
        try:
            return await server.start()
        except AlreadyRunningError:
            # Of the daemon, or of another command, which may be starting or stopping it.
            if is_up(config.state_dir):
                return None
            if time.monotonic() > began + JOIN_TIMEOUT:
                raise
        await wait_for_start(config)
        await asyncio.sleep(POLL)


async def find_embedded_dsn(config: Config, role: str = "shardd") -> str:
    """The DSN of the embedded database, after a start that makes it. Raises NotMigratedError when there is none."""
    await wait_for_start(config)
    try:
        return embedded_dsn(config.state_dir, role)
    except NotMigratedError as error:
        if not await _start_follows(config, error):
            raise
    return embedded_dsn(config.state_dir, role)


async def wait_for_start(config: Config) -> None:
    """Wait while a shardd on this host is starting and has no database yet; what it does is reported on stderr."""
    said, began = None, time.monotonic()
    while (status := glance(config.control_socket)) is not None and not status.get("migrated", True):
        if said != status["starting"] and time.monotonic() > began + QUIET:
            said = status["starting"]
            say(f"waiting: shardd is starting ({said})", err=True)
        await asyncio.sleep(POLL)


async def _start_follows(config: Config, error: NotMigratedError) -> bool:
    """Whether a shardd that was called a moment before us has made the database meanwhile."""
    if glance(config.control_socket) is None and is_being_started(config.source):
        say(f"waiting up to {APPEARS:g} s for the shardd that is starting: {error}", err=True)
        deadline = time.monotonic() + APPEARS
        while glance(config.control_socket) is None and is_being_started(config.source) and time.monotonic() < deadline:  # noqa: ASYNC110  # no event announces it
            await asyncio.sleep(POLL)
    if glance(config.control_socket) is None:
        return False
    await wait_for_start(config)
    return True


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
        try:
            async with reach_database(config) as database:
                return await work(database)
        except NotMigratedError as error:
            if not await _start_follows(config, error):
                raise
        async with reach_database(config) as database:
            return await work(database)

    return run_coroutine(run())
