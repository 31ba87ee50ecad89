"""How many jobs ended in each minute of the last hour, by outcome: counted once from the outbox, and then from its events.

The count reads the outbox backwards in steps of which none takes long, and of a bounded number: of a system that is so busy that
these do not reach an hour back, the earlier minutes stay unknown, and are shown as that.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shardd.errors import DatabaseError
from shardd.event_kinds import EventKind
from shardd.logs import get_logger
from shardd.queue.database import Database
from shardd.queue.events import EventCount, EventRow, Events
from shardd.tasks import TaskSet

log = get_logger(__name__)

HOUR: Final = 60
"""Minutes."""
STEP: Final = 20_000
"""Events of one statement: some 20 ms."""
STEPS: Final = 50
PAUSE: Final = 0.1
"""Seconds between two statements."""
OUTCOMES: Final[Mapping[str, str]] = {
    EventKind.JOB_SENT: "sent",
    EventKind.JOB_FAILED: "failed",
    EventKind.JOB_IN_DOUBT: "in doubt",
    EventKind.JOB_OPTED_OUT: "opted out",
    EventKind.JOB_EXPIRED: "expired",
    EventKind.JOB_CANCELLED: "cancelled",
}
"""By the kind of the event."""


@dataclass(frozen=True, slots=True)
class Minute:
    """What ended in one minute, by outcome; `counts` None: not known."""

    at: float
    """When it began, POSIX."""
    counts: dict[str, int] | None


class Rates:
    """The last hour."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._events = Events(database)
        self._clock = clock
        self._minutes: dict[int, Counter[str]] = {}
        self._known_from: int | None = None
        """The first minute that is counted whole; None: not counted yet."""
        self.recorded = True
        """Whether the config has events written at all."""
        self._tasks = TaskSet()

    def begin(self, position: str) -> None:
        """Count anew what happened before a position of the outbox, the latest first; the next events may be heard meanwhile."""
        self._minutes.clear()
        self._known_from = None
        self._tasks.start(self._count(position), self._failed)

    async def close(self) -> None:
        """Stop counting."""
        await self._tasks.end()

    async def _count(self, position: str) -> None:
        self.recorded = await self._events.kept() != 0
        for _ in range(STEPS):
            counts, earlier = await self._events.count_recent(position, 60.0 * HOUR, STEP)
            self._add(counts)
            if earlier is None:
                self._known_from = 0
                return
            position = earlier
            # The oldest of these minutes may have more.
            self._known_from = min((count.minute for count in counts), default=self._now()) + 1
            await asyncio.sleep(PAUSE)

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, DatabaseError):
            log.error("counting events failed", action="defect", exc_info=error)
        if self._known_from is None:
            self._known_from = self._now() + 1

    def heard(self, events: Sequence[EventRow]) -> None:
        """Count the next events."""
        counted = Counter((int(event.at.timestamp()) // 60, event.kind) for event in events)
        self._add([EventCount(minute, kind, number) for (minute, kind), number in counted.items()])

    def hour(self) -> list[Minute] | None:
        """The last minutes, the current one last; None: not counted yet."""
        if self._known_from is None:
            return None
        now = self._now()
        minutes = range(now - HOUR + 1, now + 1)
        return [Minute(60.0 * minute, self._of(minute)) for minute in minutes]

    def _of(self, minute: int) -> dict[str, int] | None:
        if self._known_from is None or minute < self._known_from:
            return None
        counts = self._minutes.get(minute, Counter())
        return {outcome: counts[outcome] for outcome in OUTCOMES.values()}

    def _add(self, counts: Sequence[EventCount]) -> None:
        oldest = self._now() - HOUR
        for count in counts:
            if (outcome := OUTCOMES.get(count.kind)) is not None and count.minute >= oldest:
                self._minutes.setdefault(count.minute, Counter())[outcome] += count.events
        for minute in [minute for minute in self._minutes if minute < oldest]:
            del self._minutes[minute]

    def _now(self) -> int:
        return int(self._clock()) // 60
