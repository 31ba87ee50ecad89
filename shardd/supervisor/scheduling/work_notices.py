"""Jobs that this node lets into their lanes, and another node has to send: it is told, and need not wait for its next scan.

A job of an order group joins its lane when the one before it was sent, and its device may be another node's; a job of a device
group may go to any node. The notice is a hint, as every notification: who hears it reads the table, and the scan finds the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from shardd.errors import DatabaseError
from shardd.queue.jobs import Jobs
from shardd.queue.records import WorkHint
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.services import Service, Step, Steps
from shardd.tasks import WakeUp, run_together

CHANNEL: Final = "shardd_work"
ANY_DEVICE: Final = ""
"""The notice of a job that has no device yet."""
LANES_MOST: Final = 2000
"""Lanes of a device that are read after a notice."""
DEVICES_MOST: Final = 1000
"""Devices that may wait to be announced or read; the scan finds the jobs of further ones."""
SPACING: Final = 0.02
"""Seconds between announcements, and between readings: each notice locks the server's queue of notifications until its commit."""


class _Bundles:
    """Devices that something is to be done with, many at a time."""

    def __init__(self, work: Callable[[dict[str, None]], Awaitable[None]], step: Step) -> None:
        """`work` removes the devices with which it is done; those that an error leaves follow in their new order."""
        self._work = work
        self._step = step
        self._waiting: dict[str, None] = {}
        self._wake = WakeUp(SPACING)

    def add(self, device_id: str) -> None:
        if len(self._waiting) < DEVICES_MOST:
            self._waiting[device_id] = None
            self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait(None)
            devices, self._waiting = self._waiting, {}
            with self._step:
                await self._work(devices)
            if self._step.error is not None:
                self._waiting = devices | self._waiting
                await asyncio.sleep(self._step.pause(SPACING))
                self._wake.set()


class WorkNotices(Service):
    """Sends the notices of this node, and reads what the others' notices name."""

    def __init__(
        self,
        jobs: Jobs,
        scheduler: Scheduler,
        steps: Steps,
        *,
        found: Callable[[list[WorkHint]], None],
        grouped: Callable[[], None],
        alone: Callable[[], bool],
    ) -> None:
        """`found` gets the jobs of named devices; `grouped` is called when a job of a device group may be waiting.

        `alone`: whether there is no other node to tell.
        """
        self._jobs = jobs
        self._scheduler = scheduler
        self._found = found
        self._grouped = grouped
        self._alone = alone
        self._to_tell = _Bundles(self._tell, steps.add("telling other nodes of their jobs"))
        self._to_read = _Bundles(self._read, steps.add("reading jobs that other nodes told of"))

    def advanced(self, hints: list[WorkHint]) -> None:
        """Jobs that joined their lanes: tell other nodes of those that this node may not send."""
        for device_id, _, _ in hints:
            if device_id == ANY_DEVICE:
                self._grouped()
            if not self._is_ours(device_id) and not self._alone():
                self._to_tell.add(device_id)

    def heard(self, text: str) -> None:
        """A notification: the id of a device, or an empty text."""
        if text == ANY_DEVICE:
            self._grouped()
        elif self._is_ours(text):
            self._to_read.add(text)

    async def serve(self) -> None:
        """Tell and read, side by side."""
        await run_together(self._to_tell.run(), self._to_read.run())

    def _is_ours(self, device_id: str) -> bool:
        queue = self._scheduler.queues.get(device_id)
        return queue is not None and self._scheduler.is_up(queue)

    async def _tell(self, devices: dict[str, None]) -> None:
        await self._jobs.announce_work(sorted(devices))
        devices.clear()

    async def _read(self, devices: dict[str, None]) -> None:
        while devices:
            device_id = next(iter(devices))
            del devices[device_id]
            try:
                self._found(await self._jobs.find_lanes(device_id, "", LANES_MOST))
            except DatabaseError:
                devices[device_id] = None  # behind all others, which may be read
                raise
