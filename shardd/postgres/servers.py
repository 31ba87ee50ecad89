"""Connecting to the primary among the servers that a DSN names, with the settings that shardd relies on.

All servers of a DSN are tried at once, so that one that swallows packets delays nothing. A server is identified by its cluster's
identifier and its timeline, which grows with each promotion. A server on a later timeline than the one before is the primary from
then on, whatever else still answers; one on an earlier timeline was not stopped when another took over, and is refused.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import AsyncRowFactory, TupleRow, tuple_row

from shardd.errors import DatabaseError
from shardd.postgres.dsn import WRITABLE, complete_dsn, parse_dsn, reorder_hosts, split_hosts
from shardd.postgres.errors import READ_ONLY, describe_error, explain_refusal, words_of
from shardd.postgres.liveness import KEEPALIVE, Deadline
from shardd.postgres.poolers import REFUSAL, is_pooled, keeps_its_server
from shardd.postgres.settings import settings_for
from shardd.postgres.sql_files import queries_of

OLDEST_SERVER: Final = 14

_NO_IDENTITY: Final = ("0A", "42")
"""Classes of SQLSTATE of a server that is not quite PostgreSQL and cannot identify itself."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which server this is: the cluster's identifier, and the timeline that it writes."""

    cluster: int
    timeline: int

    def follows(self, other: Identity) -> bool:
        """Whether it was promoted after the other one, of the same cluster."""
        return self.cluster == other.cluster and self.timeline > other.timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How to connect; all times in seconds."""

    application_name: str
    connect_timeout: float
    statement_timeout: float
    prepare_threshold: int | None = None
    """After how many uses a statement is prepared; None: never."""
    writable: bool = True
    """Only to a primary."""
    session: bool = True
    """Whether the connection must keep its server between transactions, which a pooler may prevent."""
    foreign: bool = False
    """A database that is only read, and need not meet shardd's requirements."""
    keep_path: bool = False
    """Names are resolved by the search_path of the DSN, the role or the database; otherwise only in pg_catalog."""
    index_plans: bool = False
    """Whether statements are planned as index probes (`shardd.postgres.settings.INDEX_PLANS`)."""
    lock_timeout: float = 0.0
    """How long a statement may wait for one lock; 0: as long as the statement may take."""
    row_factory: AsyncRowFactory[Any] = tuple_row


class Connection(AsyncConnection[TupleRow]):
    """A connection to a server that was checked. Its settings are applied, unless it is `shared`."""

    shared: bool = False
    """Whether each transaction may get another server connection, one that other clients use as well."""
    generation: int = 0
    """`Servers.generation` when it was made: a lower one belongs to a server that is no longer the primary."""


class Servers:
    """The servers that a DSN names, and what is known of them. Raises DatabaseError when the DSN cannot be read."""

    def __init__(
        self,
        dsn: str,
        terms: Terms,
        *,
        on_change: Callable[[str], None] = lambda _: None,
        last: Identity | None = None,
    ) -> None:
        """`on_change` is called with an explanation when another server is in use from now on.

        `last`: the primary of an earlier process. A DSN that names one server leaves no choice, so there it does not count.
        """
        self.generation = 0
        self._dsn = complete_dsn(dsn)
        self._terms = terms
        self._hosts = split_hosts(self._dsn)
        self._order = list(range(len(self._hosts)))
        self.known = last if len(self._hosts) > 1 else None
        """The server that was last found to be the primary; None: it cannot be identified."""
        self._keeps_servers = False
        self._unwanted: set[asyncio.Task[Connection]] = set()
        self._on_change = on_change

    @property
    def dsn(self) -> str:
        """The DSN, completed, beginning with the server that was last found to be the primary."""
        return reorder_hosts(self._dsn, self._order)

    async def connect(self) -> Connection:
        """A connection to the primary, ready for use. Raises DatabaseError."""
        until = asyncio.get_running_loop().time() + self._terms.connect_timeout
        if len(self._order) == 1:
            return await self._connect_to(0, until)
        attempts = {asyncio.create_task(self._connect_to(index, until)): index for index in self._order}
        winner = None
        try:
            winner = await _first_of(attempts)
            self._order.sort(key=lambda index: index != attempts[winner])
            return winner.result()
        finally:
            # Not cancelled: a frozen server would hold up the cancellation.
            for attempt in attempts.keys() - {winner}:
                self._unwanted.add(attempt)
                attempt.add_done_callback(self._discard)

    async def check(self, connection: Connection) -> None:
        """Check that the server at the other end is still the primary. Raises DatabaseError."""
        deadline = Deadline(connection, self._terms.statement_timeout)
        try:
            await self._accept(connection, self._dsn)
        except (psycopg.Error, OSError) as error:
            raise describe_error(error, self._dsn, deadline) from error
        finally:
            deadline.cancel()

    def suspect(self, why: str) -> None:
        """The server behaves like another one: no connection made so far may be used."""
        self.generation += 1
        self._keeps_servers = False
        self._on_change(why)

    def renew(self, why: str) -> None:
        """What connections have prepared does not fit the schema any more: none made so far may be used."""
        self.generation += 1
        self._on_change(why)

    @asynccontextmanager
    async def ready(self, connection: Connection, limit: float) -> AsyncGenerator[None]:
        """Within this block the settings hold on a connection of `connect`; `limit`: seconds that the block may take.

        On a shared one the block is one transaction. Raises psycopg.Error.
        """
        if not connection.shared:
            yield
            return
        params = self._settings(connection, idle_in_transaction_session_timeout=str(round(limit * 1000)))
        async with connection.transaction():
            await connection.execute(queries_of("shardd.postgres")["apply_settings"], params)
            yield

    def is_current(self, connection: Connection) -> bool:
        """Whether a connection leads to the primary, as far as is known without a round trip.

        What one connection announces holds for all: an idle one may have been told before a statement could fail.
        """
        if connection.closed or connection.generation != self.generation:
            return False
        status = connection.pgconn.parameter_status
        if self._terms.writable and b"on" in (status(b"in_hot_standby"), status(b"default_transaction_read_only")):
            self.suspect("the server has become read-only")
            return False
        return True

    def _discard(self, attempt: asyncio.Task[Connection]) -> None:
        self._unwanted.discard(attempt)
        if not attempt.cancelled() and attempt.exception() is None:
            attempt.result().pgconn.finish()

    async def _connect_to(self, index: int, until: float) -> Connection:
        dsn = self._hosts[index]
        try:
            async with asyncio.timeout_at(until):
                connection = await self._open(dsn)
        except (psycopg.Error, OSError) as error:
            raise describe_error(error, dsn) from error
        deadline = Deadline(connection, until - asyncio.get_running_loop().time())
        try:
            await self._prepare(connection, dsn)
        except BaseException as error:
            await connection.close()
            if isinstance(error, psycopg.Error | OSError):
                raise describe_error(TimeoutError() if deadline.passed else error, dsn) from error
            raise
        finally:
            deadline.cancel()
        return connection

    async def _open(self, dsn: str) -> Connection:
        try:
            return await Connection.connect(dsn, **self._arguments())
        except psycopg.OperationalError as error:
            raise await asyncio.to_thread(explain_refusal, error) from error

    async def _prepare(self, connection: Connection, dsn: str) -> None:
        backend = await self._accept(connection, dsn)
        connection.generation = self.generation
        if is_pooled(connection, backend):
            await self._share(connection, backend, dsn)
        if not connection.shared:
            await connection.execute(
                queries_of("shardd.postgres")["apply_settings"], self._settings(connection), prepare=False
            )

    def _arguments(self) -> dict[str, Any]:
        terms = self._terms
        arguments: dict[str, Any] = {
            "autocommit": True,
            "application_name": terms.application_name,
            "client_encoding": "UTF8",
            "connect_timeout": math.ceil(terms.connect_timeout),
            "prepare_threshold": terms.prepare_threshold,
            "row_factory": terms.row_factory,
            "tcp_user_timeout": round(min(60.0, max(terms.connect_timeout, terms.statement_timeout)) * 1000),
            **KEEPALIVE,
        }
        if terms.writable and "target_session_attrs" not in parse_dsn(self._dsn):
            arguments["target_session_attrs"] = WRITABLE
        return arguments

    async def _accept(self, connection: Connection, dsn: str) -> int:
        """The process id of the backend. Raises DatabaseError for a server that shardd cannot work with."""
        if not self._terms.foreign:
            _check_server(connection, dsn)
        backend, in_recovery, read_only, replication_role = await ask_server(connection, "describe_connection")
        words = words_of(dsn)
        if replication_role != "origin" and not self._terms.foreign:
            raise DatabaseError(
                f"{words['where']} runs no triggers for this user, because session_replication_role is {replication_role}: "
                f"let a superuser run ALTER ROLE {words['user']} RESET session_replication_role (or ALTER DATABASE …)"
            )
        if self._terms.writable:
            if in_recovery or read_only == "on":
                raise DatabaseError(READ_ONLY.format(**words))
            self._compare(await _identify(connection), words["address"])
        return int(backend)

    def _compare(self, found: Identity | None, address: str) -> None:
        known = self.known
        if found is None or found == known:
            return
        remedy = "name only this one in the DSN, and " if len(self._hosts) > 1 else ""
        if known is not None and known.follows(found):
            raise DatabaseError(
                f"PostgreSQL at {address} was replaced by another server (it writes timeline {found.timeline}, but timeline "
                f"{known.timeline} has been seen): stop it. If it is the right one, {remedy}restart shardd"
            )
        self.known = found
        if known is not None:
            what = f"timeline {found.timeline} after {known.timeline}"
            if found.cluster != known.cluster:
                what = f"cluster {found.cluster} in place of {known.cluster}"
            self.suspect(f"{address} is now the primary ({what})")

    async def _share(self, connection: Connection, backend: int, dsn: str) -> None:
        """A pooler is in between: find out how it works, or do without a session of our own."""
        if not self._terms.session:
            connection.shared = True
            connection.prepare_threshold = None
        elif not self._keeps_servers:
            async with await AsyncConnection.connect(dsn, **self._arguments()) as other:
                self._keeps_servers = await keeps_its_server(connection, backend, other)
            if not self._keeps_servers:
                raise DatabaseError(REFUSAL.format_map(words_of(dsn)))

    def _settings(self, connection: Connection, **more: str) -> dict[str, Any]:
        version = connection.info.server_version // 10_000
        terms = self._terms
        settings = settings_for(
            version, terms.statement_timeout, lock_timeout=terms.lock_timeout, index_plans=terms.index_plans
        )
        settings |= more
        if terms.keep_path:
            del settings["search_path"]
        return {"names": list(settings), "values": list(settings.values()), "local": connection.shared}


async def ask_server(connection: AsyncConnection[Any], name: str) -> TupleRow:
    """The row of a statement of this package that always returns one. Raises psycopg.Error."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(queries_of("shardd.postgres")[name], prepare=False)
        row = await cursor.fetchone()
    assert row is not None
    return row


def _check_server(connection: Connection, dsn: str) -> None:
    words = words_of(dsn)
    version = connection.info.server_version // 10_000
    if version < OLDEST_SERVER:
        raise DatabaseError(f"{words['where']} is too old: it is {version}, and shardd needs {OLDEST_SERVER} or newer")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseError(
            f"{words['where']} is stored in {encoding}, which cannot represent every text: create a database in UTF8 "
            f"(createdb --encoding=UTF8 --template=template0 --owner={words['user']} NAME) and name that one in the DSN"
        )


async def _identify(connection: Connection) -> Identity | None:
    try:
        cluster, timeline = await ask_server(connection, "identify_server")
    except psycopg.Error as error:
        if (error.sqlstate or "")[:2] in _NO_IDENTITY:
            return None
        raise
    return Identity(cluster, int(timeline, 16))


async def _first_of(attempts: Collection[asyncio.Task[Connection]]) -> asyncio.Task[Connection]:
    """The first that succeeds. Raises DatabaseError with the reason of each failure."""
    pending = set(attempts)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if succeeded := next((attempt for attempt in done if attempt.exception() is None), None):
            return succeeded
    errors = [error for attempt in attempts if (error := attempt.exception()) is not None]
    if unforeseen := next((error for error in errors if not isinstance(error, DatabaseError)), None):
        raise unforeseen
    raise DatabaseError("; ".join(dict.fromkeys(map(str, errors)))) from errors[0]
