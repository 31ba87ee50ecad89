"""The session store, read with SQL from the library's own tables.

Never through the library: connecting a session that has no row ends the whole process, and its own listing is misparsed. One
connection per worker, opened when needed and closed when idle, serves all of its devices; every wait has a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import psycopg
from psycopg.rows import dict_row

from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.persons import HIDDEN_SERVER
from shardd.postgres.errors import describe_error
from shardd.postgres.liveness import Deadline, is_fresh
from shardd.postgres.servers import Connection, Servers, Terms
from shardd.postgres.sql_files import query_text
from shardd.tasks import TaskSet

log = get_logger(__name__)

CONNECT_TIMEOUT: Final = 5.0
QUERY_TIMEOUT: Final = 5.0
IDLE_SECONDS: Final = 30.0
LIFETIME: Final = 120.0
"""Seconds after which a connection is replaced, so that a new primary is noticed."""

StoreConnection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A row of the store. `jid` is its key."""

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
    """Reads the store; safe for concurrent use."""

    def __init__(self, dsn: str, *, foreign: bool = False) -> None:
        """`dsn`: for psycopg; its search path leads to the library's tables. `foreign`: another program's store, only read."""
        self.foreign = foreign
        self._servers = Servers(dsn, terms(foreign=foreign))
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None
        self._connected_at = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._closing = TaskSet()

    def lead_to(self, dsn: str) -> None:
        """Reach it by another DSN from now on. Raises DatabaseError if that cannot be read."""
        self._servers = Servers(dsn, terms(foreign=self.foreign))
        self._connected_at = float("-inf")

    @property
    def dsn(self) -> str:
        """Of the store; of several servers, the one that answered last comes first."""
        return self._servers.dsn

    async def session_digest(self, jid: str) -> str | None:
        """Of the session's keys; None: it is not stored. Each pairing makes other keys, also under the same JID.

        Raises DatabaseError.
        """
        rows = await self._rows("session_digest", jid=jid)
        return str(rows[0]["digest"]) if rows else None

    async def knows_recipient(self, jid: str, number: str) -> bool:
        """Whether WhatsApp gave this session a token for writing to `number`. Raises DatabaseError."""
        return bool((await self._rows("knows_recipient", jid=jid, number=number))[0]["found"])

    async def numbers_of(self, addresses: Sequence[str]) -> dict[str, str]:
        """The numbers (digits) of these hidden ids (`ID@lid`), as far as any session has learned them. Raises DatabaseError."""
        lids = [address.partition("@")[0] for address in addresses]
        return {f"{row['lid']}@{HIDDEN_SERVER}": row["pn"] for row in await self._rows("numbers_of", lids=lids)}

    async def list_sessions(self) -> list[StoredSession]:
        """Every stored session. Raises DatabaseError."""
        return [StoredSession(**row) for row in await self._rows("list_sessions")]

    async def delete_session(self, jid: str) -> None:
        """Delete a session here; the phone still lists the linked device. Raises DatabaseError."""
        await self._rows("delete_session", jid=jid)

    async def forget_ratchets(self) -> int:
        """Let every session agree keys anew with each contact; returns the number of sessions. Raises DatabaseError."""
        if not (await self._rows("has_tables"))[0]["found"]:
            return 0
        await self._rows("forget_ratchets")
        return len(await self.list_sessions())

    async def close(self) -> None:
        """End the connection, if there is one."""
        async with self._lock:
            await self._drop()

    async def _rows(self, name: str, **parameters: str | list[str]) -> list[dict[str, Any]]:
        async with self._lock:
            # A connection lost while idle is noticed only by using it: one more try, on a new one.
            for last in (not self._is_usable(), True):
                try:
                    return await self._ask(name, parameters)
                except DatabaseError as error:
                    raise DatabaseError(f"the session store cannot be reached: {error}") from error
                except psycopg.Error as error:
                    await self._drop()
                    if last or not isinstance(error, psycopg.OperationalError):
                        raise DatabaseError(f"the session store failed: {describe_error(error, self.dsn)}") from error
                except TimeoutError:
                    await self._drop()
                    raise DatabaseError("the session store does not answer") from None
            raise AssertionError("the last try returns or raises")

    def _is_usable(self) -> bool:
        return (
            self._connection is not None
            and is_fresh(self._connection)
            and self._servers.is_current(self._connection)
            and asyncio.get_running_loop().time() < self._connected_at + LIFETIME
        )

    async def _ask(self, name: str, parameters: Mapping[str, str | list[str]]) -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        if not self._is_usable():
            await self._drop()
            self._connection, self._connected_at = await self._servers.connect(), loop.time()
        assert self._connection is not None
        if self._idle is not None:
            self._idle.cancel()
        deadline = Deadline(self._connection, QUERY_TIMEOUT)
        try:
            async with self._connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(query_text("shardd.transports.whatsapp.sessions", name), parameters)
                rows = await cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            if deadline.passed:
                raise TimeoutError from error
            raise
        finally:
            deadline.cancel()
        self._idle = loop.call_later(IDLE_SECONDS, self._close_idle)
        return rows

    def _close_idle(self) -> None:
        self._closing.start(
            self.close(), lambda error: log.warning("session store not closed", action="sessions", error=str(error))
        )

    async def _drop(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def terms(*, foreign: bool = False) -> Terms:
    """How the store is reached: through any pooler, with the DSN's own search path."""
    return Terms(
        application_name="shardd/sessions",
        connect_timeout=CONNECT_TIMEOUT,
        statement_timeout=QUERY_TIMEOUT,
        writable=not foreign,
        session=False,
        foreign=foreign,
        keep_path=True,
    )


async def connect(dsn: str, *, timeout: float, foreign: bool = False) -> StoreConnection:
    """A connection to the store for longer work; `timeout`: seconds for one statement. Raises DatabaseError."""
    how = replace(terms(foreign=foreign), statement_timeout=timeout, row_factory=dict_row)
    return cast("StoreConnection", await Servers(dsn, how).connect())
