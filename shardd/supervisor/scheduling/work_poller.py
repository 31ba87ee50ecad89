"""Finds lanes with jobs, and passes them to the scheduler as hints.

Three queries, each in a loop of its own, so that a failing one does not stop the others: new jobs (a few times a second, and
at once after a notification), scheduled jobs that are due, and, every few seconds, the scan of every lane. The scan is the
guarantee: commits become visible out of id order, so the first query alone would miss jobs.
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
"""New jobs that are read one by one; for more, a scan finds their lanes with less work."""
PROMOTE_MOST: Final = 2000
"""Due jobs that one statement moves to their lanes."""
SPACING: Final = 0.05
"""Seconds between queries for new jobs, and between scans, under a steady flow of notifications."""
BURST: Final = 100
"""Queries for new jobs that may follow each other faster, so that single jobs are found within milliseconds."""
OVERLAP: Final = 1.0
"""Seconds for which ids are read again: a transaction that took its id earlier may commit later."""
OVERLAP_MOST: Final = 500
"""Ids that are read again, at most; what is missed waits for the scan."""

PAGE: Final = 2000
"""Lanes that one statement finds, in some 20 ms."""
FURTHER_MOST: Final = 5000
"""Lanes beyond the first `MOST_LANES` of a device that one scan reads."""


class Tail:
    """Finds the id after which jobs may be new."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._old = 0
        self._newest = 0

    def note(self, newest: int, now: float) -> None:
        """The highest id at a moment."""
        if newest > self._newest:
            self._newest = newest
            self._seen.append((now, newest))

    def start(self, now: float) -> int:
        """Jobs with a higher id than this may be new."""
        while self._seen and self._seen[0][0] <= now - OVERLAP:
            self._old = self._seen.popleft()[1]
        return max(self._old, self._newest - OVERLAP_MOST)


class WorkPoller(Service):
    """Polls and scans the queue, and gives the scheduler hints."""

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
        """`found` is called after hints; the others: seconds between queries for new and due jobs, and between full scans."""
        self._jobs = jobs
        self._scheduler = scheduler
        self._found = found
        self._poll_every = poll_every
        self._scan_every = scan_every
        self._new = steps.add("looking for new jobs")
        self._due = steps.add("moving due jobs to their lanes")
        self._all = steps.add("scanning the lanes")
        self._wake_new = WakeUp(SPACING, BURST)
        self._wake_scan = WakeUp(SPACING)
        self._tail = Tail()
        self._further: dict[str, str] = {}
        """By device with very many lanes, in round-robin order: the lane after which the next query begins."""

    def poll(self) -> None:
        """Query for new jobs soon."""
        self._wake_new.set()

    def scan(self) -> None:
        """Scan every lane soon."""
        self._wake_scan.set()

    async def serve(self) -> None:
        """One loop for each query."""
        await run_together(self._find_new(), self._promote(), self._scan())

    def hint(self, hints: list[WorkHint]) -> None:
        """Pass on what the database knows about jobs."""
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
                await self._read_further_lanes(
                    {device_id: last[device_id] for device_id in last if lanes[device_id] >= MOST_LANES}
                )
            await self._wake_scan.wait(self._all.pause(self._scan_every()))

    async def _read_further_lanes(self, last: dict[str, str]) -> None:
        """Of devices that may have more lanes than the scan reads: some of the others, each time the next ones.

        `last`: the last lane of each device that the scan has read.
        """
        known = {device_id: lane for device_id, lane in self._further.items() if device_id in last}
        self._further = known | {device_id: lane for device_id, lane in last.items() if device_id not in known}
        room = FURTHER_MOST
        for device_id, lane in list(self._further.items()):
            if room <= 0:
                return
            hints = await self._jobs.find_lanes(device_id, lane, PAGE)
            self.hint(hints)
            room -= 1 + len(hints)
            del self._further[device_id]  # moves to the end, so that the others are next
            self._further[device_id] = hints[-1][1] if len(hints) == PAGE else last[device_id]
