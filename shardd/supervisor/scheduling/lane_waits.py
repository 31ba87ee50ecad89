"""Records in the database what the lanes of this node wait for, so that producers and operators can read it in `waits_for`.

Only waits of some length: a gap of seconds is over before anybody has read of it. A lane that may send earlier than recorded,
because its limits were raised, is recorded as open from that moment on.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final

from shardd.pacing import NextSend
from shardd.queue.lane_waits import LaneWaits
from shardd.supervisor.scheduling.device_queue import OF_ACCOUNT, DeviceQueue
from shardd.supervisor.scheduling.scheduler import Scheduler

EVERY: Final = 5.0
"""Seconds between two looks at all lanes."""
WORTH: Final = 30.0
"""Seconds; shorter waits are not recorded."""
SAME: Final = 1.0
"""Seconds by which two ends of one wait may differ, as clocks do."""
AT_ONCE: Final = 100
"""Devices that are examined before others may run."""
LONGEST_WHY: Final = 300
"""Characters of an error that are recorded."""

Key = tuple[str, str]


class LaneWaitRecorder:
    """Compares what lanes wait for with what is recorded."""

    def __init__(self, waits: LaneWaits, scheduler: Scheduler) -> None:
        self._waits = waits
        self._scheduler = scheduler
        self._recorded: dict[Key, tuple[str, float]] = {}
        """By device and lane: why, and until when, on the monotonic clock."""
        self._shards: frozenset[int] = frozenset()

    async def record(self) -> None:
        """Look at all lanes once. Raises DatabaseError: then the next call repeats it."""
        shards = self._scheduler.up
        if shards != self._shards:
            # An earlier run, or another node, recorded what they waited for.
            now = time.monotonic()
            self._recorded = {
                (one.device_id, one.lane): (one.why, now + one.seconds) for one in await self._waits.current()
            }
            self._shards = shards
        found: dict[Key, tuple[str, float]] = {}
        queues = [queue for queue in self._scheduler.queues.values() if queue.shard in shards]
        for number, queue in enumerate(queues):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            found.update(waits_of(queue, time.monotonic()))
        now = time.monotonic()
        changed = {
            key: (why, at - now) for key, (why, at) in found.items() if not self._is_recorded(key, why, at) and at > now
        }
        mine = {queue.device.id for queue in queues}
        for key, (why, at) in self._recorded.items():
            if key not in found and key[0] in mine and at > now:
                changed[key] = (why, 0.0)
        if changed:
            await self._waits.save(changed)
        self._recorded = found

    def _is_recorded(self, key: Key, why: str, at: float) -> bool:
        known = self._recorded.get(key)
        return known is not None and known[0] == why and abs(known[1] - at) < SAME


def waits_of(queue: DeviceQueue, now: float) -> dict[Key, tuple[str, float]]:
    """The lanes with work of a device that may not send for a while: why, and until when. `now`: of the monotonic clock."""
    backoff = queue.backoff_until
    if queue.pace.free and backoff <= now and len(queue.lanes) < 2:  # the usual case: nothing to wait for
        return {}
    if queue.due is not None and queue.due < now + WORTH and sum(lane.has_work for lane in queue.lanes.values()) < 2:
        return {}
    found = {}
    known: dict[str, NextSend] = {}
    for lane in queue.lanes.values():
        if not lane.has_work:
            continue
        soonest = queue.next_send(lane, now, known)
        at, why = soonest.at, soonest.why
        if backoff > at:
            at, why = backoff, f"a backoff of its device ({queue.backoff_error or OF_ACCOUNT})"
        if now + WORTH < at < math.inf and why is not None:
            found[queue.device.id, lane.name] = (why[:LONGEST_WHY], at)
    return found
