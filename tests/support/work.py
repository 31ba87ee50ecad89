"""How many blocks and rows PostgreSQL reads for each statement of this process, as auto_explain says: its cost on any machine."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.errors import Diagnostic

from shardd.postgres.servers import Connection
from shardd.queue.columns import QUERIES
from shardd.queue.database import Database
from tests.support.statements import numbered

_SETTINGS: Final = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_level": "warning",  # which clients of ours are told
    "log_min_messages": "fatal",  # and the server's log is not
}


@dataclass(frozen=True, order=True)
class Work:
    """One statement that ran."""

    blocks: int
    """In memory or on the disk, those of the functions that it called included."""
    rows: int
    """Of tables and indexes, whether they passed its filters or not; a few blocks of an index have thousands."""
    statement: str
    """Its name, or how it begins."""


Hear = Callable[[Work], None]


def tell_work(superuser: psycopg.Connection[Any], database: str) -> None:
    """Have each new connection to a database told what its statements cost."""
    for name, value in _SETTINGS.items():
        statement = sql.SQL("ALTER DATABASE {} SET {} = {}")
        superuser.execute(statement.format(sql.Identifier(database), sql.SQL(name), sql.Literal(value)))  # type: ignore[arg-type]  # one of our own words


def overheard(hear: Hear, kind: type[Database] = Database) -> type[Database]:
    """A class of this kind whose objects say what each of their statements cost, in the task that ran it."""

    def tell(message: Diagnostic) -> None:
        _, _, plan = (message.message_primary or "").partition("plan:\n")
        if plan:
            hear(_work_of(json.loads(plan)))

    class Overheard(kind):  # type: ignore[misc,valid-type]  # given
        @asynccontextmanager
        async def connection(self, *, timeout: float | None = None) -> AsyncGenerator[Connection]:
            async with super().connection(timeout=timeout) as connection:
                connection.add_notice_handler(tell)
                try:
                    yield connection
                finally:
                    connection.remove_notice_handler(tell)

    return Overheard


def _work_of(told: dict[str, Any]) -> Work:
    plan, text = told["Plan"], told["Query Text"]
    name = _NAMES.get(text.strip(), " ".join(text.split())[:60])
    return Work(int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]), _rows_of(plan), name)


def _rows_of(node: dict[str, Any]) -> int:
    """What a node of a plan and those below it read."""
    own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    is_read = "Relation Name" in node or "Index Name" in node
    return (int(own) if is_read else 0) + sum(map(_rows_of, node.get("Plans", ())))


def _named() -> Iterator[tuple[str, str]]:
    for name in QUERIES:
        yield numbered(name)[0].strip(), name


_NAMES: Final = dict(_named())
