"""What acts on many jobs would find: counted in the background while somebody waits for it, and no longer.

With a million jobs that takes seconds. A page shows what was counted so far, and offers the act once all of them were.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from shardd.bounded import remember
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.queue.bulk_actions import BulkAction, Choice, Seen, look
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, JobCount, Traits
from shardd.tasks import TaskSet, wait_for_event

log = get_logger(__name__)

AT_ONCE: Final = 2
"""Counts that run at the same time: each uses a connection."""
MOST: Final = 32
"""Counts that are kept; the one that nobody asked for longest makes room."""
UNWATCHED: Final = 10.0
"""Seconds after which a count ends that nobody asks for."""


class Look:
    """A count, as far as it is."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.key = secrets.token_urlsafe(16)
        self.counts: list[JobCount] = []
        self.seen: Seen | None = None
        """None: it is not finished."""
        self.error: SharddError | None = None
        self._clock = clock
        self._asked_at = clock()
        self._ended = asyncio.Event()

    @property
    def jobs(self) -> int:
        """How many were found so far."""
        return sum(some.jobs for some in self.counts)

    @property
    def is_watched(self) -> bool:
        """Whether somebody still waits for it."""
        return self._clock() < self._asked_at + UNWATCHED

    def end(self, seen: Seen | None, error: SharddError | None = None) -> None:
        """Nothing more follows; without a result, nobody waits any more."""
        self.seen, self.error = seen, error
        self._ended.set()

    async def wait(self, patience: float) -> Seen | None:
        """The result, if it comes within so many seconds. Raises SharddError."""
        self._asked_at = self._clock()
        if not await wait_for_event(self._ended, patience):
            return None
        if self.error is not None:
            raise self.error
        return self.seen


class _UnwatchedError(Exception):
    """Nobody waits for this count any more."""


class Looks:
    """All that are being counted."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._looks: OrderedDict[str, Look] = OrderedDict()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks = TaskSet()

    def begin(self, action: BulkAction, traits: Traits) -> Look:
        """Count what an action would find."""
        begun = Look(self._clock)
        remember(self._looks, begun.key, begun, MOST)
        self._tasks.start(self._count(begun, action, traits), lambda error: _failed(begun, error))
        return begun

    def of(self, key: str) -> Look | None:
        """The count with this key; None: it is not there any more."""
        if (found := self._looks.get(key)) is not None:
            self._looks.move_to_end(key)
        return found

    async def close(self) -> None:
        """Stop counting."""
        await self._tasks.end()

    async def _count(self, begun: Look, action: BulkAction, traits: Traits) -> None:
        def progress(counts: list[JobCount]) -> None:
            begun.counts = list(counts)
            if not begun.is_watched or begun.key not in self._looks:
                raise _UnwatchedError

        try:
            async with self._turns:
                begun.end(await look(action, JobAdmin(self._database), Choice(None, traits), progress=progress))
        except SharddError as error:
            begun.end(None, error)
        except _UnwatchedError:
            self._looks.pop(begun.key, None)


def _failed(begun: Look, error: Exception) -> None:
    log.error("counting jobs failed", action="defect", exc_info=error)
    begun.end(None, SharddError("this is a defect of shardd; its log has the details"))
