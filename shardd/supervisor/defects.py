"""Defects of shardd itself: written to the log, and a problem in the status for a while.

A defect costs only the message, job or step in which it occurs. It is reported until it has not happened again for `SHOWN`.
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
"""Seconds for which a defect is reported after it last happened."""
MOST: Final = 20
"""Distinct defects that are remembered; beyond that, the one that last happened longest ago is forgotten."""


@dataclass(slots=True)
class _Known:
    times: int
    last: float
    """On the monotonic clock."""


class Defects:
    """The defects of one node since its supervisor started."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def note(self, text: str, *, shard: int | None = None, error: BaseException | None = None) -> None:
        """Report a defect. `text`: without details that differ each time; `error`: its stack is logged."""
        where = text if shard is None else f"shard {shard}: {text}"
        known = self._known.pop(where, None) or _Known(0, 0.0)
        self._known[where] = known
        known.times, known.last = known.times + 1, time.monotonic()
        while len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        # One that happens with every message must not fill the disk: log the 1st, 2nd, 4th, 8th … time.
        if known.times & (known.times - 1) == 0:
            log.error("%s", text, action="defect", shard=shard, times=known.times, exc_info=error)

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        since = time.monotonic() - SHOWN
        for text, known in self._known.items():
            if known.last > since:
                times = "" if known.times == 1 else f" ({known.times:,} times)"
                yield Problem(ProblemKind.DEFECT, f"defect of shardd: {text}{times}: please report it, with the log")
