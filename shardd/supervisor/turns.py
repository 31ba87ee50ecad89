"""The order of turns: round robin among the devices whose turn has come, the others by the moment that they wait for.

A device stands in it at most once: `Line.due` says where.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from typing import Final

from shardd.supervisor.line import NEVER, Line

IN_TURNS: Final = -math.inf
"""`Line.due` of a device whose turn has come."""


class Turns:
    """Moments are of the caller's monotonic clock."""

    def __init__(self) -> None:
        self._queue: deque[Line] = deque()
        self._waits: list[tuple[float, int, Line]] = []
        self._ties = itertools.count()

    def add(self, line: Line) -> None:
        """Its turn has come: it stands behind all others."""
        line.due = IN_TURNS
        self._queue.append(line)

    def wait(self, line: Line, at: float) -> None:
        """Its turn comes at a moment, unless an earlier one is known."""
        if at == NEVER or (line.due is not None and line.due <= at):
            return
        line.due = at
        heapq.heappush(self._waits, (at, next(self._ties), line))

    def come(self, now: float) -> None:
        """Let those in whose moment is here."""
        while self._waits and self._waits[0][0] <= now:
            due, _, line = heapq.heappop(self._waits)
            # Another due time means that its turn came otherwise.
            if line.due == due:
                self.add(line)

    def take(self) -> Line | None:
        """The first in the queue, which leaves it; None: it is nobody's turn."""
        if not self._queue:
            return None
        line = self._queue.popleft()
        line.due = None
        return line

    def seconds(self, now: float) -> float | None:
        """Until somebody's turn; None: nobody waits for one."""
        if self._queue:
            return 0.0
        return max(0.0, self._waits[0][0] - now) if self._waits else None
