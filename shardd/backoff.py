"""How long to wait before the next try, and when to stop trying.

Full jitter: a uniform draw between zero and an exponentially growing ceiling, so that what failed together does not retry
together. No clock is read here: times are seconds of the caller's monotonic clock. tenacity and pybreaker were considered: both
wrap a function call, whereas shardd stores when a job is due and counts crashes of processes.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final

# Spreads load; nothing secret depends on it.
_RNG: Final = random.Random()  # noqa: S311


def ceiling(tries: int, first: float, cap: float) -> float:
    """The longest wait, in seconds, after `tries` failures in a row (1 = the first failure)."""
    # 2**63 seconds is forever; the bound avoids huge numbers after many failures.
    return float(min(cap, first * 2 ** min(tries - 1, 63)))


def full_jitter(tries: int, first: float, cap: float) -> float:
    """A wait in seconds, drawn from 0 … ceiling."""
    return _RNG.uniform(0, ceiling(tries, first, cap))


def half_jitter(tries: int, first: float, cap: float) -> float:
    """A wait in seconds, drawn from half the ceiling … ceiling: for a job, which must not be retried at once."""
    top = ceiling(tries, first, cap)
    return _RNG.uniform(top / 2, top)


@dataclass(slots=True)
class Breaker:
    """Opens after too many crashes within a time; then lets one probe through now and then."""

    crashes: int
    within: float
    """Seconds."""
    probe_every: float
    """Seconds."""
    _times: deque[float] = field(default_factory=deque)
    opened_at: float | None = None

    def crashed(self, now: float) -> bool:
        """Count a crash; True when the breaker is open after it."""
        self._times.append(now)
        while self._times and self._times[0] <= now - self.within:
            self._times.popleft()
        if self.opened_at is not None or len(self._times) >= self.crashes:
            self.opened_at = now
        return self.opened_at is not None

    def healthy(self) -> None:
        """Close it: what it watches has worked for a while, or an operator asks for it."""
        self._times.clear()
        self.opened_at = None

    def next_probe(self) -> float | None:
        """When the next probe may start; None while the breaker is closed."""
        return None if self.opened_at is None else self.opened_at + self.probe_every
