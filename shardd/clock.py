"""The clock of leases: it never jumps, and it goes on while the machine is suspended, unlike the monotonic clock.

Its values can be compared by all processes of a host, so that a deadline is passed on as a moment, not as a duration.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

CLOSE_SHARE: Final = 0.25
"""Of the time between the deadlines: for closing the clients, after what has started."""


class Deadlines(NamedTuple):
    """Until when a node's leases are good, on this clock."""

    soft: float
    """From here on nothing is claimed or handed over; what has started may end."""
    hard: float
    """From here on no process with an open client of these shards may exist: soon another node may have them."""

    def left_to_finish(self) -> float:
        """Seconds that what has started may still take, so that the clients can be closed before `hard`."""
        return max(0.0, self.hard - (self.hard - self.soft) * CLOSE_SHARE - boot_now())


def boot_now() -> float:
    """Seconds since the host's start."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
