"""Whether a pooler is in front of the server, and whether it gives each transaction another server connection.

A client receives a key with which it may cancel its statements. A server puts the id of its process into the key; a pooler,
which reassigns its server connections, has to make up keys. So a key without the id of the process that answers reveals a
pooler, on the first connection and with any number of clients. It does not reveal the pooler's mode. That takes a notification
to an idle client: it arrives only if the client keeps its server connection.
"""

from __future__ import annotations

from contextlib import aclosing
from secrets import token_hex
from typing import Any, Final

from psycopg import AsyncConnection, sql

from shardd.postgres.sql_files import queries_of

PATIENCE: Final = 5.0
"""Seconds to wait for a notification, which takes milliseconds if it arrives at all."""

REFUSAL: Final = (
    "{where} is reached through a pooler that gives each transaction another connection (PgBouncer's pool_mode transaction or "
    "statement): name the server itself in database.dsn, or a pool with pool_mode = session; sessions_dsn alone may go through "
    "such a pooler"
)


def is_pooled(connection: AsyncConnection[Any], backend: int) -> bool:
    """Whether a pooler answers for the server; `backend`: the process that executed a statement."""
    return connection.info.backend_pid != backend


async def keeps_its_server(connection: AsyncConnection[Any], backend: int, other: AsyncConnection[Any]) -> bool:
    """Whether a pooled connection has the server process `backend` to itself. `other`: another connection to the same address.

    Leaves the settings of the server connection, which others may use, as they are. Raises psycopg.Error.
    """
    queries, channel = queries_of("shardd.postgres"), f"shardd_{token_hex(8)}"
    name = {"channel": sql.Identifier(channel)}
    await connection.execute(sql.SQL(queries["listen"].decode()).format(**name))
    notified = await (await other.execute(queries["notify"], {"channel": channel}, prepare=False)).fetchone()
    if notified is None or notified[0] == backend:
        return False
    async with aclosing(connection.notifies(timeout=PATIENCE, stop_after=1)) as notices:
        received = [notice async for notice in notices if notice.channel == channel]
    await connection.execute(sql.SQL(queries["unlisten"].decode()).format(**name))
    return bool(received)
