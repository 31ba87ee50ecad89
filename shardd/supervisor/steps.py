"""Work that is repeated for ever: each piece fails by itself, is tried again by itself, and is reported by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from shardd.backoff import full_jitter
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.supervisor.admin.problems import Problem, ProblemKind

log = get_logger(__name__)

RETRY_FIRST, RETRY_CAP = 0.2, 5.0
"""Seconds until work that failed is tried again, after the first and after many failures."""
REPORT_AFTER: Final = 10.0
"""Seconds for which work fails before it is a problem: a database that restarts is back sooner."""
PATIENCE: Final = 60.0
"""Seconds that a run may take: each of its statements ends after a few."""


class Step:
    """One piece of work. `with step: …` swallows and remembers a SharddError of the block; other errors are defects and pass."""

    def __init__(self, name: str, *, patience: float | None = PATIENCE) -> None:
        """`name` stands at the beginning of a sentence; `patience`: seconds that a run may take, None: any number."""
        self.name = name
        self.error: str | None = None
        """Of the last run; None: it succeeded."""
        self._patience = patience
        self._failures = 0
        self._failing_since = 0.0
        self._running_since: float | None = None

    def __enter__(self) -> Self:
        self._running_since = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._running_since = None
        if error is None:
            self.succeeded()
        elif isinstance(error, SharddError):
            self.failed(str(error))
            return True
        return False

    def failed(self, error: str) -> None:
        """Note a failure."""
        if not self._failures:
            self._failing_since = time.monotonic()
            log.warning("%s failed", self.name, action="step", error=error)
        self._failures += 1
        self.error = error

    def succeeded(self) -> None:
        """Note a success."""
        if self._failures:
            log.info("%s works again", self.name, action="step", failures=self._failures)
        self._failures, self.error = 0, None

    def pause(self, regular: float) -> float:
        """Seconds until the next run: `regular` after a success, a growing backoff after failures."""
        return regular if self.error is None else full_jitter(self._failures, RETRY_FIRST, RETRY_CAP)

    def failing_for(self, now: float) -> float | None:
        """Seconds for which it has failed again and again; None: it has not, or not for long. `now`: monotonic."""
        seconds = now - self._failing_since
        return seconds if self._failures > 1 and seconds >= REPORT_AFTER else None

    def hanging_for(self, now: float) -> float | None:
        """Seconds for which it runs, if that is longer than it may take."""
        if self._running_since is None or self._patience is None or now - self._running_since < self._patience:
            return None
        return now - self._running_since


class Steps:
    """All of a supervisor's steps, and what is wrong with them."""

    def __init__(self) -> None:
        self.all: list[Step] = []

    def add(self, name: str, *, patience: float | None = PATIENCE) -> Step:
        """A new step; see `Step`."""
        self.all.append(Step(name, patience=patience))
        return self.all[-1]

    def problems(self) -> Iterator[Problem]:
        """One for each error, naming the steps that fail with it."""
        now = time.monotonic()
        failing: dict[str, list[tuple[str, float]]] = {}
        for step in self.all:
            if (seconds := step.failing_for(now)) is not None and step.error is not None:
                failing.setdefault(step.error, []).append((step.name, seconds))
            elif (seconds := step.hanging_for(now)) is not None:
                yield Problem(ProblemKind.STEP, f"{step.name}: has been running for {seconds:.0f} s")
        for error, steps in failing.items():
            names = ", ".join(name for name, _ in steps)
            longest = max(seconds for _, seconds in steps)
            yield Problem(ProblemKind.STEP, f"{names}: failing for {longest:.0f} s: {error}")
