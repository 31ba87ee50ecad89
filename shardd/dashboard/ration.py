"""A number of things that may be written in an hour, whatever others do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

HOUR: Final = 3600.0


class Ration:
    """Some at once, and as many in an hour."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._left = float(most)
        self._at = clock()
        self._refused = 0

    def take(self) -> int | None:
        """How many were refused since the last one that was not; None: this one is refused, too."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._most / HOUR)
        self._at = now
        if self._left < 1:
            self._refused += 1
            return None
        self._left -= 1
        refused, self._refused = self._refused, 0
        return refused
