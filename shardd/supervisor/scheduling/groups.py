"""Device groups: each job gets its device shortly before it is sent.

A recipient keeps the device that it knows, as long as that one can send at all; a new recipient gets the device with the most
room. A device gets only a few jobs ahead of time, and none if its next send is far away, so that there is little to take back
when it fails. One pure function, `choose_devices`, makes the choice.
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
from shardd.tasks import SHARE, WakeUp

log = get_logger(__name__)

AHEAD: Final = 2
"""Jobs of a lane that a device with a gap gets ahead of time."""
AHEAD_WITHOUT_GAP: Final = 50
HORIZON: Final = 60.0
"""Seconds; a device whose next send is further away than this, and than its gap, gets nothing new."""
MEMBERS_EVERY: Final = 2.0
"""Seconds between readings of the groups' members."""
POOLS_MOST: Final = 100
"""Lanes of groups that one round handles; the next round continues after them."""
FIRST_POOL: Final = ("", "")
SPACING: Final = 0.05
"""Seconds between rounds that were asked for."""
TAKE_BACK_MOST: Final = 2000
SLACK: Final = 50
"""Jobs that are read beyond the available room, for recipients who know a device."""
FULL_FOR: Final = 5.0
"""Seconds for which a device whose next send is far away is not examined again: a fleet at its limits must cost nothing."""


def choose_devices(
    jobs: Sequence[PoolJob], rooms: Mapping[str, int], can_have: Callable[[str], bool]
) -> dict[int, str]:
    """Device by job id. `rooms`: how many new jobs a device may get; `can_have`: whether it can send at all.

    Jobs are assigned in their order, up to the first for which there is no device now.
    """
    left = dict(rooms)
    given: dict[int, str] = {}
    met: dict[str, str] = {}  # by recipient, for those with several jobs
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
    """Assigns the jobs of device groups to devices of this node."""

    def __init__(
        self,
        groups: Groups,
        scheduler: Scheduler,
        hint: Callable[[list[WorkHint]], None],
        step: Step,
        *,
        may_assign: Callable[[], bool],
        every: Callable[[], float],
    ) -> None:
        """`hint` gets the assigned jobs; `every`: seconds between rounds.

        `may_assign`: false while another node may know that jobs which are queued were sent.
        """
        self._groups = groups
        self._scheduler = scheduler
        self._hint = hint
        self._step = step
        self._may_assign = may_assign
        self._every = every
        self._members: dict[str, list[str]] = {}
        self._full: dict[tuple[str, str], float] = {}  # until when a device has no room for a lane
        self._members_read_at = float("-inf")
        self._after = FIRST_POOL
        self._wake = WakeUp(SPACING)

    def wake(self) -> None:
        """A job may be waiting: begin the next round soon."""
        self._wake.set()

    async def serve(self) -> None:
        """Assign until cancelled."""
        while True:
            busy, began = False, time.monotonic()
            with self._step:
                busy = self._may_assign() and await self._round(began)
            pause = 0.01 if busy else self._step.pause(self._every())
            await self._wake.wait(max(pause, SHARE * (time.monotonic() - began)))

    async def _round(self, now: float) -> bool:
        """Returns whether a device without a gap got work, and may soon need more."""
        if now >= self._members_read_at + MEMBERS_EVERY:
            self._members = await self._groups.members()
            self._members_read_at = now
            self._full = {key: until for key, until in self._full.items() if until > now}
        if not self._members:
            return False
        unable = [d for d in {d for members in self._members.values() for d in members} if not self._can_send(d, now)]
        if unable and (back := await self._groups.take_back(unable, TAKE_BACK_MOST)):
            log.info("jobs of devices that cannot send go to others of their groups", action="groups", jobs=back)
        busy = False
        pools = await self._groups.pools(self._after, POOLS_MOST)
        self._after = pools[-1] if len(pools) == POOLS_MOST else FIRST_POOL
        for group, lane in pools:
            campaign = Lane.named(lane).campaign
            if campaign and campaign not in self._scheduler.campaigns:
                continue  # paused
            busy |= await self._share_out(group, lane, now)
            await asyncio.sleep(0)  # each examines every device of its group
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
        """Whether recipients may stay with this device: it can send and is not backing off for long."""
        queue = self._scheduler.queues.get(device_id)
        return queue is not None and queue.can_send and queue.backoff_until < now + HORIZON

    def _room(self, device_id: str, name: str, now: float) -> int:
        """How many new jobs of this lane a device may get."""
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
