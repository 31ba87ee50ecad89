"""Creates the library's tables, once, before any worker starts.

The library makes its tables while it connects, without a lock: two processes on an empty database fail with duplicate keys.
So one child process does only that, under a lock.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import sql as composing

from shardd.errors import DatabaseError, SharddError
from shardd.postgres.errors import describe_error
from shardd.postgres.sql_files import query_text
from shardd.transports.whatsapp import oneshot
from shardd.transports.whatsapp.sessions.dsn import library_dsn
from shardd.transports.whatsapp.sessions.store import StoreConnection, connect

TIMEOUT: Final = 60.0
MODULE: Final = "shardd.transports.whatsapp.sessions.setup"


async def prepare_store(dsn: str, *, pgbouncer: bool = False) -> None:
    """Create what is missing of the session store's schema and tables.

    `dsn`: as psycopg reads it. Takes about a second, in a child process. Raises DatabaseError.
    """
    request = {"dsn": dsn, "pgbouncer": pgbouncer}
    try:
        event = [event async for event in oneshot.converse(MODULE, request, timeout=TIMEOUT)][-1]
    except SharddError as error:
        raise DatabaseError(f"the session store cannot be prepared: {error}") from error
    if event["event"] != "ready":
        raise DatabaseError(f"the session store cannot be prepared: {event['reason']}")


async def _prepare(request: dict[str, Any], report: oneshot.Report) -> None:
    dsn = request["dsn"]
    try:
        async with (
            await connect(dsn, timeout=TIMEOUT) as locked,
            await connect(dsn, timeout=TIMEOUT) as other,
            locked.transaction(),
        ):
            # The library is another client and sees only what is committed: so not in the locked transaction.
            await make_lock(other)
            await locked.execute(query_text("shardd.transports.whatsapp.sessions", "lock_store"))
            _make_tables(library_dsn(dsn, pgbouncer=request["pgbouncer"]))
            found = await (
                await other.execute(query_text("shardd.transports.whatsapp.sessions", "has_tables"))
            ).fetchone()
            if found is None or not found["found"]:
                raise DatabaseError("the library made its tables elsewhere: does the search path lead to one schema?")
    except psycopg.Error as error:
        raise describe_error(error, dsn) from error
    report({"event": "ready"})


async def make_lock(connection: StoreConnection) -> None:
    """Create the schema and the table that is locked while the library makes its own; several may do so at once."""
    # Of two that create the same at once, the second fails after the first has committed. A transaction, so that only the one
    # that has created the schema closes it: of two that revoke at once, one fails.
    with suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateSchema):
        await _make_schema(connection)
    # (A table comes with a type of its name, which may be the duplicate.)
    with suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject):
        await connection.execute(query_text("shardd.transports.whatsapp.sessions", "create_lock"))


async def _make_schema(connection: StoreConnection) -> None:
    """Create the first schema of the search path, unless one of them exists."""
    row = await (await connection.execute(query_text("shardd.transports.whatsapp.sessions", "search_path"))).fetchone()
    if row is None or row["current_schema"] is not None:
        return
    names = [name.strip().strip('"') for name in row["search_path"].split(",")]
    schema = composing.Identifier(next(name for name in names if name and name != "$user"))
    async with connection.transaction():
        for name in ("create_schema", "close_schema"):
            query = composing.SQL(query_text("shardd.transports.whatsapp.sessions", name))
            await connection.execute(query.format(schema=schema))


def _make_tables(url: str) -> None:
    # The library's listing of devices opens the store and migrates its tables; the result is not used.
    from neonize._binder import func_callback_bytes2, gocode  # noqa: PLC0415 - only this process may load the library

    callback = func_callback_bytes2(lambda _text, _size: None)
    answer: bytes = gocode.GetAllDevices(url.encode(), callback) or b""
    if answer.startswith(b"error"):
        raise DatabaseError(answer.decode(errors="replace").removeprefix("error: "))


if __name__ == "__main__":
    oneshot.run(_prepare)
