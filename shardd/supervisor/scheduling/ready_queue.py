"""The order of turns: round robin among the devices whose turn has come, the others by the moment that they wait for.

A device stands in it at most once: `DeviceQueue.due` says where.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from typing import Final

from shardd.supervisor.scheduling.device_queue import NEVER, DeviceQueue

READY: Final = -math.inf
"""`DeviceQueue.due` of a device whose turn has come."""


class ReadyQueue:
    """Moments are of the caller's monotonic clock."""

    def __init__(self) -> None:
        self._queue: deque[DeviceQueue] = deque()
        self._waits: list[tuple[float, int, DeviceQueue]] = []
        self._ties = itertools.count()

    def add(self, queue: DeviceQueue) -> None:
        """Its turn has come: it stands behind all others."""
        queue.due = READY
        self._queue.append(queue)

    def wait(self, queue: DeviceQueue, at: float) -> None:
        """Its turn comes at a moment, unless an earlier one is known."""
        if at == NEVER or (queue.due is not None and queue.due <= at):
            return
        queue.due = at
        heapq.heappush(self._waits, (at, next(self._ties), queue))

    def come(self, now: float) -> None:
        """Let those in whose moment is here."""
        while self._waits and self._waits[0][0] <= now:
            due, _, queue = heapq.heappop(self._waits)
            # Another due time means that its turn came otherwise.
            if queue.due == due:
                self.add(queue)

    def take(self) -> DeviceQueue | None:
        """The first in the queue, which leaves it; None: it is nobody's turn."""
        if not self._queue:
            return None
        queue = self._queue.popleft()
        queue.due = None
        return queue

    def seconds(self, now: float) -> float | None:
        """Until somebody's turn; None: nobody waits for one."""
        if self._queue:
            return 0.0
        return max(0.0, self._waits[0][0] - now) if self._waits else None
