"""Searching in windows, each as large as the time that is left allows: no statement takes long, whatever it has to read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

Row = TypeVar("Row")

GROWTH: Final = 4
"""How many times as large as the last one a window may be."""
USED: Final = 0.8
"""How much of the time that is left a window is to take: the next one may be slower."""


@dataclass(slots=True)
class Window:
    """`size`: how many, of whatever is searched."""

    size: int

    def adapt(self, took: float, left: float) -> None:
        """Make the next one as large as most of the time that is left allows, if each takes as long as in the last one."""
        self.size = max(1, min(self.size * GROWTH, int(USED * self.size * left / max(took, 1e-6))))


async def search_ids(
    read: Callable[[int, int, int], Awaitable[list[Row]]],
    most: int,
    first: int,
    last: int,
    window: Window,
    *,
    ends: float,
    clock: Callable[[], float],
    upwards: bool = False,
) -> tuple[list[Row], int | None]:
    """Up to `most` rows of these ids, the last ones first; and the id at which the time was up, None: there are no more.

    `read`: up to so many rows of the ids from one to another. `ends`: when the time is up, by `clock`.
    """
    found: list[Row] = []
    while first <= last:
        size = window.size
        low, high = (first, min(last, first + size - 1)) if upwards else (max(first, last - size + 1), last)
        began = clock()
        found += await read(low, high, most - len(found))
        now = clock()
        if len(found) >= most:
            return found, None
        first, last = (high + 1, last) if upwards else (first, low - 1)
        if now >= ends and first <= last:
            return found, first - 1 if upwards else last + 1
        window.adapt(now - began, ends - now)
    return found, None
