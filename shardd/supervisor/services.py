"""The lifecycle that every long-running part of a supervisor has: start, run, stop.

A group starts its services in order, runs each in one task group and stops them in the reverse order, so a service may rely on
those before it until its own end. A service that fails does not tear the others down: the group is told, and an orderly stop
begins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from shardd.logs import get_logger
from shardd.supervisor.steps import PATIENCE, Steps
from shardd.supervisor.tasks import end_tasks

log = get_logger(__name__)


class Service:
    """A long-running part. `stop` before `start`, and `stop` twice, are fine."""

    _task: asyncio.Task[None] | None = None
    _stopped = False

    async def start(self) -> None:
        """Get ready to run. Raises SharddError."""

    async def run(self) -> None:
        """Serve until `stop`. Raises what is a defect."""
        if self._stopped:
            return
        self._task = asyncio.current_task()
        try:
            await self.serve()
        except asyncio.CancelledError:
            if not self._stopped:
                raise

    async def serve(self) -> None:
        """The work; cancelled by `stop`. Waits only, unless a service says otherwise."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """End `run`, then hand on what is left; returns when that is done."""
        self._stopped = True
        task, self._task = self._task, None
        if task is not None:
            await end_tasks([task])
        await self.close()

    async def close(self) -> None:
        """What is left to do once `run` has ended. May be called twice."""


class Periodic(Service):
    """Repeats one piece of work; each failure is reported by its step and retried after a backoff."""

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
        """`name`: see `Step`; `every`, `first`: seconds between runs, and before the first one.

        `share`: the pause is at least this many times as long as the work takes, if it succeeds. `patience`: see `Step`.
        """
        self._step = steps.add(name, patience=patience)
        self._work = work
        self._every = every
        self._first = first
        self._share = share

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
        # How long a database that did not answer was waited for says nothing of how dear the work is.
        return pause if self._step.error is not None else max(pause, self._share * took)


class ServiceGroup:
    """Runs services from their start to their stop."""

    def __init__(self, services: Sequence[Service], failed: Callable[[BaseException], None]) -> None:
        """`failed`: told when a service ends with an error; it should cause `until` of `run` to be set."""
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
            log.critical("a part of the supervisor failed", action="defect", exc_info=error)
            self._failed(error)
