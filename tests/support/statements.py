"""The statements that a database is asked."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shardd.queue.columns import QUERIES
from shardd.queue.database import Database
from shardd.queue.queries import Params


@dataclass(frozen=True)
class Statement:
    """A named query with its values."""

    name: str
    params: Params


class RecordingDatabase(Database):
    """Notes what it is asked, and asks the database."""

    asked: list[Statement]

    async def rows(
        self, make: Callable[..., Any], name: str, params: Params | None = None, **options: Any
    ) -> list[Any]:
        self.asked.append(Statement(name, params or {}))
        return await super().rows(make, name, params, **options)

    async def rows_for(self, make: Callable[..., Any], name: str, params: Params) -> list[Any]:
        self.asked.append(Statement(name, params))
        return await super().rows_for(make, name, params)

    async def column(self, name: str, params: Params | None = None) -> list[Any]:
        self.asked.append(Statement(name, params or {}))
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


def numbered(name: str) -> tuple[str, list[str]]:
    """A named query as it is sent to the server, and the names of its parameters in the order of their numbers."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return re.sub(r"%\((\w+)\)s", number, QUERIES[name].decode()).replace("%%", "%"), names
