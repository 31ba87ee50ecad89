"""Rows of the audit log for which nobody waits: who signed in or out, also while the database is away.

They are written one after the other, each with the time when it happened, and tried again for a while. The log names those that
are lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from shardd.dashboard.fair_database import LANE, OURS
from shardd.errors import DatabaseError, SharddError, UnsureError
from shardd.logs import get_logger
from shardd.queue.acts import Acts, NewAct
from shardd.queue.database import Database
from shardd.tasks import TaskSet, wait_for_event

log = get_logger(__name__)

PATIENCE: Final = 0.5
"""Seconds for which whoever adds a row waits for it, if none waits already: what they do next has a later row."""
LASTS: Final = 900.0
"""Seconds for which a row is tried."""
MOST: Final = 1000
"""Rows that wait."""
RETRY_FIRST, RETRY_CAP = 0.5, 10.0
"""Seconds until a row is tried again, after the first and after many failures."""
ENDS: Final = 0.5
"""Seconds for what still waits when the process ends."""

Missed = Callable[[NewAct, SharddError], None]


@dataclass(slots=True)
class _Row:
    new: NewAct
    at: float
    """Monotonic seconds."""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def age(self) -> float:
        """Seconds since it happened."""
        return time.monotonic() - self.at


class LateRows:
    """Writes them."""

    def __init__(self, database: Database, missed: Missed) -> None:
        """`missed`: called with what is not written, and why."""
        self._database = database
        self._missed = missed
        self._waiting: deque[_Row] = deque()
        self._tasks = TaskSet()
        self._writes = False

    async def add(self, new: NewAct) -> None:
        """Have it written, and wait for that as long as it takes no time that anybody notices."""
        if len(self._waiting) >= MOST:
            self._missed(new, DatabaseError(f"{MOST:,} others wait for the database"))
            return
        row, is_first = _Row(new, time.monotonic()), not self._waiting
        self._waiting.append(row)
        if not self._writes:
            self._writes = True
            self._tasks.start(self._write_all(), self._failed)
        if is_first:
            await wait_for_event(row.is_over, PATIENCE)

    async def close(self) -> None:
        """Stop; what cannot be written at once is missed."""
        if self._waiting:
            await wait_for_event(self._waiting[-1].is_over, ENDS)
        await self._tasks.end()
        while self._waiting:
            self._missed(self._waiting.popleft().new, DatabaseError("the dashboard ended before the database answered"))

    async def _write_all(self) -> None:
        LANE.set(OURS)
        try:
            wait = RETRY_FIRST
            while self._waiting:
                row = self._waiting[0]
                try:
                    async with self._database.transaction() as database:
                        await Acts(database).record(row.new, age=row.age)
                    wait = RETRY_FIRST
                except UnsureError as error:  # a second row would say that it happened twice
                    self._missed(row.new, error)
                except DatabaseError as error:
                    if row.age < LASTS:
                        await asyncio.sleep(wait)
                        wait = min(2 * wait, RETRY_CAP)
                        continue
                    self._missed(row.new, error)
                self._waiting.popleft()
                row.is_over.set()
        finally:
            self._writes = False

    def _failed(self, error: Exception) -> None:
        log.error("writing the audit log failed", action="defect", exc_info=error)
