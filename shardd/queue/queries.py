"""Running named statements: on connections of a pool, or on the one connection of a transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, kwargs_row, scalar_row

from shardd.postgres.servers import Connection

Params = Mapping[str, Any]
Record = dict[str, Any]
"""A row, by the names of its columns."""
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Changes:
    """What came of an act on things that exist, by their ids."""

    changed: set[str]
    same: set[str]
    """Those that were as requested already."""

    @property
    def found(self) -> set[str]:
        """All."""
        return self.changed | self.same


class Queries(ABC):
    """What can be asked of a database."""

    queries: Mapping[str, bytes]

    @abstractmethod
    def connection(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]:
        """A connection, for pipelines and transactions; see `Database.connection`."""

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """One transaction; see `Database.transaction`."""

    async def rows(self, make: Callable[..., Row], name: str, params: Params | None = None) -> list[Row]:
        """Rows of a named query, each made by `make`, which is given the columns by their names."""
        async with self.connection() as connection:
            return await rows_of(connection, make, self.queries[name], params)

    async def rows_for(self, make: Callable[..., Row], name: str, params: Params) -> list[Row]:
        """`rows` for an operator's question, planned for its parameters: most of its filters are NULL."""
        async with self.connection() as connection, connection.transaction():
            await connection.execute(self.queries["plan_for_values"])
            return await rows_of(connection, make, self.queries[name], params)

    async def column(self, name: str, params: Params | None = None) -> list[Any]:
        """The only column of a named query."""
        async with self.connection() as connection:
            return await column_of(connection, self.queries[name], params)

    async def value(self, name: str, params: Params | None = None) -> Any:
        """The only column of a named query's first row; None: there is no row."""
        return next(iter(await self.column(name, params)), None)

    async def execute(self, name: str, params: Params | None = None) -> int:
        """Run a named query; returns the number of rows that it touched."""
        async with self.connection() as connection:
            return (await connection.execute(self.queries[name], params)).rowcount


class Transaction(Queries):
    """The statements of one transaction. Its calls raise psycopg.Error, of which `Database.transaction` makes our errors."""

    def __init__(self, connection: Connection, queries: Mapping[str, bytes]) -> None:
        self.queries = queries
        self._connection = connection

    @asynccontextmanager
    async def connection(self, *, timeout: float | None = None) -> AsyncGenerator[Connection]:
        """Always the same one; `timeout`: that of the whole transaction holds."""
        _ = timeout
        yield self._connection

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Self]:
        """This one."""
        yield self


class Statements:
    """Statements of one subject, as typed calls. Every call raises DatabaseError; in a transaction, psycopg.Error."""

    def __init__(self, database: Queries) -> None:
        self._database = database

    async def _ids(self, name: str, params: Params) -> set[Any]:
        """The only column of a named query, as ids."""
        return set(await self._database.column(name, params))

    async def _changes(self, name: str, params: Params) -> Changes:
        """The columns `id` and `changed` of a named query."""
        return changes_of(await self._database.rows(Record, name, params))


def changes_of(rows: Sequence[Record]) -> Changes:
    """`Statements._changes` of rows."""
    return Changes({row["id"] for row in rows if row["changed"]}, {row["id"] for row in rows if not row["changed"]})


async def rows_of(
    connection: AsyncConnection[TupleRow], make: Callable[..., Row], query: bytes, params: Params | None = None
) -> list[Row]:
    """`Queries.rows` on a connection, for several statements in one transaction. Raises psycopg.Error."""
    async with connection.cursor(row_factory=kwargs_row(make)) as cursor:
        return await (await cursor.execute(query, params)).fetchall()


async def column_of(connection: AsyncConnection[TupleRow], query: bytes, params: Params | None = None) -> list[Any]:
    """`Queries.column` on a connection. Raises psycopg.Error."""
    async with connection.cursor(row_factory=scalar_row) as cursor:
        return await (await cursor.execute(query, params)).fetchall()


def first(rows: Sequence[Row]) -> Row | None:
    """The first row, if there is one."""
    return rows[0] if rows else None
