"""What went wrong in shardd itself: written to the log, and a problem in `status` for a while.

A defect costs as little as possible: the message, the job or the step that it stands in. So that it is not only a line
in a log, it is reported until it has not happened again for `SHOWN`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shardd.logs import get_logger
from shardd.supervisor.problems import Problem, ProblemKind

log = get_logger(__name__)

SHOWN: Final = 900.0
"""Seconds after its last time for which a defect is reported."""
MOST: Final = 20
"""Different defects that are remembered; of more, those are forgotten that have not happened for longest."""


@dataclass(slots=True)
class _Known:
    times: int
    last: float
    """On the monotonic clock."""


class Defects:
    """Of one node, since its supervisor started."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def note(self, text: str, *, shard: int | None = None, error: BaseException | None = None) -> None:
        """Something happened that must not. `text`: what, without what differs each time; `error`: its stack is logged."""
        where = text if shard is None else f"shard {shard}: {text}"
        known = self._known.pop(where, None) or _Known(0, 0.0)
        self._known[where] = known
        known.times, known.last = known.times + 1, time.monotonic()
        while len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        # One that comes with every message must not fill the disk: the 1st, 2nd, 4th, 8th … time.
        if known.times & (known.times - 1) == 0:
            log.error("%s", text, action="defect", shard=shard, times=known.times, exc_info=error)

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        since = time.monotonic() - SHOWN
        for text, known in self._known.items():
            if known.last > since:
                times = "" if known.times == 1 else f" ({known.times:,} times)"
                yield Problem(ProblemKind.DEFECT, f"defect of shardd: {text}{times}: please report it, with the log")
