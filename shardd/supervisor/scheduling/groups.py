"""Device groups: each job gets its device shortly before it is sent.

A recipient keeps the device that it knows, as long as that one can send at all; a new recipient gets the device with the most
room. Only a few jobs are given to a device ahead of time, and none to one that is far from its next turn, so that there is
little to take back when it dies. Which device is the choice of one pure function, `choose_devices`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from shardd.logs import get_logger
from shardd.queue.groups import Groups, PoolJob
from shardd.queue.records import WorkHint
from shardd.states import DeviceState
from shardd.supervisor.scheduling.device_queue import Lane
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.services import Service, Step
from shardd.tasks import SHARE

log = get_logger(__name__)

AHEAD: Final = 2
"""Jobs of a lane that a device with a gap is given ahead of time."""
AHEAD_WITHOUT_GAP: Final = 50
HORIZON: Final = 60.0
"""Seconds; a device whose next turn is farther away than this, and than its gap, is given nothing new."""
MEMBERS_EVERY: Final = 2.0
"""Seconds between looks at who is in which group."""
POOLS_MOST: Final = 100
"""Lanes of groups that are looked at in one turn; of more than these the next turn begins behind them."""
FIRST_POOL: Final = ("", "")
TAKE_BACK_MOST: Final = 2000
SLACK: Final = 50
"""Jobs that are looked at beyond the room that there is, for recipients who know a device."""
FULL_FOR: Final = 5.0
"""Seconds for which a device that has no turn for long is not asked again: a fleet at its limits must cost nothing."""


def choose_devices(
    jobs: Sequence[PoolJob], rooms: Mapping[str, int], can_have: Callable[[str], bool]
) -> dict[int, str]:
    """Which device gets which job, by job id. `rooms`: how many new ones a device may be given; `can_have`: it can send at all.

    Jobs are looked at in their order, up to the first for which there is no device now.
    """
    left = dict(rooms)
    given: dict[int, str] = {}
    met: dict[str, str] = {}  # recipients of two jobs at once
    for job in jobs:
        known = met.get(job.address, job.known)
        if known is None or not can_have(known):
            known = max(left, key=lambda device_id: (left[device_id], device_id), default=None)
            if known is None or left[known] <= 0:
                break
            left[known] -= 1
        elif known in left:
            left[known] -= 1
        given[job.id] = met[job.address] = known
    return given


class GroupAssigner(Service):
    """Gives the jobs of device groups to devices of this node."""

    def __init__(
        self,
        groups: Groups,
        scheduler: Scheduler,
        hint: Callable[[list[WorkHint]], None],
        step: Step,
        *,
        every: Callable[[], float],
    ) -> None:
        """`hint` is told where the given jobs stand; `every`: seconds between looks."""
        self._groups = groups
        self._scheduler = scheduler
        self._hint = hint
        self._step = step
        self._every = every
        self._members: dict[str, list[str]] = {}
        self._full: dict[tuple[str, str], float] = {}  # until when a device has no room for a lane
        self._looked = float("-inf")
        self._after = FIRST_POOL

    async def serve(self) -> None:
        """Give until cancelled."""
        while True:
            busy, began = False, time.monotonic()
            with self._step:
                busy = await self._turn(began)
            pause = 0.01 if busy else self._step.pause(self._every())
            await asyncio.sleep(max(pause, SHARE * (time.monotonic() - began)))

    async def _turn(self, now: float) -> bool:
        """Whether a device without a gap got work, and may soon need more."""
        if now >= self._looked + MEMBERS_EVERY:
            self._members = await self._groups.members()
            self._looked = now
            self._full = {key: until for key, until in self._full.items() if until > now}
        if not self._members:
            return False
        dead = [d for d in {d for members in self._members.values() for d in members} if not self._can_send(d, now)]
        if dead and (back := await self._groups.take_back(dead, TAKE_BACK_MOST)):
            log.info("jobs of devices that cannot send go to others of their groups", action="groups", jobs=back)
        busy = False
        pools = await self._groups.pools(self._after, POOLS_MOST)
        self._after = pools[-1] if len(pools) == POOLS_MOST else FIRST_POOL
        for group, lane in pools:
            campaign = Lane.named(lane).campaign
            if campaign and campaign not in self._scheduler.campaigns:
                continue  # it does not run
            busy |= await self._share_out(group, lane, now)
            await asyncio.sleep(0)  # each looks at every device of its group
        return busy

    async def _share_out(self, group: str, lane: str, now: float) -> bool:
        members = set(self._members.get(group, ()))
        rooms = {d: room for d in members if (room := self._room(d, lane, now)) > 0}
        if not rooms:
            return False
        most = sum(rooms.values()) + SLACK
        hints = await self._groups.share_out(
            group,
            lane,
            most,
            lambda jobs: choose_devices(jobs, rooms, lambda d: d in members and self._can_send(d, now)),
        )
        self._hint(hints)
        queues = self._scheduler.queues
        return any(not queues[d].pace.has_gap for d, _, _ in hints if d in queues)

    def _can_send(self, device_id: str, now: float) -> bool:
        """Whether recipients may be left to this device: it is well and does not rest for long."""
        queue = self._scheduler.queues.get(device_id)
        return queue is not None and queue.can_send and queue.backoff_until < now + HORIZON

    def _room(self, device_id: str, name: str, now: float) -> int:
        """How many new jobs of this lane a device may be given."""
        queue = self._scheduler.queues.get(device_id)
        if queue is None or not self._scheduler.is_up(queue) or not self._can_send(device_id, now):
            return 0
        lane = queue.lanes.get(name)
        if queue.state is not DeviceState.READY or (lane is not None and lane.has_work):
            return 0
        if self._full.get((device_id, name), now) > now:
            return 0
        if queue.next_send(Lane.named(name), now).at > now + max(HORIZON, queue.pace.base.gap_max):
            self._full[device_id, name] = now + FULL_FOR
            return 0
        ahead = AHEAD if queue.pace.has_gap else AHEAD_WITHOUT_GAP
        return int(min(ahead, queue.left(name, now)))
