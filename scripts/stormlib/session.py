"""A connection to the database as programs have it: a statement is repeated until its answer arrives.

Whoever uses it makes sure that a repetition is safe: an answer may be lost after the statement was done.
"""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from stormlib.log import Log

ACT_LIMIT = 8.0
"""Seconds after which a try is given up: the database may be frozen."""
AGAIN_AFTER = 0.2


class Session:
    """`name`: whose it is, for the log."""

    def __init__(self, name: str, dsn: str, log: Log) -> None:
        self._name = name
        self._dsn = dsn
        self._log = log
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def execute(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """Repeat a statement until it is answered; returns its rows."""
        while True:
            try:
                async with asyncio.timeout(ACT_LIMIT):
                    connection = await self._connected()
                    cursor = await connection.execute(statement, params)
                    return await cursor.fetchall() if cursor.description else []
            except (psycopg.Error, TimeoutError) as error:
                self._log.write("again", by=self._name, error=f"{type(error).__name__}: {error}"[:200])
                await self.close()
                await asyncio.sleep(AGAIN_AFTER)

    async def close(self) -> None:
        """The next statement connects again."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, connect_timeout=3, target_session_attrs="read-write"
            )
        return self._connection
