"""What acts on many jobs would find: counted in the background while somebody waits for it, and no longer.

With a million jobs that takes seconds. A page shows what was counted so far, and offers the act once all of them were.

Users take turns, and each has counts of its own: who begins many waits longer for them, and loses some; nobody else does. Equal
questions of one user are one count while it goes on. Those of several are not: the count would wait in the lane of who began it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Final

from shardd.dashboard.shares import TooManyError
from shardd.dashboard.sign_ins import MOST
from shardd.dashboard.turns import CrowdedError, Turns
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.queue.bulk_actions import BulkAction, Choice, Seen, look
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, JobCount, Traits
from shardd.tasks import TaskSet, wait_for_event

log = get_logger(__name__)

AT_ONCE: Final = 2
"""Counts that run at the same time, each of another user: each uses a connection."""
MOST_OF_ONE: Final = 8
"""Counts of one user. Of more, the one that can be missed most easily makes room, see `_importance`."""
UNWATCHED: Final = 10.0
"""Seconds after which a count ends, and is forgotten, that nobody asks for."""


class Look:
    """A count, as far as it is."""

    def __init__(self, lane: str, action: BulkAction, traits: Traits, clock: Callable[[], float]) -> None:
        self.key = secrets.token_urlsafe(16)
        self.lane = lane
        """Whose it is."""
        self.action = action
        self.traits = traits
        self.counts: list[JobCount] = []
        self.seen: Seen | None = None
        """None: it is not finished."""
        self.error: SharddError | None = None
        self.runs = False
        """Whether it has had its turn."""
        self.asked_at = clock()
        self.task: asyncio.Task[None] | None = None
        self._clock = clock
        self._ended = asyncio.Event()

    @property
    def jobs(self) -> int:
        """How many were found so far."""
        return sum(some.jobs for some in self.counts)

    @property
    def is_watched(self) -> bool:
        """Whether somebody still waits for it."""
        return self._clock() < self.asked_at + UNWATCHED

    @property
    def has_ended(self) -> bool:
        """Whether nothing more follows."""
        return self._ended.is_set()

    def answers(self, action: BulkAction, traits: Traits) -> bool:
        """Whether it counts, still, what this action would find: the result of one that has ended is older than the question."""
        return not self.has_ended and self.action.count == action.count and self.traits == traits

    def end(self, seen: Seen | None, error: SharddError | None = None) -> None:
        """Nothing more follows; without a result, nobody waits any more."""
        self.seen, self.error = seen, error
        self._ended.set()

    async def wait(self, patience: float) -> Seen | None:
        """The result, if it comes within so many seconds. Raises SharddError."""
        self.asked_at = self._clock()
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
        self._looks: dict[str, Look] = {}
        self._turns = Turns(AT_ONCE, MOST * MOST_OF_ONE, most_of_one=1)
        self._tasks = TaskSet()

    def begin(self, lane: str, action: BulkAction, traits: Traits) -> Look:
        """Count what an action would find. `lane`: who asks, see `SignIn.lane`."""
        for one in [one for one in self._looks.values() if not one.is_watched]:
            self._drop(one)
        own = [one for one in self._looks.values() if one.lane == lane]
        if (same := next((one for one in own if one.answers(action, traits)), None)) is not None:
            return same
        if len(own) >= MOST_OF_ONE:
            self._drop(min(own, key=_importance))
        begun = Look(lane, action, traits, self._clock)
        self._looks[begun.key] = begun
        begun.task = self._tasks.start(self._count(begun), lambda error: _failed(begun, error))
        return begun

    def go_on(self, key: str, lane: str, action: BulkAction, traits: Traits) -> Look:
        """The count with this key, which this lane has begun; a new one if it is not there any more."""
        found = self._looks.get(key)
        return found if found is not None and found.lane == lane else self.begin(lane, action, traits)

    async def close(self) -> None:
        """Stop counting."""
        await self._tasks.end()

    def _drop(self, one: Look) -> None:
        del self._looks[one.key]
        if one.task is not None:
            one.task.cancel()

    async def _count(self, begun: Look) -> None:
        def progress(counts: list[JobCount]) -> None:
            begun.counts = list(counts)
            if not begun.is_watched or begun.key not in self._looks:
                raise _UnwatchedError

        try:
            async with self._turns.turn(begun.lane, 0):
                progress([])
                begun.runs = True
                jobs, choice = JobAdmin(self._database), Choice(None, begun.traits)
                begun.end(await look(begun.action, jobs, choice, progress=progress))
        except CrowdedError:
            begun.end(None, TooManyError("too many counts wait for their turn: try again in a moment"))
        except SharddError as error:
            begun.end(None, error)
        except _UnwatchedError:
            self._looks.pop(begun.key, None)


def _importance(one: Look) -> tuple[bool, bool, float]:
    """By which one of several is kept: whoever waits for one that has ended gets it anyway, and one that runs is to end."""
    return not one.has_ended, one.runs, one.asked_at


def _failed(begun: Look, error: Exception) -> None:
    log.error("counting jobs failed", action="defect", exc_info=error)
    begun.end(None, SharddError("this is a defect of shardd; its log has the details"))
