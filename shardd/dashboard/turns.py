"""Turns at what takes long, of which only some can be done at a time: a crowd at one thing delays no other much.

What waits is in lanes, and these take turns, so that a turn in a lane of one's own comes after as many as there are lanes; no
lane has more than its part of the turns at a time, and some may be kept for lanes that have none. Within a lane the best rank is
first, and of the same rank who came first. When too many wait, the last of the longest lane makes room.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

_Waiting = tuple[int, int, asyncio.Future[bool]]
"""Rank, number, and whether there was a turn."""


class CrowdedError(Exception):
    """Too many wait, and there is no turn."""


class Turns:
    """Gives them."""

    def __init__(self, at_once: int, most: int, *, most_of_one: int | None = None, kept: int = 0) -> None:
        """`most`: of those that wait. `most_of_one`: turns of one lane at a time; None: no fewer than of all.

        `kept`: turns for lanes that have none: who has one, and would take the last ones, waits.
        """
        self._free = at_once
        self._most: Final = most
        self._most_of_one: Final = at_once if most_of_one is None else most_of_one
        self._kept: Final = kept
        self._number = 0
        self._taken: Counter[str] = Counter()
        """By lane; without those that have none."""
        self._lanes: OrderedDict[str, list[_Waiting]] = OrderedDict()
        """Without empty ones; the lane that had a turn goes to the end."""

    @asynccontextmanager
    async def turn(self, lane: str, rank: int) -> AsyncGenerator[None]:
        """Wait for a turn. Raises CrowdedError."""
        if self._free and self._may_take(lane):
            self._take(lane)
        else:
            await self._wait(lane, rank)
        try:
            yield
        finally:
            self._give_back(lane)

    async def _wait(self, lane: str, rank: int) -> None:
        self._number += 1
        has_turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting = (rank, self._number, has_turn)
        self._lanes.setdefault(lane, []).append(waiting)
        if sum(map(len, self._lanes.values())) > self._most:
            longest = max(self._lanes, key=lambda one: (len(self._lanes[one]), max(self._lanes[one])[:2]))
            self._end(longest, max(self._lanes[longest]), given=False)
        try:
            given = await has_turn
        except asyncio.CancelledError:
            if has_turn.cancelled():
                self._remove(lane, waiting)
            elif has_turn.result():
                self._give_back(lane)
            raise
        if not given:
            raise CrowdedError

    def _may_take(self, lane: str) -> bool:
        taken = self._taken[lane]
        return taken < self._most_of_one and (taken == 0 or self._free > self._kept)

    def _take(self, lane: str) -> None:
        self._free -= 1
        self._taken[lane] += 1

    def _give_back(self, lane: str) -> None:
        """The turn goes to the next one."""
        self._free += 1
        self._taken[lane] -= 1
        self._taken += Counter()  # without those that have none
        while self._free and (following := next(filter(self._may_take, self._lanes), None)) is not None:
            first = min(self._lanes[following])
            self._lanes.move_to_end(following)
            if not first[2].cancelled():
                self._take(following)
            self._end(following, first, given=True)

    def _end(self, lane: str, waiting: _Waiting, *, given: bool) -> None:
        self._remove(lane, waiting)
        if not waiting[2].done():
            waiting[2].set_result(given)

    def _remove(self, lane: str, waiting: _Waiting) -> None:
        if waiting in (waits := self._lanes.get(lane, [])):
            waits.remove(waiting)
        if not waits:
            self._lanes.pop(lane, None)
