"""Reads the outbox as it grows: every event is handed over once, in the order of the outbox, a moment after it can be read.

A notification is a hint that only makes a read begin sooner: on a connection that cannot listen, or without notifications, the
outbox is read every few seconds. Whoever is far behind jumps to the end and says so: a million events at once, such as those of a
cancelled campaign, are counted by the database in one statement, not carried here one by one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import psycopg

from shardd.errors import DatabaseError
from shardd.queue.database import Database
from shardd.queue.events import EventRow, Events
from shardd.tasks import WakeUp, run_together

SPACING: Final = 0.25
"""Seconds between two reads, at least."""
UNANNOUNCED: Final = 3.0
"""Seconds after which the outbox is read without a notification."""
MOST: Final = 500
"""Events of one read."""
BEHIND: Final = 10
"""Full reads in a row after which the rest is left out."""


@dataclass(frozen=True, slots=True)
class Hearers:
    """Who is told what."""

    began: Callable[[str], Awaitable[None]]
    """Events after this position follow, and none before: count what was before it. Raises DatabaseError."""
    events: Callable[[Sequence[EventRow]], None]
    """The next ones."""
    database: Callable[[str | None], None]
    """Why nothing can be read, or None: it can."""


class OutboxReader:
    """Reads until it is cancelled."""

    def __init__(self, database: Database, listener: Database, hearers: Hearers) -> None:
        """`listener` has a session of its own, so that it may listen."""
        self._events = Events(database)
        self._listener = listener
        self._hearers = hearers
        self._wake = WakeUp(SPACING)
        self._position: str | None = None
        self._full = 0

    async def run(self) -> None:
        """Endless."""
        self._position = None
        await run_together(self._listen(), self._follow())

    async def _listen(self) -> None:
        async with aclosing(self._listener.listen("shardd_events")) as heard:
            async for _ in heard:
                self._wake.set()  # of a lost connection, too: the next read finds out why

    async def _follow(self) -> None:
        while True:
            try:
                await self._read()
            except DatabaseError as error:
                if isinstance(error.__cause__, psycopg.errors.InvalidParameterValue):
                    self._position = None  # of a database that was replaced by another one
                self._hearers.database(str(error))
            else:
                self._hearers.database(None)
            await self._wake.wait(UNANNOUNCED)

    async def _read(self) -> None:
        if self._position is None or self._full >= BEHIND:
            position = await self._events.end()
            await self._hearers.began(position)
            self._position, self._full = position, 0
        found = await self._events.read(self._position, MOST)
        if found:
            self._position = found[-1].position
            self._hearers.events(found)
        self._full = self._full + 1 if len(found) == MOST else 0
        if self._full:
            self._wake.set()
