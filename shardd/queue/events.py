"""Events in the database: the statements of `sql/events.sql` as typed calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shardd.event_kinds import EventKind
from shardd.queue.queries import Record, Statements, first


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event, as `shardd.read_events` shows it."""

    position: str
    """Pass it to continue after this event."""
    id: int
    at: datetime
    kind: str
    job_id: int | None
    device_id: str | None
    campaign: str | None
    reference: str | None
    data: dict[str, Any]
    event_id: str
    """Its name, also as `webhook-id`; unique over all databases."""


def words_of(event: EventRow) -> str:
    """What the columns of an event do not say, in a few words."""
    data = event.data
    if event.kind == EventKind.DEVICE_STATE:
        reason = f" ({data['reason']})" if data.get("reason") else ""
        return f"{data.get('from') or 'new'} → {data.get('to')}{reason}"
    return str(data.get("error") or data.get("message_id") or data.get("reference") or "")


@dataclass(frozen=True, slots=True)
class HeldEvents:
    """Events that cannot be read yet, and the transaction that they wait for; None: hidden from this login, or unknown."""

    waiting: float
    """Seconds since the oldest of them was written."""
    pid: int | None
    database: str | None
    user: str | None
    application: str | None
    address: str | None
    """None also for a session on the server's own host."""
    state: str | None
    prepared: str | None
    """The name of a prepared transaction, which has no session."""
    age: float | None
    """Seconds since the transaction began."""


@dataclass(frozen=True, slots=True)
class EventCount:
    """How many events of a kind happened in a minute."""

    minute: int
    """Since the epoch."""
    kind: str
    events: int


class Events(Statements):
    """The outbox."""

    async def configure(self, keep: float) -> None:
        """Store for how many seconds events are kept; 0: none are written."""
        await self._database.execute("configure_events", {"keep": keep})

    async def purge(self, keep: float, most: int, chunk: int) -> int:
        """Delete up to `chunk` of the oldest events, if they are too old (seconds) or too many. Returns how many."""
        return int(await self._database.value("purge_events", {"keep": keep, "most": most, "chunk": chunk}))

    async def held(self, age: float) -> HeldEvents | None:
        """The transaction that keeps events from being read, if one has waited for `age` seconds."""
        return first(await self._database.rows(HeldEvents, "held_events", {"age": age}))

    async def reposition_restored(self) -> int:
        """Make the events readable that were written before the database was restored from a dump. Returns how many."""
        return int(await self._database.value("reposition_restored_events"))

    async def read(self, after: str | None, most: int, kinds: Sequence[str] | None = None) -> list[EventRow]:
        """The next events after a position, oldest first."""
        params = {"after": after, "most": most, "kinds": None if kinds is None else list(kinds), "until": None}
        return await self._database.rows(EventRow, "read_events", params)

    async def newest(self, most: int, kinds: Sequence[str] | None = None) -> list[EventRow]:
        """The newest events, oldest of them first."""
        params = {"most": most, "kinds": None if kinds is None else list(kinds)}
        return await self._database.rows(EventRow, "newest_events", params)

    async def recent(
        self, most: int, among: int, kinds: Sequence[str] | None = None, device_id: str | None = None
    ) -> list[EventRow]:
        """The newest events of these kinds and of a device, oldest of them first, among the newest `among` of all."""
        params = {"most": most, "among": among, "kinds": None if kinds is None else list(kinds), "device_id": device_id}
        return await self._database.rows(EventRow, "recent_events", params)

    async def end(self) -> str:
        """The position after every event that can be read now."""
        return str(await self._database.value("events_end"))

    async def count_recent(self, before: str, seconds: float, most: int) -> tuple[list[EventCount], str | None]:
        """Count the last `most` events before a position, of the last `seconds`; with where to continue, or None: that is all."""
        params = {"before": before, "seconds": seconds, "most": most}
        rows = await self._database.rows(Record, "count_recent_events", params)
        counts = [EventCount(row["minute"], row["kind"], row["events"]) for row in rows if row["kind"] is not None]
        return counts, next(row["position"] for row in rows if row["kind"] is None)

    async def kept(self) -> float | None:
        """For how many seconds events are kept; 0: none are written; None: no daemon has said it yet."""
        value = await self._database.value("events_kept")
        return None if value is None else float(value)
