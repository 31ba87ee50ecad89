"""How many devices may connect at once: as many as the worker keeps up with. Pure.

Only one client at a time can be created (the library's maps), and each login costs CPU; the rest is waiting for the network. So
the window grows until devices begin to queue at this worker: then one takes several times as long from its turn to its dial
as the fastest of late did, which is how TCP Vegas sees a queue in the network (Brakmo and Peterson, 1995). The time after the
dial says how far away WhatsApp is, which is no reason to connect fewer. While WhatsApp does not answer most logins, it halves.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

START: Final = 2
"""Connects at once while nothing is known."""
USUAL: Final = 8
"""A slow worker, too, may connect so many: a busy machine would look like a queue, and one by one WhatsApp is far away."""
FEW: Final = 2.0
"""Devices that queue at the worker: with fewer, the window grows."""
MANY: Final = 4.0
"""With more, it shrinks."""
SMOOTHING: Final = 0.25
"""Share of the newest time in the smoothed one."""
ERA: Final = 300.0
"""Seconds after which the least time is forgotten, or one of a faster machine would count forever."""
LAST: Final = 8
"""Logins by which it is seen that most fail."""
HANGING: Final = 3.0
"""A login that takes so many times as long as usual hangs, and keeps no other from connecting."""
LEAST_PATIENCE: Final = 1.0
"""Seconds after its dial before which none hangs."""
KNOWN: Final = 15
"""Logins whose median is usual: a few far devices change nothing, or the others would wait for those that never end."""


class ConnectWindow:
    """The number of devices that may connect at the same time."""

    def __init__(self, most: int) -> None:
        """`most`: never more than this."""
        self._most = float(most)
        self._usual = float(min(most, USUAL))
        self._size = float(min(most, START))
        self._is_starting = True
        """Nothing has queued or failed yet: each dial lets one more in, as in TCP's slow start."""
        self._smoothed: float | None = None
        """Seconds from a turn to a dial."""
        self._logins = deque[float](maxlen=KNOWN)
        """Seconds from a dial to the end of a login."""
        self._least = float("inf")
        self._least_before = float("inf")
        self._era_ends = float("-inf")
        self._failed = deque[bool](maxlen=LAST)
        self._since_halved = 0
        """Logins."""

    @property
    def size(self) -> int:
        """Devices that may be connecting now."""
        return int(self._size)

    @property
    def patience(self) -> float:
        """Seconds after its dial at which a login hangs. On a busy machine all are slow, and more would make it slower."""
        return max(LEAST_PATIENCE, HANGING * median(self._logins or (0.0,)))

    def dialled(self, seconds: float, now: float, *, full: bool) -> None:
        """A device took `seconds` from its turn to its dial; `full`: as many as allowed were connecting."""
        queued = self._queued(seconds, now)
        if queued > MANY and self._size > self._usual:
            self._is_starting = False
            self._size = max(self._usual, self._size - 1.0 / USUAL)
        elif full and (queued < FEW or self._size < self._usual) and not self._are_most_failing:
            self._size = min(self._most, self._size + (1.0 if self._is_starting else 1.0 / self._size))

    def accepted(self, seconds: float) -> None:
        """A device is logged in, so many seconds after its dial."""
        self._logins.append(seconds)
        self._ended(failed=False)

    def refused(self, *, unanswered: bool) -> None:
        """A login failed. `unanswered`: WhatsApp did not answer, or reported an error of its own; else it refused the account."""
        self._ended(failed=unanswered)

    def _ended(self, *, failed: bool) -> None:
        self._failed.append(failed)
        self._since_halved += 1
        if self._are_most_failing and self._since_halved >= LAST:
            self._is_starting = False
            self._size = max(1.0, self._size / 2.0)
            self._since_halved = 0

    @property
    def _are_most_failing(self) -> bool:
        return sum(self._failed) > LAST / 2

    def _queued(self, seconds: float, now: float) -> float:
        """Devices before this one at the worker, by how long it took."""
        if now >= self._era_ends:
            self._era_ends, self._least_before, self._least = now + ERA, self._least, float("inf")
        self._least = min(self._least, seconds)
        self._smoothed = _smooth(self._smoothed, seconds)
        least = min(self._least, self._least_before)
        return self._smoothed / least - 1.0 if least > 0.0 else 0.0


def _smooth(before: float | None, seconds: float) -> float:
    return seconds if before is None else before + SMOOTHING * (seconds - before)
