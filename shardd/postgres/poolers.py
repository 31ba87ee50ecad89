"""Whether a pooler stands before the server, and whether it gives each transaction another connection.

A client is given a key by which it may cancel its statements. A server puts its process id into it; a pooler, which hands
its server connections around, has to make up keys of its own. So a key without the id of the process that answers tells of a
pooler, on the first connection already and however few clients there are. It does not tell its mode: that shows when a
notification comes while nothing is asked, for which a server connection has to stay with its client.
"""

from __future__ import annotations

from contextlib import aclosing
from secrets import token_hex
from typing import Any, Final

from psycopg import AsyncConnection, sql

from shardd.postgres.sql_files import queries_of

PATIENCE: Final = 5.0
"""Seconds that a notification may take. It takes milliseconds where it comes at all."""

REFUSAL: Final = (
    "{where} is reached through a pooler that gives each transaction another connection (PgBouncer's pool_mode transaction or "
    "statement): name the server itself in database.dsn, or a pool with pool_mode = session; sessions_dsn alone may go through "
    "such a pooler"
)


def is_pooled(connection: AsyncConnection[Any], backend: int) -> bool:
    """Whether a pooler answers for the server; `backend`: the process that a statement found at the other end."""
    return connection.info.backend_pid != backend


async def keeps_its_server(connection: AsyncConnection[Any], backend: int, other: AsyncConnection[Any]) -> bool:
    """Whether a pooled connection has the server's process `backend` to itself. `other`: another one of the same address.

    Changes no setting of what may be somebody else's server connection. Raises psycopg.Error.
    """
    queries, channel = queries_of("shardd.postgres"), f"shardd_{token_hex(8)}"
    name = {"channel": sql.Identifier(channel)}
    await connection.execute(sql.SQL(queries["listen"].decode()).format(**name))
    notified = await (await other.execute(queries["notify"], {"channel": channel}, prepare=False)).fetchone()
    if notified is None or notified[0] == backend:
        return False
    async with aclosing(connection.notifies(timeout=PATIENCE, stop_after=1)) as notices:
        heard = [notice async for notice in notices if notice.channel == channel]
    await connection.execute(sql.SQL(queries["unlisten"].decode()).format(**name))
    return bool(heard)
