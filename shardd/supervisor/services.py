"""The lifecycle of every long-running part of a supervisor: start, run, stop; and the steps that such parts repeat.

A group starts its services in order, runs them in one task group and stops them in the reverse order, so a service may rely on
those before it until its own end. When one fails, the others are stopped in that order too. A step that fails is retried and
reported without affecting others.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from shardd.backoff import full_jitter
from shardd.errors import DatabaseError, SharddError
from shardd.logs import get_logger
from shardd.postgres.errors import is_answer
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.tasks import end_tasks
from shardd.words import count

log = get_logger(__name__)

RETRY_FIRST, RETRY_CAP = 0.2, 2.0
"""Seconds until a failed step is retried, after the first and after many failures."""
REPORT_AFTER: Final = 10.0
"""Seconds for which a step fails before it is a problem: a database that restarts is back sooner."""
NAMED: Final = 3
"""Steps that fail with the same error and are named; the others are counted."""
PATIENCE: Final = 60.0
"""Seconds that one run may take: each of its statements ends after a few."""


class Step:
    """Repeated work. `with step: …` swallows and remembers a SharddError of the block; other errors are defects and pass."""

    def __init__(self, name: str, *, patience: float | None = PATIENCE) -> None:
        """`name` begins a sentence; `patience`: seconds that a run may take, None: any number."""
        self.name = name
        self.error: str | None = None
        """Of the last run; None: it succeeded."""
        self.unanswered = False
        """Whether the last run failed because the database did not answer."""
        self.failed_at = self.recovered_at = -math.inf
        """When a run failed last, and when one succeeded last after a failure, on the monotonic clock."""
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
            self.failed(str(error), unanswered=isinstance(error, DatabaseError) and not is_answer(error))
            return True
        return False

    def failed(self, error: str, *, unanswered: bool = False) -> None:
        """A run failed; `unanswered`: because the database did not answer."""
        self.failed_at = time.monotonic()
        if not self._failures:
            self._failing_since = self.failed_at
            log.warning("%s failed", self.name, action="step", error=error)
        self._failures += 1
        self.error, self.unanswered = error, unanswered

    def succeeded(self) -> None:
        """A run succeeded."""
        if self._failures:
            self.recovered_at = time.monotonic()
            log.info("%s works again", self.name, action="step", failures=self._failures)
        self._failures, self.error, self.unanswered = 0, None, False

    def pause(self, regular: float) -> float:
        """Seconds until the next run: `regular` after a success, a growing backoff after failures."""
        return regular if self.error is None else full_jitter(self._failures, RETRY_FIRST, RETRY_CAP)

    def failing_for(self, now: float) -> float | None:
        """Seconds for which every run has failed; None: not so, or not for long. `now`: monotonic."""
        seconds = now - self._failing_since
        return seconds if self._failures > 1 and seconds >= REPORT_AFTER else None

    def hanging_for(self, now: float) -> float | None:
        """Seconds for which it has been running, if that is longer than it may take."""
        if self._running_since is None or self._patience is None or now - self._running_since < self._patience:
            return None
        return now - self._running_since


class Steps:
    """All steps of a supervisor, and their problems."""

    def __init__(self) -> None:
        self.all: list[Step] = []
        self.vital: Step | None = None
        """The one that shows whether the database answers: whatever else this node does, it renews its leases."""

    def add(self, name: str, *, patience: float | None = PATIENCE) -> Step:
        """A new step; see `Step`."""
        self.all.append(Step(name, patience=patience))
        return self.all[-1]

    def database_error(self) -> str | None:
        """The error of a database that has not answered for a while; None: it answers."""
        vital = self.vital
        if vital is None or not vital.unanswered or vital.failing_for(time.monotonic()) is None:
            return None
        return vital.error

    def problems(self) -> Iterator[Problem]:
        """One for each error, with the steps that fail with it; none for those that `database_error` explains."""
        now = time.monotonic()
        failing: dict[str, list[tuple[str, float]]] = {}
        for step in self.all:
            if step.unanswered and self._is_explained(step):
                continue
            if (seconds := step.failing_for(now)) is not None and step.error is not None:
                failing.setdefault(step.error, []).append((step.name, seconds))
            elif (seconds := step.hanging_for(now)) is not None:
                yield Problem(ProblemKind.STEP, f"{step.name}: has been running for {seconds:.0f} s")
        for error, steps in failing.items():
            names = ", ".join(name for name, _ in steps[:NAMED])
            more = f" and {count(len(steps) - NAMED, 'more step')}" if len(steps) > NAMED else ""
            longest = max(seconds for _, seconds in steps)
            yield Problem(ProblemKind.STEP, f"{names}{more}: failing for {longest:.0f} s: {error}")

    def _is_explained(self, step: Step) -> bool:
        """Whether it failed because the database is away, or before that came back: its next run tells more."""
        return self.vital is not None and (self.vital.unanswered or step.failed_at < self.vital.recovered_at)


class Service:
    """A long-running part. `stop` before `start`, and `stop` twice, are fine."""

    _task: asyncio.Task[None] | None = None
    _stopped = False

    async def start(self) -> None:
        """Get ready to run. Raises SharddError."""

    async def run(self) -> None:
        """Serve until `stop`. Raises only defects."""
        if self._stopped:
            return
        self._task = asyncio.current_task()
        try:
            await self.serve()
        except asyncio.CancelledError:
            if not self._stopped:
                raise

    async def serve(self) -> None:
        """The work; cancelled by `stop`. By default, only wait."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """End `run`, then `close`."""
        self._stopped = True
        task, self._task = self._task, None
        if task is not None:
            await end_tasks([task])
        await self.close()

    async def close(self) -> None:
        """What is left to do when `run` has ended. May be called twice."""


class Periodic(Service):
    """Repeats a step; a failure is reported and retried after a backoff."""

    def __init__(
        self,
        steps: Steps,
        name: str,
        work: Callable[[], Awaitable[object]],
        *,
        every: float,
        first: float = 0.0,
        share: float = 0.0,
        patience: float | None = PATIENCE,
    ) -> None:
        """`name`, `patience`: see `Step`; `every`, `first`: seconds between runs, and before the first one.

        `share`: the pause is at least this many times as long as the shorter one of the last two successful runs.
        """
        self._step = steps.add(name, patience=patience)
        self._work = work
        self._every = every
        self._first = first
        self._share = share
        self._took = math.inf
        """Seconds of the last successful run."""

    async def serve(self) -> None:
        """Work, pause, repeat."""
        await asyncio.sleep(self._first)
        while True:
            began = time.monotonic()
            with self._step:
                await self._work()
            await asyncio.sleep(self.pause_after(time.monotonic() - began))

    def pause_after(self, took: float) -> float:
        """Seconds until the next run, after one that took `took` seconds."""
        pause = self._step.pause(self._every)
        if self._step.error is not None:
            return pause  # its duration is the timeout, not the cost of the work
        # One run may have waited for a database that was away, or had just come back.
        cost, self._took = min(self._took, took), took
        return max(pause, self._share * cost)


class ServiceGroup:
    """Runs services from their start to their stop."""

    def __init__(self, services: Sequence[Service], failed: Callable[[BaseException], None]) -> None:
        """`failed`: gets the error of a service; it should set `until` of `run`."""
        self._services = services
        self._failed = failed

    async def run(self, until: asyncio.Event, stopping: Callable[[], None]) -> None:
        """Start all, wait for `until`, call `stopping`, stop all. Raises what a service's `start` raises."""
        refused: BaseException | None = None
        started: list[Service] = []
        async with asyncio.TaskGroup() as tasks:
            try:
                for service in self._services:
                    started.append(service)
                    await service.start()
                    tasks.create_task(self._run(service), name=type(service).__name__)
                await until.wait()
                stopping()
            except Exception as error:  # noqa: BLE001  # raised below: here it would become an exception group
                refused = error
            for service in reversed(started):
                await service.stop()
        if refused is not None:
            raise refused

    async def _run(self, service: Service) -> None:
        try:
            await service.run()
        except Exception as error:
            log.critical("a service of the supervisor failed", action="defect", exc_info=error)
            self._failed(error)
