"""Events in the database: the statements of `sql/events.sql` as typed calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shardd.queue.database import Database


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event, as `shardd.read_events` shows it."""

    position: str
    """Pass it to read on behind this event."""
    id: int
    at: datetime
    kind: str
    job_id: int | None
    device_id: str | None
    campaign: str | None
    reference: str | None
    data: dict[str, Any]


class Events:
    """The outbox, over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def configure(self, keep: float) -> None:
        """Say whether events are written; `keep`: seconds, 0: none are."""
        await self._database.execute("configure_events", {"keep": keep})

    async def purge(self, keep: float, most: int, chunk: int) -> int:
        """Delete up to `chunk` of the oldest events, if they are too old (seconds) or too many. Returns how many."""
        rows = await self._database.fetch_all("purge_events", {"keep": keep, "most": most, "chunk": chunk})
        return int(rows[0][0])

    async def mend(self) -> int:
        """Make readable what was written before the database was restored from a dump. Returns how many events that were."""
        return int((await self._database.fetch_all("mend_events"))[0][0])

    async def read(self, after: str | None, most: int, kinds: Sequence[str] | None = None) -> list[EventRow]:
        """The next events after a position, oldest first."""
        params = {"after": after, "most": most, "kinds": None if kinds is None else list(kinds)}
        return [EventRow(*row) for row in await self._database.fetch_all("read_events", params)]

    async def newest(self, most: int, kinds: Sequence[str] | None = None) -> list[EventRow]:
        """The newest events, oldest of them first."""
        params = {"most": most, "kinds": None if kinds is None else list(kinds)}
        return [EventRow(*row) for row in await self._database.fetch_all("newest_events", params)]

    async def end(self) -> str:
        """The position behind every event that can be read now."""
        return str((await self._database.fetch_all("events_end"))[0][0])
