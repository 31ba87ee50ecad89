"""Whether this host's clock agrees with the database's.

Pages and the status show times of both, and quiet hours are kept by the host's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from shardd.logs import get_logger
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.words import span

log = get_logger(__name__)

TOLERATED: Final = 5.0
"""Seconds by which the two may differ."""
FIX: Final = "enable NTP on the host whose clock is wrong: timedatectl set-ntp true"


class WallClock:
    """Compares them, from look to look."""

    def __init__(self, node: str, clock: Callable[[], float] | None = None) -> None:
        """`node`: its name. `clock`: POSIX seconds of this host."""
        self._node = node
        self._clock = clock or time.time
        self._ahead = 0.0

    def now(self) -> float:
        """What it says."""
        return self._clock()

    def look(self, asked_at: float, database_time: float) -> None:
        """What the database's clock said between `asked_at`, by this one, and now.

        However slow the answer was, they differ by as much as is noted, at least.
        """
        ahead = max(0.0, asked_at - database_time) - max(0.0, database_time - self.now())
        before, self._ahead = self._ahead, ahead
        if abs(ahead) > TOLERATED >= abs(before):
            log.warning("the clocks differ", action="clock", seconds=round(ahead, 1))

    def problems(self) -> Iterator[Problem]:
        """That they differ."""
        if abs(self._ahead) > TOLERATED:
            how = f"{span(abs(self._ahead))} {'ahead of' if self._ahead > 0 else 'behind'}"
            what = "times are shown wrong, and quiet hours are kept by it"
            yield Problem(ProblemKind.CLOCK, f"the clock of node {self._node} is {how} the database's: {what}; {FIX}")
