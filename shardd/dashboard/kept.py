"""Answers of the database that take it long: one such question at a time, and each is shown again for a hundred times as long.

However many look, and however often, such questions take a hundredth of one of the database's cores.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from shardd.bounded import remember
from shardd.dashboard.fair_database import LANE, OURS
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.tasks import TaskSet

log = get_logger(__name__)

SHARE: Final = 100.0
"""How many times as long as it took an answer is good."""
AT_LEAST: Final = 5.0
"""Seconds for which any answer is good."""
MOST: Final = 1000
"""Answers that are kept; the one that nobody asked for longest makes room."""

T = TypeVar("T")


@dataclass(slots=True)
class Answer(Generic[T]):
    """What the database said."""

    value: T | None
    """None: it said nothing."""
    error: str | None
    asked_at: float
    """POSIX seconds."""
    good_until: float
    """Monotonic seconds."""

    @property
    def is_good(self) -> bool:
        """Whether nobody needs to ask anew."""
        return time.monotonic() <= self.good_until


class Kept(Generic[T]):
    """The answers to one question about many things."""

    def __init__(self, ask: Callable[[str], Awaitable[T]], turn: asyncio.Lock) -> None:
        """`turn`: whoever asks the database holds it, so that several of these ask one at a time."""
        self._ask = ask
        self._turn = turn
        self._answers: OrderedDict[str, Answer[T]] = OrderedDict()
        self._asking: dict[str, asyncio.Event] = {}
        self._tasks = TaskSet()

    def of(self, key: str) -> Answer[T] | None:
        """The last answer, or None; one that is not good any more is asked for anew, in the background."""
        answer = self._answers.get(key)
        if answer is None or not answer.is_good:
            self._begin(key)
        else:
            self._answers.move_to_end(key)
        return answer

    def last(self, key: str) -> Answer[T] | None:
        """The last answer, however old."""
        return self._answers.get(key)

    async def wait(self, key: str, patience: float) -> Answer[T] | None:
        """`of`, but a good answer is awaited for so many seconds; then one that is not good must do, if there is any."""
        if (answer := self.of(key)) is not None and (answer.is_good or patience <= 0):
            return answer
        try:
            async with asyncio.timeout(patience):
                await self._begin(key).wait()
        except TimeoutError:
            return answer
        return self._answers.get(key)

    def outdate(self, key: str | None = None) -> None:
        """Something happened that changes the answer to this; None: to everything."""
        for answer in self._answers.values() if key is None else filter(None, [self._answers.get(key)]):
            answer.good_until = 0.0

    async def close(self) -> None:
        """Stop asking."""
        await self._tasks.end()

    def _begin(self, key: str) -> asyncio.Event:
        if (answered := self._asking.get(key)) is None:
            answered = self._asking[key] = asyncio.Event()
            self._tasks.start(self._fetch(key, answered), self._failed)
        return answered

    async def _fetch(self, key: str, answered: asyncio.Event) -> None:
        LANE.set(OURS)  # for all who look at it
        try:
            async with self._turn:
                asked_at, began = time.time(), time.monotonic()
                value, error = None, None
                try:
                    value = await self._ask(key)
                except SharddError as refused:
                    error = str(refused)
                ended = time.monotonic()
            good_until = ended + max(AT_LEAST, SHARE * (ended - began))
            remember(self._answers, key, Answer(value, error, asked_at, good_until), MOST)
        finally:
            del self._asking[key]
            answered.set()

    def _failed(self, error: Exception) -> None:
        log.error("a question to the database failed", action="defect", exc_info=error)
