"""The statements that a database is asked, and how many blocks PostgreSQL touches for each: what a page costs, on any machine."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from shardd.postgres.settings import settings_for
from shardd.queue.columns import QUERIES
from shardd.queue.database import Database
from shardd.queue.queries import Params


@dataclass(frozen=True)
class Statement:
    """A named query with its values; `planned_for_them`: not with the generic plan."""

    name: str
    params: Params
    planned_for_them: bool


class RecordingDatabase(Database):
    """Notes what it is asked, and asks the database."""

    asked: list[Statement]

    async def rows(
        self, make: Callable[..., Any], name: str, params: Params | None = None, **options: Any
    ) -> list[Any]:
        self.asked.append(Statement(name, params or {}, planned_for_them=False))
        return await super().rows(make, name, params, **options)

    async def rows_for(self, make: Callable[..., Any], name: str, params: Params) -> list[Any]:
        self.asked.append(Statement(name, params, planned_for_them=True))
        return await super().rows_for(make, name, params)

    async def column(self, name: str, params: Params | None = None) -> list[Any]:
        self.asked.append(Statement(name, params or {}, planned_for_them=False))
        return await super().column(name, params)


def recording() -> type[RecordingDatabase]:
    """A class whose objects note everything in its `asked`."""

    class Recording(RecordingDatabase):
        asked: list[Statement] = []  # noqa: RUF012  # of this class alone

    return Recording


class SteppingClock:
    """Each look is so many seconds later: what is bounded by time then depends on nothing else."""

    def __init__(self, step: float) -> None:
        self._looks = itertools.count()
        self._step = step

    def __call__(self) -> float:
        return next(self._looks) * self._step


class Explainer:
    """Runs statements with the settings of shardd's connections, and undoes what they did."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """`connection`: with autocommit."""
        self._connection = connection
        for name, value in settings_for(connection.info.server_version // 10_000, 60.0).items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])

    def plan(self, statement: Statement) -> dict[str, Any]:
        """How it ran: a node of the plan, with its buffers."""
        text, values = _numbered(statement)
        call = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE statement")
        if values:
            call += sql.SQL(" ({})").format(sql.SQL(", ").join(map(sql.Literal, values)))
        with self._connection.transaction(force_rollback=True):
            if statement.planned_for_them:
                self._connection.execute(QUERIES["plan_for_values"])
            self._connection.execute(b"PREPARE statement AS " + text.encode())
            row = self._connection.execute(call).fetchone()
            self._connection.execute("DEALLOCATE statement")
        assert row is not None
        plan: dict[str, Any] = row[0][0]["Plan"]
        return plan

    def blocks(self, statement: Statement) -> int:
        """How many blocks it touches, in memory or on the disk."""
        plan = self.plan(statement)
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def _numbered(statement: Statement) -> tuple[str, list[Any]]:
    """The statement for PREPARE, and the values of its parameters."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    text = re.sub(r"%\((\w+)\)s", number, QUERIES[statement.name].decode()).replace("%%", "%")
    return text, [statement.params[name] for name in names]
