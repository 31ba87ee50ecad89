"""Creates the library's tables, once, before any worker starts.

Only the library knows its tables, and it makes them while it connects, without a lock: two processes on an empty database fail
with duplicate keys. So one process of its own does nothing but that, under a lock, and ends.
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
    """Make the session store ready: its schema and its tables. Does nothing where all is there already.

    `dsn`: as psycopg reads it. Takes about a second, in a process of its own. Raises DatabaseError.
    """
    request = {"dsn": dsn, "pgbouncer": pgbouncer}
    try:
        said = [words async for words in oneshot.converse(MODULE, request, timeout=TIMEOUT)][-1]
    except SharddError as error:
        raise DatabaseError(f"the session store cannot be prepared: {error}") from error
    if said["event"] != "ready":
        raise DatabaseError(f"the session store cannot be prepared: {said['reason']}")


async def _prepare(request: dict[str, Any], say: oneshot.Say) -> None:
    dsn = request["dsn"]
    try:
        async with (
            await connect(dsn, timeout=TIMEOUT) as locked,
            await connect(dsn, timeout=TIMEOUT) as other,
            locked.transaction(),
        ):
            # The library is another client and finds only what is committed: so not in the locked transaction.
            await _make_lock(other)
            await locked.execute(query_text("shardd.transports.whatsapp.sessions", "lock_store"))
            _make_tables(library_dsn(dsn, pgbouncer=request["pgbouncer"]))
            found = await (
                await other.execute(query_text("shardd.transports.whatsapp.sessions", "has_tables"))
            ).fetchone()
            if found is None or not found["found"]:
                raise DatabaseError("the library made its tables elsewhere: does the search path lead to one schema?")
    except psycopg.Error as error:
        raise describe_error(error, dsn) from error
    say({"event": "ready"})


async def _make_lock(connection: StoreConnection) -> None:
    # When two make the same at once, the second is told so after the first has committed it.
    with suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateSchema):
        await _make_schema(connection)
    # (A table comes with a type of its name, which may be what stands in the way.)
    with suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject):
        await connection.execute(query_text("shardd.transports.whatsapp.sessions", "create_lock"))


async def _make_schema(connection: StoreConnection) -> None:
    """Make the first schema of the search path, unless the path already leads somewhere."""
    row = await (await connection.execute(query_text("shardd.transports.whatsapp.sessions", "search_path"))).fetchone()
    if row is None or row["current_schema"] is not None:
        return
    names = [name.strip().strip('"') for name in row["search_path"].split(",")]
    schema = composing.Identifier(next(name for name in names if name and name != "$user"))
    await connection.execute(
        composing.SQL(query_text("shardd.transports.whatsapp.sessions", "create_schema")).format(schema=schema)
    )
    await connection.execute(
        composing.SQL(query_text("shardd.transports.whatsapp.sessions", "close_schema")).format(schema=schema)
    )


def _make_tables(url: str) -> None:
    # The library's listing of devices opens the store and brings its tables up to date; its result is of no use.
    from neonize._binder import func_callback_bytes2, gocode  # noqa: PLC0415 - only this process may load the library

    callback = func_callback_bytes2(lambda _text, _size: None)
    answer: bytes = gocode.GetAllDevices(url.encode(), callback) or b""
    if answer.startswith(b"error"):
        raise DatabaseError(answer.decode(errors="replace").removeprefix("error: "))


if __name__ == "__main__":
    oneshot.run(_prepare)
