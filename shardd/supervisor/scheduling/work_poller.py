"""Finds the lanes in which jobs wait, and hints the scheduler.

Three questions to the database, each in a loop of its own, so that one that fails stops none of the others: which jobs are
new (a few times a second, and at once after a notification), which scheduled jobs are due, and, every few seconds, the scan of
every lane, which is the guarantee: commits become visible out of id order, so the first alone would miss jobs.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from shardd.queue.jobs import Jobs
from shardd.queue.records import WorkHint
from shardd.supervisor.scheduling.device_queue import MOST_LANES
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.services import Service, Steps
from shardd.tasks import WakeUp, run_together

NEW_MOST: Final = 5000
"""New jobs that are looked at one by one; of more than these a scan finds the lanes with less work."""
PROMOTE_MOST: Final = 2000
"""Due jobs that join their lanes with one statement."""
SPACING: Final = 0.05
"""Seconds between looks for new jobs, and between scans, however many notifications come for long."""
BURST: Final = 100
"""Looks for new jobs that may come closer to each other, so that single jobs are found within milliseconds."""
OVERLAP: Final = 1.0
"""Seconds for which ids are looked at again: a transaction that took its id earlier may have committed later."""
OVERLAP_MOST: Final = 500
"""Ids that are looked at again, at most; what is missed waits for the scan."""


PAGE: Final = 2000
"""Lanes that are found with one statement, which takes some 20 ms."""
BEHIND_MOST: Final = 5000
"""Lanes of devices with very many of them, of which one scan finds no more than these besides the first of each device."""


class Tail:
    """From which id on to look for new jobs."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._old = 0
        self._newest = 0

    def note(self, newest: int, now: float) -> None:
        """The highest id that there was at a moment."""
        if newest > self._newest:
            self._newest = newest
            self._seen.append((now, newest))

    def start(self, now: float) -> int:
        """Jobs with a higher id than this may be new."""
        while self._seen and self._seen[0][0] <= now - OVERLAP:
            self._old = self._seen.popleft()[1]
        return max(self._old, self._newest - OVERLAP_MOST)


class WorkPoller(Service):
    """Finds the devices that have work and hints the scheduler."""

    def __init__(
        self,
        jobs: Jobs,
        scheduler: Scheduler,
        steps: Steps,
        *,
        found: Callable[[], None],
        poll_every: Callable[[], float],
        scan_every: Callable[[], float],
    ) -> None:
        """`found` is called after hints; the others: seconds between looks for new and due jobs, and between full scans."""
        self._jobs = jobs
        self._scheduler = scheduler
        self._found = found
        self._poll_every = poll_every
        self._scan_every = scan_every
        self._new = steps.add("looking for new jobs")
        self._due = steps.add("letting due jobs join their lanes")
        self._all = steps.add("scanning the lanes")
        self._wake_new = WakeUp(SPACING, BURST)
        self._wake_scan = WakeUp(SPACING)
        self._tail = Tail()
        self._behind: dict[str, str] = {}
        """Of devices with very many lanes, by turns: the lane behind which the next look begins."""

    def look(self) -> None:
        """Look for new jobs soon."""
        self._wake_new.set()

    def scan(self) -> None:
        """Look at every lane soon."""
        self._wake_scan.set()

    async def serve(self) -> None:
        """One loop for each question."""
        await run_together(self._find_new(), self._promote(), self._scan())

    def hint(self, hints: list[WorkHint]) -> None:
        """The database says where jobs stand."""
        now = time.monotonic()
        for device_id, lane, position in hints:
            self._scheduler.hint(device_id, lane, position, now)
        if hints:
            self._found()

    async def _find_new(self) -> None:
        while True:
            with self._new:
                hints, newest, jobs = await self._jobs.new_work(self._tail.start(time.monotonic()), NEW_MOST)
                if jobs == NEW_MOST:
                    newest = await self._jobs.newest_id()
                    self.scan()
                self._tail.note(newest, time.monotonic())
                self.hint(hints)
            await self._wake_new.wait(self._new.pause(self._poll_every()))

    async def _promote(self) -> None:
        while True:
            due = 0
            with self._due:
                due, hints = await self._jobs.promote_due(PROMOTE_MOST)
                self.hint(hints)
            if due < PROMOTE_MOST:
                await asyncio.sleep(self._due.pause(self._poll_every()))

    async def _scan(self) -> None:
        while True:
            with self._all:
                last: dict[str, str] = {}
                lanes: Counter[str] = Counter()
                async with aclosing(self._jobs.find_work(MOST_LANES, PAGE)) as pages:
                    async for hints in pages:
                        self.hint(hints)
                        for device_id, lane, _ in hints:
                            last[device_id] = lane
                            lanes[device_id] += 1
                self._scheduler.scanned(last.keys(), time.monotonic())
                await self._look_behind(
                    {device_id: last[device_id] for device_id in last if lanes[device_id] >= MOST_LANES}
                )
            await self._wake_scan.wait(self._all.pause(self._scan_every()))

    async def _look_behind(self, last: dict[str, str]) -> None:
        """Of devices that may have more lanes than the scan looks at: some of the others, each time the next ones.

        `last`: behind which lane of each device.
        """
        known = {device_id: lane for device_id, lane in self._behind.items() if device_id in last}
        self._behind = known | {device_id: lane for device_id, lane in last.items() if device_id not in known}
        room = BEHIND_MOST
        for device_id, lane in list(self._behind.items()):
            if room <= 0:
                return
            hints = await self._jobs.find_lanes(device_id, lane, PAGE)
            self.hint(hints)
            room -= 1 + len(hints)
            del self._behind[device_id]  # to the end, so that its turn comes after that of the others
            self._behind[device_id] = hints[-1][1] if len(hints) == PAGE else last[device_id]
