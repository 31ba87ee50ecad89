"""The connections to PostgreSQL: a pool with a deadline for every wait, and a listener that reconnects.

A pool without connections asks for a new one with each request, so a database that is back is used again within two seconds. A
connection is used only while it leads to the primary (`shardd.postgres.servers`): a read-only one is closed, and so are all that
were made before another server took over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Self, TypeVar

import psycopg
from psycopg import sql
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from shardd.errors import BlockedError, DatabaseError, RefusedDataError, UnsureError
from shardd.logs import get_logger
from shardd.postgres.errors import describe_error, is_answer, words_of
from shardd.postgres.liveness import Deadline, is_fresh, shut_down
from shardd.postgres.lock_watch import LockWatch
from shardd.postgres.servers import Connection, Identity, Servers, Terms
from shardd.postgres.sql_files import queries_of
from shardd.queue.columns import QUERIES
from shardd.queue.queries import Queries, Transaction, column_of
from shardd.queue.values import register_loaders
from shardd.tasks import TaskSet

log = get_logger(__name__)

Item = TypeVar("Item")

_LISTEN_PING: Final = 30.0  # seconds of silence after which a listener checks that the server still is the primary
_LIFETIME: Final = (
    120.0  # seconds after which a connection is replaced: a new one notices that the address leads elsewhere
)
_SUSPICIOUS: Final[Mapping[str | None, str]] = {
    "25006": "the server has become read-only",
    "26000": "a prepared statement is gone",
    "42P05": "a prepared statement already exists",
}
"""By SQLSTATE: signs that the server is not, or not in the state, that it was when the connection was made."""
_OUTDATED: Final = "0A000"
"""SQLSTATE of "cached plan must not change result type", after a newer release has migrated the database."""
NOTIFICATIONS_FULL: Final = 0.5
"""The fullest that the server's notification queue may be for listening, and for adding to it (`shardd.announce`)."""
_LISTEN_BACKOFF: Final = (0.2, 5.0)  # first and longest wait before connecting again, seconds


@dataclass(frozen=True, slots=True)
class ListenEvent:
    """What happened to a listener.

    `connected`: it listens from now on; earlier notifications may have been missed, so poll. `notified`: the channel was
    notified, with `text` as payload. `lost`: the connection broke; `text` is the reason.
    """

    kind: Literal["connected", "notified", "lost"]
    text: str = ""


class Database(Queries):
    """A pool of autocommit connections to one database; `async with` opens and closes it.

    All times in seconds. `connect_timeout` bounds the wait for a connection, `statement_timeout` the work done with one. Every
    method raises DatabaseError with psycopg's error as its cause. `session=False`: nothing outlives a transaction, so that it
    works through any pooler, but cannot listen. `index_plans`: for statements that read a few rows in the order of an index,
    whatever the planner's statistics.

    `lock_timeout`: how long a statement may wait for one lock. Another connection of the pool then finds the session that holds
    it, for the BlockedError. 0: no limit of its own, and no such look.

    `last_server`: the one that was the primary before; of several servers, one that is older than it is refused.
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
        session: bool = True,
        index_plans: bool = False,
        lock_timeout: float = 0.0,
        last_server: Identity | None = None,
    ) -> None:
        self._dsn = dsn
        self._lock_timeout = lock_timeout
        self.connect_timeout = connect_timeout
        self.statement_timeout = statement_timeout
        self.queries: Mapping[str, bytes] = QUERIES
        self._refusal: DatabaseError | None = None
        terms = Terms(
            application_name=application_name,
            connect_timeout=connect_timeout,
            statement_timeout=statement_timeout,
            prepare_threshold=5,
            session=session,
            index_plans=index_plans,
            lock_timeout=lock_timeout,
        )
        self._servers = Servers(dsn, terms, on_change=self._server_changed, last=last_server)
        self._listening: set[Connection] = set()
        self.pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            dsn,
            connection_class=self._connection_class(),
            min_size=min_size,
            max_size=max_size,
            timeout=connect_timeout,
            max_lifetime=_LIFETIME,
            # The pool then gives up, and a new request makes it try again: no growing backoff.
            reconnect_timeout=max(2.0, connect_timeout),
            open=False,
            name=application_name,
        )
        self._max_size = max_size
        self._watches = TaskSet()

    @property
    def server(self) -> Identity | None:
        """The server that was last found to be the primary; None: it cannot be identified."""
        return self._servers.known

    @property
    def refusal(self) -> DatabaseError | None:
        """Why no connection could be made when that was tried last; None: one was."""
        return self._refusal

    async def open(self) -> None:
        """Connect once, so that errors are raised at once, and open the pool."""
        connection = await self._servers.connect()
        await connection.close()
        await self.pool.open()

    async def close(self) -> None:
        """Close the pool; connections in use are closed when they come back."""
        await self._watches.end()
        await self.pool.close(timeout=self.connect_timeout)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @asynccontextmanager
    async def connection(self, *, timeout: float | None = None) -> AsyncGenerator[Connection]:
        """A connection of the pool, for pipelines and transactions.

        `timeout`: seconds for the whole block, by default `statement_timeout`; then the connection is closed, and the block fails
        with DatabaseError.
        """
        limit = self.statement_timeout if timeout is None else timeout
        async with self._lent(limit) as connection, self._watched(connection):
            yield connection

    @asynccontextmanager
    async def _lent(self, limit: float) -> AsyncGenerator[Connection]:
        """A connection of the pool for at most `limit` seconds, without watching its locks."""
        connection = await self._acquire()
        deadline = Deadline(connection, limit)
        try:
            async with self._servers.ready(connection, limit):
                yield connection
        except (psycopg.Error, UnicodeError) as error:
            if isinstance(error, psycopg.Error) and error.sqlstate in _SUSPICIOUS:
                self._servers.suspect(_SUSPICIOUS[error.sqlstate])
            if isinstance(error, psycopg.Error) and error.sqlstate == _OUTDATED:
                self._servers.renew("a prepared statement has another result than before")
            raise describe_error(error, self._dsn, deadline) from error
        finally:
            deadline.cancel()
            if not self._servers.is_current(connection):
                await connection.close()
            await self.pool.putconn(connection)

    @asynccontextmanager
    async def _watched(self, connection: Connection) -> AsyncGenerator[None]:
        """Raises BlockedError instead of psycopg's error when a lock was not free in time."""
        if not self._lock_timeout:
            yield
            return
        another = partial(self._lent, self.statement_timeout)
        watch = LockWatch(await LockWatch.backend_of(connection), another, every=0.4 * self._lock_timeout)
        self._watches.start(watch.run(), lambda error: log.error("lock watch failed", action="defect", exc_info=error))
        try:
            yield
        except psycopg.errors.LockNotAvailable as error:
            if watch.blocker is None:
                raise
            blocked = BlockedError(f"a lock was not free for {self._lock_timeout:g} s: {watch.blocker}")
            blocked.blocker = watch.blocker
            raise blocked from error
        finally:
            watch.end()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """One transaction: all of it is done, or nothing.

        Raises UnsureError when it is not known which, because the answer to its COMMIT was lost; after another error, nothing is.
        """
        is_complete = False
        try:
            async with self.connection() as connection, connection.transaction():
                yield Transaction(connection, self.queries)
                is_complete = True
        except DatabaseError as error:
            if is_complete and not is_answer(error):
                raise UnsureError(str(error)) from error
            raise

    async def listen(self, *channels: str) -> AsyncGenerator[ListenEvent]:
        """What happens on the channels, on a connection of its own; never ends and never raises.

        A notification is a hint: see `ListenEvent` about what may be missed.
        """
        first, longest = _LISTEN_BACKOFF
        wait = first
        while True:
            try:
                async with self._listener() as connection:
                    await self._start_listening(connection, channels)
                    yield ListenEvent("connected")
                    wait = first
                    while True:
                        async for notice in connection.notifies(timeout=_LISTEN_PING):
                            yield ListenEvent("notified", notice.payload)
                        await self._servers.check(connection)
            except DatabaseError as error:
                yield ListenEvent("lost", str(error))
            await asyncio.sleep(wait)
            wait = min(longest, 2 * wait)

    async def _start_listening(self, connection: Connection, channels: tuple[str, ...]) -> None:
        deadline = Deadline(connection, self.statement_timeout)
        try:
            await self._check_notifications(connection)
            if connection.shared:
                raise DatabaseError(f"{words_of(self._dsn)['where']} is behind a pooler: polling")
            for channel in channels:
                text = queries_of("shardd.postgres")["listen"].decode()
                await connection.execute(sql.SQL(text).format(channel=sql.Identifier(channel)))
        except psycopg.Error as error:
            raise describe_error(error, self._dsn, deadline) from error
        finally:
            deadline.cancel()

    async def _check_notifications(self, connection: Connection) -> None:
        """Raises DatabaseError for a notification queue that a new listener might have to read from its start: up to 8 GB."""
        (use,) = await column_of(connection, self.queries["notification_use"])
        if use >= NOTIFICATIONS_FULL:
            where = words_of(self._dsn)["where"]
            raise DatabaseError(
                f"{where} has a notification queue that is {use:.0%} full: polling until it has been read"
            )

    @asynccontextmanager
    async def _listener(self) -> AsyncGenerator[Connection]:
        """A connection outside of the pool, for as long as its server is the primary."""
        connection = await self._servers.connect()
        self._listening.add(connection)
        try:
            yield connection
        except (psycopg.Error, OSError) as error:
            raise describe_error(error, self._dsn) from error
        finally:
            self._listening.discard(connection)
            await connection.close()

    def _server_changed(self, why: str) -> None:
        log.warning("reconnecting", action="server_changed", reason=why)
        for connection in self._listening:
            if not self._servers.is_current(connection):
                shut_down(connection)

    async def _acquire(self) -> Connection:
        try:
            for _ in range(self._max_size):
                connection = await self.pool.getconn(self.connect_timeout)
                if is_fresh(connection) and self._servers.is_current(connection):
                    return connection
                await connection.close()
                await self.pool.putconn(connection)
            return await self.pool.getconn(self.connect_timeout)
        except PoolTimeout as error:
            raise self._refusal or describe_error(error, self._dsn) from error
        except psycopg.Error as error:
            raise describe_error(error, self._dsn) from error

    def _connection_class(self) -> type[Connection]:
        """The pool's errors contain only a timeout; this remembers why no connection was made."""
        database = self

        class Remembering(Connection):
            @classmethod
            async def connect(cls, *_: Any, **__: Any) -> Any:
                try:
                    connection = await database._servers.connect()
                except DatabaseError as error:
                    database._refusal = error
                    raise
                database._refusal = None
                register_loaders(connection)
                return connection

        return Remembering


async def write_accepted(
    items: Sequence[Item],
    write: Callable[[Sequence[Item]], Awaitable[None]],
    refuse: Callable[[Item, RefusedDataError], Awaitable[None]],
) -> None:
    """Write all items except those that the database refuses, by halving; `refuse` gets each of these.

    Other errors of `write` are raised.
    """
    if not items:
        return
    try:
        await write(items)
    except RefusedDataError as error:
        if len(items) == 1:
            await refuse(items[0], error)
            return
        middle = len(items) // 2
        await write_accepted(items[:middle], write, refuse)
        await write_accepted(items[middle:], write, refuse)
