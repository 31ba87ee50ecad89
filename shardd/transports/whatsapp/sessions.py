"""The session store as SQL: what the library's own tables say about a session.

The library is never asked: connecting a session that has no row ends the whole process, and its own listing is misread. One
connection per worker, opened when needed and closed when unused, serves all of its devices; every wait has a deadline.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from shardd.errors import DatabaseError
from shardd.transports.whatsapp import sql

CONNECT_TIMEOUT: Final = 5
QUERY_TIMEOUT: Final = 5.0
IDLE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session that the store holds. `jid` is its key; `number` the account's phone number without +."""

    jid: str
    lid: str | None
    push_name: str
    business_name: str
    platform: str

    @property
    def number(self) -> str:
        """The account's phone number, digits only."""
        return self.jid.partition("@")[0].partition(":")[0]


class SessionStore:
    """Reads the store; safe to be used by many devices at once."""

    def __init__(self, dsn: str) -> None:
        """`dsn`: as psycopg reads it; its search path leads to the library's tables."""
        self._dsn = dsn
        self._lock = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[dict[str, Any]] | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def session_exists(self, jid: str) -> bool:
        """Whether this session is stored. Raises DatabaseError."""
        return bool((await self._rows("session_exists", jid=jid))[0]["found"])

    async def knows_recipient(self, jid: str, number: str) -> bool:
        """Whether WhatsApp gave this session a token for writing to `number`. Raises DatabaseError."""
        return bool((await self._rows("knows_recipient", jid=jid, number=number))[0]["found"])

    async def list_sessions(self) -> list[StoredSession]:
        """Every stored session. Raises DatabaseError."""
        return [StoredSession(**row) for row in await self._rows("list_sessions")]

    async def delete_session(self, jid: str) -> None:
        """Forget a session here; the phone still lists the linked device. Raises DatabaseError."""
        await self._rows("delete_session", jid=jid)

    async def close(self) -> None:
        """End the connection, if there is one."""
        async with self._lock:
            await self._drop()

    async def _rows(self, name: str, **parameters: str) -> list[dict[str, Any]]:
        async with self._lock:
            # A connection that went away while nobody used it is noticed only by using it: one more try, on a new one.
            for last in (self._connection is None, True):
                try:
                    async with asyncio.timeout(QUERY_TIMEOUT + CONNECT_TIMEOUT):
                        return await self._ask(name, parameters)
                except psycopg.OperationalError as error:
                    await self._drop()
                    if last:
                        raise DatabaseError(f"the session store cannot be reached: {_one_line(error)}") from error
                except psycopg.Error as error:
                    await self._drop()
                    raise DatabaseError(f"the session store cannot be read: {_one_line(error)}") from error
                except TimeoutError:
                    await self._drop()
                    raise DatabaseError("the session store does not answer") from None
            raise AssertionError("the last try returns or raises")

    async def _ask(self, name: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
        if self._connection is None:
            self._connection = await connect(self._dsn)
        if self._idle is not None:
            self._idle.cancel()
        cursor = await self._connection.execute(sql.load(name), parameters)
        rows = await cursor.fetchall() if cursor.description else []
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(IDLE_SECONDS, lambda: loop.create_task(self.close()))
        return rows

    async def _drop(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def connect(dsn: str) -> psycopg.AsyncConnection[dict[str, Any]]:
    """A connection of ours to the store; prepares nothing, so that it may pass PgBouncer. Raises psycopg.OperationalError."""
    return await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, prepare_threshold=None, connect_timeout=CONNECT_TIMEOUT, row_factory=dict_row
    )


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
