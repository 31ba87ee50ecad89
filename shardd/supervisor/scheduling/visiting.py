"""The sweep that visits devices, and the record of when each was online (see `visits`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from shardd import ipc
from shardd.config.values import format_duration
from shardd.errors import RefusedDataError
from shardd.logs import get_logger
from shardd.queue.database import write_accepted
from shardd.queue.devices import Devices
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.scheduling.device_queue import DeviceQueue
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.scheduling.visits import LOOK_BOUNDS, VisitPlan, look_every
from shardd.supervisor.services import Service, Step
from shardd.tasks import run_together

log = get_logger(__name__)

WRITE_EVERY: Final = 1.0
"""Seconds between writes of what was reported."""


class Visits(Service):
    """Requests visits of the workers, and writes what they report."""

    def __init__(
        self,
        devices: Devices,
        scheduler: Scheduler,
        step: Step,
        *,
        every: Callable[[], float],
        send: Callable[[int, ipc.ToWorker], bool],
    ) -> None:
        """`every`: the interval in seconds, 0: no visits; `send`: a message to the worker of a shard."""
        self._devices = devices
        self._scheduler = scheduler
        self._step = step
        self._every = every
        self._send = send
        self._plan = VisitPlan(time.time())
        self._unwritten: dict[str, ipc.Visited] = {}

    def reported(self, report: ipc.Visited) -> None:
        """A worker reported a visit, or the login of a send."""
        self._plan.reported(report)
        before = self._unwritten.get(report.device_id)
        if before is not None and before.presence and report.online and not report.presence:
            report = msgspec.structs.replace(report, presence=True)
        self._unwritten[report.device_id] = report

    async def serve(self) -> None:
        """Look, request, write."""
        await run_together(self._look(), self._write())

    async def close(self) -> None:
        """Write what is left."""
        with self._step:
            await self._save()

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        every = self._every()
        overdue = self._plan.overdue(self._reachable(), every, time.time()) if every else []
        if overdue:
            queue, last = overdue[0]
            devices = "1 device was" if len(overdue) == 1 else f"{len(overdue):,} devices were"
            why = f": {last.error}" if last.error else ""
            yield Problem(
                ProblemKind.DEVICE,
                f"{devices} not online for longer than transports.whatsapp.visit_every ({format_duration(every)}), so what was "
                f"sent to them is not heard, and WhatsApp may unlink them; {queue.device.id}{why}",
            )

    def _reachable(self) -> list[DeviceQueue]:
        """The devices whose worker runs here."""
        return [queue for queue in self._scheduler.queues.values() if self._scheduler.is_up(queue)]

    async def _look(self) -> None:
        while True:
            every = self._every()
            await asyncio.sleep(look_every(every) if every else LOOK_BOUNDS[1])
            if every:
                now = time.time()
                for queue, last_chance in self._plan.next(self._reachable(), every, now):
                    if self._send(queue.shard, ipc.Visit(device_id=queue.device.id, late=last_chance)):
                        self._plan.asked(queue.device.id, now)

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(self._step.pause(WRITE_EVERY))
            with self._step:
                await self._save()

    async def _save(self) -> None:
        written = dict(self._unwritten)
        await write_accepted(list(written.values()), self._devices.save_visits, self._refuse)
        self._unwritten = {i: report for i, report in self._unwritten.items() if written.get(i) is not report}

    async def _refuse(self, report: ipc.Visited, error: RefusedDataError) -> None:
        log.error("a visit cannot be stored", action="visit", device=report.device_id, error=str(error))
