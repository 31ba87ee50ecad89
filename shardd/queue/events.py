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


@dataclass(frozen=True, slots=True)
class HeldEvents:
    """Events that cannot be read yet, and the transaction that they wait for; None: hidden from this login, or not known."""

    waiting: float
    """Seconds since the oldest of them was written."""
    pid: int | None
    database: str | None
    user: str | None
    application: str | None
    address: str | None
    """None also of a session on the server's own host."""
    state: str | None
    prepared: str | None
    """The name of a prepared transaction, which has no session."""
    age: float | None
    """Seconds since the transaction began."""


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

    async def held(self, age: float) -> HeldEvents | None:
        """What keeps events from being read, if one has waited for `age` seconds."""
        rows = await self._database.fetch_all("held_events", {"age": age})
        return HeldEvents(*rows[0]) if rows else None

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
