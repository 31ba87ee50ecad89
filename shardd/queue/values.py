"""How values cross the border between Python and PostgreSQL, both ways.

Writing: the router sends tens of thousands of array elements a second. psycopg examines each element of a list to find its type;
a text that the statement casts (`%(ids)s::bigint[]`) costs a quarter of that.

Reading: one unreadable value must not cost a list all its other rows. psycopg raises for a timestamp that Python has no date for
(infinity, the year 10000), and Python's own JSON reader for numbers of more than 4300 digits. The tables' triggers refuse both,
but a row of an earlier version may contain them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from operator import attrgetter, itemgetter
from typing import Any

from psycopg import AsyncConnection, AsyncCursor, DataError, postgres
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.rows import TupleRow

from shardd.json_values import show_value


def picker(cursor: AsyncCursor[TupleRow], names: Sequence[str]) -> Callable[[TupleRow], tuple[Any, ...]]:
    """Reads these columns of a cursor's rows by name, as fast as by position."""
    places = {column.name: place for place, column in enumerate(cursor.description or ())}
    return itemgetter(*(places[name] for name in names))


def arrays(items: Sequence[object], **fields: str) -> dict[str, str | list[Any]]:
    """Parameters of a statement, by name: each an array of one field of the items, such as `ids="id"` or `ids="claim.id"`."""
    return {name: array(list(map(attrgetter(field), items))) for name, field in fields.items()}


def array(values: list[Any]) -> str | list[Any]:
    r"""Integers as `{1,2,3}`, texts as `{"a","b \"c\"",NULL}`: quoted, so that none is taken for NULL; others as they are."""
    first = next((value for value in values if value is not None), None)
    if isinstance(first, str):
        return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"
    if isinstance(first, int) and None not in values:
        return "{" + ",".join([str(int(value)) for value in values]) + "}"
    return values


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _JsonLoader(Loader):
    """See `show_value`."""

    def load(self, data: Buffer) -> Any:
        return show_value(bytes(data).decode())


class _ClampedLoader(Loader):
    """Python's first or last moment for one that is beyond it."""

    first: date
    last: date

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        loader = postgres.adapters.get_loader(oid, Format.TEXT)
        assert loader is not None  # psycopg reads every type that this is registered for
        self._usual = loader(oid, context)

    def load(self, data: Buffer) -> Any:
        try:
            return self._usual.load(data)
        except DataError:
            text = bytes(data)
            return self.first if text.startswith(b"-") or text.endswith(b"BC") else self.last


class _TimestamptzLoader(_ClampedLoader):
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class _DateLoader(_ClampedLoader):
    first, last = date.min, date.max


def register_loaders(connection: AsyncConnection[Any]) -> None:
    """Make a connection read with these."""
    connection.adapters.register_loader("json", _JsonLoader)
    connection.adapters.register_loader("jsonb", _JsonLoader)
    connection.adapters.register_loader("timestamptz", _TimestamptzLoader)
    connection.adapters.register_loader("date", _DateLoader)
