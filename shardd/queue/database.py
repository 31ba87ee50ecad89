"""The connections to PostgreSQL: a pool whose every wait ends, and a listener that comes back by itself.

The server gives up a statement at nine tenths of `statement_timeout`, so that its clear answer arrives before our own
deadline does (`shardd.queue.liveness`). A pool that is out of connections asks for a new one with each request, so a
database that is back is used again within two seconds.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from shardd.errors import DatabaseError
from shardd.queue.database_errors import OLDEST_SERVER, describe_error, parse_dsn
from shardd.queue.liveness import KEEPALIVE, Deadline, is_fresh
from shardd.queue.queries import all_queries, load_queries

__all__ = ["Database", "ListenEvent", "Params", "load_queries", "server_of"]

Params = Mapping[str, Any]

_LISTEN_PING: Final = 30.0  # seconds of silence after which a listener asks whether the server is there
_LISTEN_BACKOFF: Final = (0.2, 5.0)  # first and longest wait before connecting again, seconds


@dataclass(frozen=True, slots=True)
class ListenEvent:
    """What a listener saw.

    `connected`: it listens from now on; whatever was announced before may have been missed, so look for yourself.
    `notified`: the channel was notified, with `text` as payload. `lost`: the connection broke; `text` says why.
    """

    kind: Literal["connected", "notified", "lost"]
    text: str = ""


class Database:
    """A pool of autocommit connections to one database; `async with` opens and closes it.

    All times in seconds. `connect_timeout` bounds the wait for a connection, `statement_timeout` the work done with one.
    Every method raises DatabaseError with psycopg's error as its cause. `prepare_threshold=None` is for PgBouncer's
    transaction mode.
    """

    def __init__(
        self,
        dsn: str,
        *,
        application_name: str = "shardd",
        connect_timeout: float = 5.0,
        statement_timeout: float = 5.0,
        min_size: int = 1,
        max_size: int = 4,
        prepare_threshold: int | None = 5,
    ) -> None:
        self._dsn = dsn
        parse_dsn(dsn)
        self.connect_timeout = connect_timeout
        self.statement_timeout = statement_timeout
        self.queries: Mapping[str, bytes] = all_queries()
        self._refusal: DatabaseError | None = None
        milliseconds = str(max(1, round(statement_timeout * 900)))
        self._session = {"statement_timeout": milliseconds, "idle_timeout": str(round(statement_timeout * 2000))}
        self._arguments: dict[str, Any] = {
            "autocommit": True,
            "application_name": application_name,
            "connect_timeout": math.ceil(connect_timeout),
            "prepare_threshold": prepare_threshold,
            **KEEPALIVE,
            "tcp_user_timeout": round(max(connect_timeout, statement_timeout) * 1000),
        }
        self.pool: AsyncConnectionPool[AsyncConnection[TupleRow]] = AsyncConnectionPool(
            dsn,
            connection_class=self._connection_class(),
            kwargs=self._arguments,
            configure=self._configure,
            min_size=min_size,
            max_size=max_size,
            timeout=connect_timeout,
            # The pool gives up then, and a new request makes it try anew: no growing backoff.
            reconnect_timeout=max(2.0, connect_timeout),
            open=False,
            name=application_name,
        )
        self._max_size = max_size

    async def open(self) -> None:
        """Connect once, so that what is wrong is told at once, and open the pool."""
        async with self._dedicated() as connection:
            version = connection.info.server_version // 10_000
        if version < OLDEST_SERVER:
            raise DatabaseError(
                f"PostgreSQL {version} is too old for shardd: it needs {OLDEST_SERVER} or newer "
                f"(at {parse_dsn(self._dsn).get('host') or 'the local socket'})"
            )
        await self.pool.open()

    async def close(self) -> None:
        """Close the pool; connections in use are closed when they come back."""
        await self.pool.close(timeout=self.connect_timeout)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @asynccontextmanager
    async def connection(self, *, timeout: float | None = None) -> AsyncGenerator[AsyncConnection[TupleRow]]:
        """A connection of the pool, for pipelines and transactions.

        `timeout`: seconds that the whole block may take, by default `statement_timeout`; a connection past that is torn down,
        and the block's wait ends with DatabaseError.
        """
        limit = self.statement_timeout if timeout is None else timeout
        connection = await self._acquire()
        deadline = Deadline(connection, limit)
        try:
            yield connection
        except psycopg.Error as error:
            raise self._describe(error, deadline) from error
        finally:
            deadline.cancel()
            await self.pool.putconn(connection)

    async def fetch_all(
        self, name: str, params: Params | None = None, *, timeout: float | None = None
    ) -> list[TupleRow]:
        """Rows of a named query, as tuples."""
        async with self.connection(timeout=timeout) as connection:
            cursor = await connection.execute(self.queries[name], params)
            return await cursor.fetchall()

    async def fetch_dicts(
        self, name: str, params: Params | None = None, *, timeout: float | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a named query, as dictionaries; slower than tuples."""
        async with self.connection(timeout=timeout) as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(self.queries[name], params)
            return await cursor.fetchall()

    async def execute(self, name: str, params: Params | None = None, *, timeout: float | None = None) -> int:
        """Run a named query; returns the number of rows that it touched."""
        async with self.connection(timeout=timeout) as connection:
            return (await connection.execute(self.queries[name], params)).rowcount

    async def listen(self, *channels: str) -> AsyncIterator[ListenEvent]:
        """What happens on the channels, for as long as the caller listens; never ends by itself and raises nothing.

        On a connection of its own. A notification is a hint: read `ListenEvent` about what may be missed.
        """
        first, longest = _LISTEN_BACKOFF
        wait = first
        while True:
            try:
                async with self._dedicated() as connection:
                    await self._start_listening(connection, channels)
                    yield ListenEvent("connected")
                    wait = first
                    while True:
                        async for notice in connection.notifies(timeout=_LISTEN_PING):
                            yield ListenEvent("notified", notice.payload)
                        await self._ask(connection, self.queries["is_answering"])
            except DatabaseError as error:
                yield ListenEvent("lost", str(error))
            await asyncio.sleep(wait)
            wait = min(longest, 2 * wait)

    async def _start_listening(self, connection: AsyncConnection[TupleRow], channels: tuple[str, ...]) -> None:
        for channel in channels:
            text = self.queries["listen"].decode()
            statement = sql.SQL(text).format(channel=sql.Identifier(channel))
            await self._ask(connection, statement)

    async def _ask(self, connection: AsyncConnection[TupleRow], statement: bytes | sql.Composed) -> None:
        deadline = Deadline(connection, self.statement_timeout)
        try:
            await connection.execute(statement)
        except psycopg.Error as error:
            raise self._describe(error, deadline) from error
        finally:
            deadline.cancel()

    @asynccontextmanager
    async def _dedicated(self) -> AsyncGenerator[AsyncConnection[TupleRow]]:
        """A connection outside of the pool, with the pool's settings."""
        connection: AsyncConnection[TupleRow] | None = None
        try:
            async with asyncio.timeout(self.connect_timeout):
                connection = await AsyncConnection.connect(self._dsn, **self._arguments)
            await self._configure(connection)
            yield connection
        except (psycopg.Error, OSError) as error:
            raise self._describe(error, None) from error
        finally:
            if connection is not None:
                await connection.close()

    async def _acquire(self) -> AsyncConnection[TupleRow]:
        try:
            for _ in range(self._max_size):
                connection = await self.pool.getconn(self.connect_timeout)
                if is_fresh(connection):
                    return connection
                await self.pool.putconn(connection)
            return await self.pool.getconn(self.connect_timeout)
        except PoolTimeout as error:
            raise self._refusal or describe_error(error, self._dsn) from error
        except psycopg.Error as error:
            raise describe_error(error, self._dsn) from error

    async def _configure(self, connection: AsyncConnection[TupleRow]) -> None:
        deadline = Deadline(connection, self.statement_timeout)
        try:
            await connection.execute(self.queries["prepare_connection"], self._session, prepare=False)
        finally:
            deadline.cancel()

    def _describe(self, error: BaseException, deadline: Deadline | None) -> DatabaseError:
        if deadline is not None and deadline.passed:
            return describe_error(psycopg.errors.QueryCanceled(f"no answer within {deadline.limit:g} s"), self._dsn)
        return describe_error(error, self._dsn)

    def _connection_class(self) -> type[AsyncConnection[TupleRow]]:
        """The pool's errors say only that time ran out; this remembers why no connection came."""
        database = self

        class Remembering(AsyncConnection[TupleRow]):
            @classmethod
            async def connect(cls, *args: Any, **kwargs: Any) -> Any:
                try:
                    connection = await super().connect(*args, **kwargs)
                except (psycopg.Error, OSError) as error:
                    database._refusal = describe_error(error, database._dsn)
                    raise
                database._refusal = None
                return connection

        return Remembering


def server_of(dsn: str) -> str:
    """Where a DSN leads, without its password: host:port/database. Raises DatabaseError when it is none."""
    parts = parse_dsn(dsn)
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', parts.get('user', ''))}"
