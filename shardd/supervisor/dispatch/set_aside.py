"""Jobs that were ended because preparing them ends workers: named in the log, and a problem in `status` for a while."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from shardd.logs import get_logger
from shardd.queue.settle import Claim
from shardd.supervisor.problems import Problem, ProblemKind

log = get_logger(__name__)

SHOWN: Final = 900.0
"""Seconds for which such a job is reported."""
MOST: Final = 1000
"""Jobs that are counted."""


class SetAside:
    """Those of one node, since its supervisor started."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[float, Claim, str | None]] = deque(maxlen=MOST)  # with the time, on the monotonic clock

    def note(self, claim: Claim, why: str | None) -> None:
        """A job was ended."""
        log.error("job set aside", action="poison", job=claim.id, device=claim.device_id, error=why)
        self._jobs.append((time.monotonic(), claim, why))

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        while self._jobs and self._jobs[0][0] < time.monotonic() - SHOWN:
            self._jobs.popleft()
        if self._jobs:
            _, claim, why = self._jobs[-1]
            jobs = "1 job has" if len(self._jobs) == 1 else f"{len(self._jobs):,} jobs have"
            yield Problem(
                ProblemKind.POISON,
                f"{jobs} failed because of what preparing them does to a worker; job {claim.id} of device {claim.device_id}: "
                f"{why}; see shardd job list --error-class=worker",
            )
