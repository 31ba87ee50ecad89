"""How long another process has been silent, by time in which it could have been heard.

A supervisor that is stopped, or whose machine is, hears nothing meanwhile: what was sent to it waits in pipes and sockets, and is
read a little after it goes on. Of such a gap only a moment counts, so that healthy processes are not judged by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Silence:
    """Of one process."""

    def __init__(self, counts: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`counts`: seconds that count at most of the time between two looks; look more often than that."""
        self._counts = counts
        self._clock = clock
        self._looked_at = clock()
        self._lasted = 0.0

    def end(self) -> None:
        """It was heard."""
        self._looked_at, self._lasted = self._clock(), 0.0

    def look(self) -> float:
        """Seconds since it was heard."""
        now = self._clock()
        self._lasted += min(self._counts, now - self._looked_at)
        self._looked_at = now
        return self._lasted
