"""How values cross the border between Python and PostgreSQL: arrays as text, and reading that cannot fail."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

from psycopg import AsyncConnection, DataError, postgres
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

from shardd.json_values import show_value


def integers(values: Iterable[int]) -> str:
    """As `{1,2,3}`."""
    return "{" + ",".join(map(str, values)) + "}"


def texts(values: Iterable[str | None]) -> str:
    r"""As `{"a","b \"c\"",NULL}`: always in quotes, so that no text is taken for a NULL or a brace."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _JsonLoader(Loader):
    """See `show_value`."""

    def load(self, data: Buffer) -> Any:
        return show_value(bytes(data).decode())


class _ClampedLoader(Loader):
    """The first or the last moment there is for one that is beyond it."""

    first: date
    last: date

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        loader = postgres.adapters.get_loader(oid, Format.TEXT)
        assert loader is not None  # psycopg reads every type that this stands for
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
    """Read with these on a connection."""
    connection.adapters.register_loader("json", _JsonLoader)
    connection.adapters.register_loader("jsonb", _JsonLoader)
    connection.adapters.register_loader("timestamptz", _TimestamptzLoader)
    connection.adapters.register_loader("date", _DateLoader)
