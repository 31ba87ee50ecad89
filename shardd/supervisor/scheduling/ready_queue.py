"""The order between devices: round robin among those that may send, the others by the time at which they may.

No I/O and no clock of its own: times are seconds of the caller's monotonic clock.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from typing import Final

from shardd.supervisor.scheduling.device_queue import NEVER, DeviceQueue

READY: Final = -math.inf
"""`DeviceQueue.due` of a device in the ready queue."""


class ReadyQueue:
    """A device is in it at most once; `DeviceQueue.due` is its place."""

    def __init__(self) -> None:
        self._ready: deque[DeviceQueue] = deque()
        self._later: list[tuple[float, int, DeviceQueue]] = []
        self._ties = itertools.count()

    def add(self, queue: DeviceQueue, at: float) -> None:
        """It may send at a moment; minus infinity: now, after all others that may. An earlier time that is known is kept."""
        if at == NEVER or (queue.due is not None and queue.due <= at):
            return
        queue.due = at
        if at == READY:
            self._ready.append(queue)
        else:
            heapq.heappush(self._later, (at, next(self._ties), queue))

    def take(self, now: float) -> DeviceQueue | None:
        """Remove and return the next device that may send; None: there is none."""
        while self._later and self._later[0][0] <= now:
            due, _, queue = heapq.heappop(self._later)
            # Another due time means that an earlier one was found meanwhile.
            if queue.due == due:
                self.add(queue, READY)
        if not self._ready:
            return None
        queue = self._ready.popleft()
        queue.due = None
        return queue

    def seconds_until_next(self, now: float) -> float | None:
        """Seconds until a device may send; None: none is waiting."""
        if self._ready:
            return 0.0
        return max(0.0, self._later[0][0] - now) if self._later else None
