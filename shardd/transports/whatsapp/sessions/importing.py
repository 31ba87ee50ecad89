"""Adopting the sessions of another whatsmeow store in PostgreSQL, without pairing the phones again.

Rows are copied unchanged, table by table, in one transaction: all of the chosen sessions or none. Columns that only one side
has keep their defaults, so the store of a somewhat older library works. The program that used the sessions before must be
stopped first: two programs on one session replace each other for ever. A session that is moved is also deleted where it was, and
only as it was copied: what a client still changed there would be missing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql as composing

from shardd.errors import DatabaseError
from shardd.postgres.sql_files import query_text
from shardd.transports.whatsapp.sessions.store import SessionStore, StoreConnection, StoredSession, connect

NO_STORE: Final = (
    "has no table whatsmeow_device: name the database in which the other program keeps its sessions, and the schema, if that "
    "is not public: postgresql://…/NAME?options=-csearch_path%3DSCHEMA"
)
SESSIONS: Final = "shardd.transports.whatsapp.sessions"
"""Whose statements these are."""
COPY_TIMEOUT: Final = 600.0
"""Seconds that copying one table may take."""
Statement = composing.SQL | composing.Composed


@dataclass(frozen=True, slots=True)
class Table:
    """One of the library's tables. `session_column` None: its rows belong to no session."""

    session_column: str | None
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import would do: sessions to copy, and those already present."""

    new: tuple[StoredSession, ...]
    present: tuple[StoredSession, ...]


async def plan_import(source_dsn: str, target_dsn: str) -> ImportPlan:
    """Compare both stores; changes nothing. Raises DatabaseError that names the store."""
    here = {session.jid for session in await _sessions(SessionStore(target_dsn), "the session store")}
    there = await _sessions(SessionStore(source_dsn, foreign=True), "the store to import from")
    return ImportPlan(
        new=tuple(session for session in there if session.jid not in here),
        present=tuple(session for session in there if session.jid in here),
    )


async def import_sessions(source_dsn: str, target_dsn: str, jids: list[str]) -> int:
    """Copy these sessions with all their rows, all or nothing; returns the number of rows. Raises DatabaseError."""
    try:
        async with (
            await connect(source_dsn, timeout=COPY_TIMEOUT, foreign=True) as source,
            await connect(target_dsn, timeout=COPY_TIMEOUT) as target,
            target.transaction(),
        ):
            return await _copy(source, target, await _tables(source), jids)
    except psycopg.Error as error:
        raise DatabaseError(f"nothing was imported: {' '.join(str(error).split())}") from error


async def move_session(
    source_dsn: str, target_dsn: str, jid: str, sure: Callable[[], AbstractAsyncContextManager[None]]
) -> bool:
    """Copy a session and delete it where it was; False when it is not there (any more). Raises DatabaseError.

    `sure`: entered before it is deleted there, when it is here already; what it raises leaves it in both. Of each row the
    deletion must find what was copied, or it fails. May be repeated.
    """
    try:
        async with (
            await connect(source_dsn, timeout=COPY_TIMEOUT) as source,
            await connect(target_dsn, timeout=COPY_TIMEOUT) as target,
        ):
            await source.set_autocommit(False)
            await source.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            tables = await _tables(source)
            if not tables or not await _is_stored(source, jid):
                return False
            # Some tables have the account instead of the session.
            owners = [jid, f"{jid.partition('@')[0].partition(':')[0]}@{jid.partition('@')[2]}"]
            async with target.transaction():
                await _delete(target, await _tables(target), owners)
                await _copy(source, target, tables, owners)
            async with sure():
                await _delete_as_copied(source, tables, owners)
            return True
    except psycopg.Error as error:
        raise DatabaseError(f"the session was not moved: {' '.join(str(error).split())}") from error


async def _is_stored(store: StoreConnection, jid: str) -> bool:
    found = await store.execute(query_text(SESSIONS, "session_digest"), {"jid": jid})
    return await found.fetchone() is not None


async def _copy(
    source: StoreConnection, target: StoreConnection, theirs: Mapping[str, Table], owners: list[str]
) -> int:
    rows = 0
    for name, table in (await _tables(target)).items():
        if name in theirs and table.session_column is not None:
            rows += await _copy_table(source, target, name, _shared(theirs[name], table), owners)
    if "whatsmeow_lid_map" in theirs:
        await _merge_numbers(source, target)
    return rows


async def _delete_as_copied(source: StoreConnection, tables: Mapping[str, Table], owners: list[str]) -> None:
    """End the transaction that has read the rows with their deletion. Raises DatabaseError if one of them has changed since."""
    try:
        await _delete(source, tables, owners)
        await source.commit()
    except psycopg.errors.SerializationFailure as error:
        text = "the session was changed while it was moved, so a client of it is open: nothing was deleted; repeat the move"
        raise DatabaseError(text) from error


async def _delete(store: StoreConnection, tables: Mapping[str, Table], owners: list[str]) -> None:
    """The sessions' own table last: what it cascades to has come since."""
    for name, table in reversed(list(tables.items())):
        if table.session_column is not None:
            parts = {"table": composing.Identifier(name), "session_column": composing.Identifier(table.session_column)}
            statement = composing.SQL(query_text(SESSIONS, "delete_rows")).format(
                **parts, sessions=composing.Literal(owners)
            )
            await store.execute(statement)


async def _sessions(store: SessionStore, which: str) -> list[StoredSession]:
    try:
        return await store.list_sessions()
    except DatabaseError as error:
        if isinstance(error.__cause__, psycopg.errors.UndefinedTable) and store.foreign:
            raise DatabaseError(f"{which} {NO_STORE}") from error
        raise DatabaseError(f"{which}: {error}") from error
    finally:
        await store.close()


async def _tables(connection: StoreConnection) -> dict[str, Table]:
    rows = await (await connection.execute(query_text(SESSIONS, "describe_tables"))).fetchall()
    return {row["table_name"]: Table(row["session_column"], tuple(row["columns"])) for row in rows}


def _shared(theirs: Table, ours: Table) -> Table:
    return Table(theirs.session_column, tuple(column for column in ours.columns if column in theirs.columns))


async def _copy_table(
    source: StoreConnection, target: StoreConnection, name: str, table: Table, jids: list[str]
) -> int:
    if table.session_column is None:
        return 0
    parts = {
        "table": composing.Identifier(name),
        "columns": composing.SQL(", ").join(map(composing.Identifier, table.columns)),
    }
    selected = {"session_column": composing.Identifier(table.session_column), "sessions": composing.Literal(jids)}
    outward = composing.SQL(query_text(SESSIONS, "copy_sessions_out")).format(**parts, **selected)
    return await _pipe(
        source,
        outward,
        target,
        composing.SQL(query_text(SESSIONS, "copy_rows_in")).format(**parts),
    )


async def _merge_numbers(source: StoreConnection, target: StoreConnection) -> None:
    await target.execute(query_text(SESSIONS, "stage_numbers"))
    outward, inward = (
        composing.SQL(query_text(SESSIONS, "copy_numbers_out")),
        composing.SQL(query_text(SESSIONS, "copy_numbers_in")),
    )
    await _pipe(source, outward, target, inward)
    await target.execute(query_text(SESSIONS, "merge_numbers"))


async def _pipe(source: StoreConnection, outward: Statement, target: StoreConnection, inward: Statement) -> int:
    async with source.cursor() as reading, target.cursor() as writing:
        async with reading.copy(outward) as rows, writing.copy(inward) as sink:
            async for data in rows:
                await sink.write(data)
        return writing.rowcount
