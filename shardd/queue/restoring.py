"""A database that was restored from a backup: what would be done twice is ended before anything runs on it.

The database does not know what happened after the backup was made. Jobs that waited may have been sent, and so may those in
flight, whatever the journals of the state folders say: these have been emptied since. Ids that were given since must not be given
again, because programs know them.

States: closed (`closed`), so that no daemon works on it, until everything is done. An interruption leaves it closed. Sessions
that began before it was closed may write all the same: while shardd has one, nothing is restored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

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
from shardd.queue.jobs import JobAdmin, Traits

SKIPPED_IDS: Final = 10_000_000
"""More than are given between two backups."""
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
    shardd, and DatabaseError.
    """
    options = f"{parse_dsn(dsn).get('options') or ''} -c default_transaction_read_only=off".strip()
    writing = make_conninfo(dsn, options=options)
    async with _connection(writing) as connection:
        name = connection.info.dbname
        found = await (await connection.execute(QUERIES["has_schema"])).fetchone()
        if found is not None and found[0]:
            raise UsageError(
                f"the database {name} has tables of shardd, and nothing is overwritten: restore into an empty database, see: "
                "shardd guide backup"
            )
        await connection.execute(_naming("close_database", name))
        if others := await _earlier_sessions(connection):
            await connection.execute(_naming("open_database", name))
            raise UsageError(f"shardd runs: the database {name} has sessions of {others}: stop it on every host first")
    yield writing
    # On a new connection: one that is idle while a large database is restored may be lost.
    async with _connection(writing) as connection:
        await connection.execute(_naming("open_database", name))


async def _earlier_sessions(connection: psycopg.AsyncConnection[TupleRow]) -> str:
    """The sessions of shardd that began before the database was closed, and do not end; empty: none."""
    moment = await (await connection.execute(QUERIES["this_moment"])).fetchone()
    assert moment is not None  # a SELECT without FROM has one row
    names: list[str] = []
    for look in range(_LOOKS):
        await asyncio.sleep(_BETWEEN_LOOKS if look else 0.0)
        rows = await (await connection.execute(QUERIES["earlier_sessions"], {"moment": moment[0]})).fetchall()
        names = [row[0] for row in rows]
        if not names:
            break
    return ", ".join(names)


@asynccontextmanager
async def _connection(dsn: str) -> AsyncGenerator[psycopg.AsyncConnection[TupleRow]]:
    """Raises DatabaseError, also for what fails within the block."""
    try:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=_TIMEOUT) as connection:
            yield connection
    except (psycopg.Error, OSError) as error:
        raise describe_error(error, dsn) from error


def _naming(query: str, database: str) -> sql.Composed:
    return sql.SQL(query_text("shardd.queue", query)).format(database=sql.Identifier(database))


async def server_major(dsn: str) -> int:
    """The major version of the server. Raises DatabaseError."""
    async with _connection(dsn) as connection:
        return connection.info.server_version // 10_000


async def end_what_may_be_done(database: Database) -> Ended:
    """End what may have been done after the backup. Raises DatabaseError; it may be repeated."""
    in_flight = int(await database.value("disown_claims", {}))
    await database.execute("skip_ids", {"skip": SKIPPED_IDS})
    waiting = await JobAdmin(database).cancel_all(Traits(), _WHY)
    return Ended(waiting, in_flight)
