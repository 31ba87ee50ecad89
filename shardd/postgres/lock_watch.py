"""Who keeps a statement waiting for a lock: seen by another connection, and only while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from psycopg.rows import TupleRow, tuple_row

from shardd.errors import DatabaseError
from shardd.postgres.servers import Connection, ask_server
from shardd.postgres.sql_files import queries_of
from shardd.tasks import wait_for_event


class LockWatch:
    """Looks repeatedly at what one backend waits for."""

    def __init__(
        self, backend: int, connect: Callable[[], AbstractAsyncContextManager[Connection]], *, every: float
    ) -> None:
        """`backend`: the server's process that may wait; `connect` lends another connection; `every`: seconds between looks."""
        self.blocker: str | None = None
        """The session that kept the backend waiting when it was looked at last, and the fix."""
        self._backend = backend
        self._connect = connect
        self._every = every
        self._ended = asyncio.Event()

    @staticmethod
    async def backend_of(connection: Connection) -> int:
        """The server's process behind a connection; behind a pooler: in this transaction. Raises psycopg.Error."""
        if not connection.shared:
            return connection.info.backend_pid
        return int((await ask_server(connection, "describe_connection"))[0])

    def end(self) -> None:
        """The wait is over. Does not block: a look that is under way ends by itself."""
        self._ended.set()

    async def run(self) -> None:
        """Look until `end`."""
        while not await wait_for_event(self._ended, self._every):
            try:
                await self._look()
            except DatabaseError:
                return  # the statement that waits reports what is wrong with the database

    async def _look(self) -> None:
        async with self._connect() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(queries_of("shardd.postgres")["describe_blockers"], {"pid": self._backend})
            row = await cursor.fetchone()
        if row is not None and not self._ended.is_set():
            self.blocker = describe_blocker(row)


def describe_blocker(row: TupleRow) -> str:
    """A row of `describe_blockers` in a sentence, with the fix."""
    pid, database, user, application, address, state, age = row
    if pid == 0:
        return (
            "a prepared transaction has it: see pg_prepared_xacts, and end it with COMMIT PREPARED or ROLLBACK PREPARED"
        )
    since = "a transaction, for a time that is hidden (GRANT pg_read_all_stats to the login of shardd),"
    if age is not None:
        since = f"a transaction that has been open for {age:.0f} s"
    named = application and f"application {application!r}"
    parts = [f"pid {pid}", user and f"user {user}", database and f"database {database}", named, address, state]
    who = ", ".join(part for part in parts if part)
    return f"{since} has it ({who}): end it, if need be with SELECT pg_terminate_backend({pid})"
