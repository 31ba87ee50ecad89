"""A database that was restored from a backup: what would be done twice is ended before anything runs on it.

The database does not know what happened after the backup was made. Jobs that waited may have been sent, and so may those in
flight, whatever the journals of the state folders say: these have been emptied since. Ids that were given since must not be given
again, because programs know them.

States: closed (`closed`), so that no daemon works on it, until everything is done. An interruption leaves it closed. Sessions
that began before it was closed may write all the same: while shardd has one, nothing is restored. Of two restores at once at most
one goes on: each looks for the other after it has a session itself, and before it closes anything.

That nothing was sent since cannot be proved, but often be refuted (`sent_since`): a daemon that is stopped gives its leases back,
and the state folder knows the last start on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from shardd.errors import UsageError
from shardd.postgres.dsn import parse_dsn
from shardd.postgres.errors import describe_error
from shardd.postgres.sql_files import query_text
from shardd.queue.columns import QUERIES
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.state_files import Start

SKIPPED_IDS: Final = 10_000_000
"""More than are given between two backups."""
NAME: Final = "shardd/restore"
"""Application name of the sessions of a restore."""
_WHY: Final = "it waited when the backup was made, from which the database was restored, and may have been sent since"
_TIMEOUT: Final = 10
_LOOKS: Final = 10
_BETWEEN_LOOKS: Final = 0.3
"""Seconds: sessions of a daemon that was just stopped end within a moment."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What was ended."""

    waiting: int
    """Jobs that are cancelled."""
    in_flight: int
    """Jobs that become in doubt as soon as a daemon runs."""


@asynccontextmanager
async def closed(dsn: str) -> AsyncGenerator[str]:
    """A database without a schema of shardd, closed to all but the given DSN for this block.

    It is opened at the end, unless an error ends the block. Raises UsageError when there is such a schema, or a session of
    shardd, and DatabaseError; then it is as it was.
    """
    options = f"{parse_dsn(dsn).get('options') or ''} -c default_transaction_read_only=off".strip()
    writing = make_conninfo(dsn, options=options, application_name=NAME)
    with _described(writing):
        guard = await _connect(writing)
    # It stays for the whole block, so that another restore finds it.
    try:
        with _described(writing):
            await _close(guard)
        yield writing
        # On a new connection: one that is idle while a large database is restored may be lost.
        async with _connection(writing) as connection:
            await connection.execute(_naming("open_database", connection.info.dbname))
    finally:
        await guard.close()


async def _close(guard: psycopg.AsyncConnection[TupleRow]) -> None:
    name = guard.info.dbname
    await _refuse_tables(guard, name)
    if await _earlier_sessions(guard, like=NAME):
        raise UsageError(f"another `shardd db restore` works on the database {name}: wait until it has ended")
    was_closed = await _value(guard, "is_closed")
    await guard.execute(_naming("close_database", name))
    try:
        await _refuse_sessions(guard, name)
        await _refuse_tables(guard, name)  # a daemon may have migrated it meanwhile
    except BaseException:
        if not was_closed:
            with suppress(psycopg.Error):
                await guard.execute(_naming("open_database", name))
        raise


async def _refuse_sessions(connection: psycopg.AsyncConnection[TupleRow], name: str) -> None:
    if others := await _earlier_sessions(connection, like="shardd%", but=NAME):
        raise UsageError(f"shardd runs: the database {name} has sessions of {others}: stop it on every host first")


async def _refuse_tables(connection: psycopg.AsyncConnection[TupleRow], name: str) -> None:
    if await _value(connection, "has_schema"):
        raise UsageError(
            f"the database {name} has tables of shardd, and nothing is overwritten: restore into an empty database, see: "
            "shardd guide backup"
        )


async def _value(connection: psycopg.AsyncConnection[TupleRow], query: str) -> Any:
    """Of a query that returns one row with one column."""
    row = await (await connection.execute(QUERIES[query])).fetchone()
    assert row is not None
    return row[0]


async def _earlier_sessions(connection: psycopg.AsyncConnection[TupleRow], *, like: str, but: str = "") -> str:
    """Other sessions with such an application name that began before now, and do not end; empty: none."""
    moment = await _value(connection, "this_moment")
    names: list[str] = []
    for look in range(_LOOKS):
        await asyncio.sleep(_BETWEEN_LOOKS if look else 0.0)
        params = {"like": like, "but": but, "moment": moment}
        rows = await (await connection.execute(QUERIES["earlier_sessions"], params)).fetchall()
        names = [row[0] for row in rows]
        if not names:
            break
    return ", ".join(names)


async def _connect(dsn: str) -> psycopg.AsyncConnection[TupleRow]:
    return await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=_TIMEOUT)


@contextmanager
def _described(dsn: str) -> Iterator[None]:
    """Raises DatabaseError for what fails within the block."""
    try:
        yield
    except (psycopg.Error, OSError) as error:
        raise describe_error(error, dsn) from error


@asynccontextmanager
async def _connection(dsn: str) -> AsyncGenerator[psycopg.AsyncConnection[TupleRow]]:
    """Raises DatabaseError, also for what fails within the block."""
    with _described(dsn):
        async with await _connect(dsn) as connection:
            yield connection


def _naming(query: str, database: str) -> sql.Composed:
    return sql.SQL(query_text("shardd.queue", query)).format(database=sql.Identifier(database))


async def server_major(dsn: str) -> int:
    """The major version of the server. Raises DatabaseError."""
    async with _connection(dsn) as connection:
        return connection.info.server_version // 10_000


async def sent_since(dsn: str, last_start: Start | None) -> str | None:
    """Why something may have been sent after the backup, from which this database was restored; None: nothing shows it.

    `last_start`: of this host's state folder. Raises DatabaseError.
    """
    async with _connection(dsn) as connection:
        holder = await (await connection.execute(QUERIES["lease_holder"])).fetchone()
        if holder is not None:
            return (
                f"shardd was running when the backup was made, or had been killed: node {holder[0]} had shards until "
                f"{holder[1]:%Y-%m-%d %H:%M:%S %Z}"
            )
        if last_start is None:
            return None
        params = {"id": last_start.state, "incarnation": last_start.incarnation}
        if await (await connection.execute(QUERIES["earlier_run"], params)).fetchone() is not None:
            return f"shardd was started on state_dir {last_start.state_dir} after the backup was made"
    return None


async def end_what_may_be_done(database: Database) -> Ended:
    """End what may have been done after the backup. Raises DatabaseError; it may be repeated."""
    in_flight = int(await database.value("disown_claims", {}))
    await database.execute("skip_ids", {"skip": SKIPPED_IDS})
    waiting = await JobAdmin(database).cancel_all(Traits(), _WHY)
    return Ended(waiting, in_flight)
