"""When a device is visited: opened for a moment, so that what was sent to it is heard and its link stays alive.

WhatsApp keeps messages, receipts and logouts for a device that is not online, and unlinks one that it deems inactive. So a device
that was not online for a while, or has not shown its presence for a while, is opened without a message to send; a login for a
send counts as a visit. The moment is drawn from the end of the interval, so that devices that were online together are not
visited together. When many are due, such as after a stop of shardd, they are visited one after the other: those that were just
paired first, then the longest due.

No I/O and no clock of its own: times are POSIX seconds. All waits but one are shares of the interval, so that a test can scale
them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from shardd.hashing import share_of
from shardd.ipc import Visited
from shardd.queue.records import Device
from shardd.states import CAN_SEND, DeviceState
from shardd.supervisor.scheduling.device_queue import DeviceQueue

EARLIEST: Final = 0.75
"""Of the interval: when a device is visited, at the earliest."""
LATEST: Final = 0.95
"""Of the interval: at the latest, unless others precede it."""
RETRY: Final = 1 / 12
"""Of the interval, after a visit that failed."""
CATCH_UP: Final = 0.1
"""Of the interval, in which all devices of a node are visited if all are due."""
MOST_SPACING: Final = 1 / 3600
"""Of the interval, between two visits of a small fleet."""
OVERDUE: Final = 0.3
"""Of the interval, for which a device may be due before that is a problem."""
LOOK_EVERY: Final = 1 / 3600
"""Of the interval, between two looks at all devices."""
LOOK_BOUNDS: Final = (0.1, 10.0)
"""Seconds: the shortest and the longest time between two looks."""
UNANSWERED: Final = 300.0
"""Seconds after which a visit that a worker never reported is requested again."""


@dataclass(frozen=True, slots=True)
class LastVisit:
    """What is known of a device: when it was last online, and when a visit failed since. None: never."""

    online: float | None = None
    failed: float | None = None
    error: str | None = None
    presence: float | None = None
    """When it last showed its presence."""
    unshown: bool = False
    """It was to show its presence when it was last online, and could not."""


@dataclass(frozen=True, slots=True)
class Due:
    """When a device is due."""

    at: float
    fresh: bool
    """It was not online since it was paired, or since it may be used again."""
    late_at: float
    """When the interval is over."""
    retry_at: float
    """Not before this, after a visit that failed; minus infinity: none did."""

    @property
    def next(self) -> float:
        """When it is visited, unless others precede it."""
        return max(self.at, self.retry_at)

    def is_last_chance(self, every: float, now: float) -> bool:
        """Whether a visit that fails now could not be repeated in time."""
        return now + every * RETRY > self.late_at


def look_every(every: float) -> float:
    """Seconds between two looks."""
    shortest, longest = LOOK_BOUNDS
    return min(longest, max(shortest, every * LOOK_EVERY))


def is_visited(device: Device, state: DeviceState) -> bool:
    """Whether a device in this state is visited: also a paused one, whose link should outlive the pause."""
    return device.session is not None and state in CAN_SEND and device.fault is None


def last_visit(device: Device) -> LastVisit:
    """As its row says."""
    online, failed, presence = device.online_at, device.visit_failed_at, device.presence_at
    return LastVisit(
        None if online is None else online.timestamp(),
        None if failed is None else failed.timestamp(),
        None if failed is None else device.visit_note,
        None if presence is None else presence.timestamp(),
        unshown=failed is None and device.visit_note is not None,
    )


def due_of(device: Device, last: LastVisit, every: float) -> Due:
    """When a device that is visited is due; `every`: the interval in seconds."""
    since, online = device.state_since.timestamp(), last.online
    fresh = online is None or (device.state is DeviceState.READY and online < since)
    if fresh or online is None:
        at, begin = since, since
    else:
        begin = online if last.presence is None or last.unshown else min(online, last.presence)
        at = begin + every * (LATEST - (LATEST - EARLIEST) * share_of(f"{device.id} {begin:.3f}"))
    failed_since = last.failed is not None and (last.failed >= since if fresh else True)
    if last.failed is not None and online is not None and last.failed > online:
        at = min(at, last.failed)  # it was online, and did not hear all that waited
    return Due(
        at, fresh, begin + every, last.failed + every * RETRY if failed_since and last.failed is not None else -math.inf
    )


class VisitPlan:
    """What to visit next. Besides the rows it knows what workers have reported, which is written a moment later."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._allowed = 1.0
        self._asked: dict[str, float] = {}
        """When a visit was requested whose report has not come."""
        self._reports: dict[str, LastVisit] = {}

    def reported(self, report: Visited) -> None:
        """A worker reported a visit, or the login of a send."""
        self._asked.pop(report.device_id, None)
        known = self._reports.get(report.device_id, LastVisit())
        if not report.online:
            last = replace(known, failed=report.at, error=report.note)
        elif report.presence:
            last = LastVisit(report.at, presence=report.at)
        else:
            last = LastVisit(report.at, presence=known.presence, unshown=report.note is not None)
        self._reports[report.device_id] = last

    def asked(self, device_id: str, now: float) -> None:
        """A visit was requested."""
        self._asked[device_id] = now

    def last(self, device: Device) -> LastVisit:
        """The row, and what was reported since it was read."""
        row, report = last_visit(device), self._reports.get(device.id)
        if report is None:
            return row
        online = _latest(row.online, report.online)
        newer = report if online == report.online else row
        known = LastVisit(online, presence=_latest(row.presence, report.presence), unshown=newer.unshown)
        failure = max(row, report, key=lambda last: last.failed or 0.0)
        if failure.failed is None or (online is not None and failure.failed <= online):
            return known
        return replace(known, failed=failure.failed, error=failure.error)

    def next(self, queues: Iterable[DeviceQueue], every: float, now: float) -> list[tuple[DeviceQueue, bool]]:
        """The devices to visit now, of those whose worker runs, and whether this is the last chance to be in time.

        Call it every `look_every` seconds: each call allows a number of visits, whatever the clock says. What was missed while
        the host slept is not made up for at once.
        """
        visited = {queue.device.id: queue for queue in queues if is_visited(queue.device, queue.state)}
        self._asked = {i: at for i, at in self._asked.items() if i in visited and now < at + UNANSWERED}
        waiting = {
            device_id: due
            for device_id, queue in visited.items()
            if device_id not in self._asked
            and (due := due_of(queue.device, self.last(queue.device), every)).next <= now
        }
        spacing = every * min(MOST_SPACING, CATCH_UP / max(1, len(visited)))
        self._allowed = min(1.0, self._allowed) + look_every(every) / spacing
        order = sorted(waiting, key=lambda i: (not waiting[i].fresh, waiting[i].at, i))
        chosen = [(visited[i], waiting[i].is_last_chance(every, now)) for i in order[: int(self._allowed)]]
        self._allowed -= len(chosen)
        return chosen

    def overdue(self, queues: Iterable[DeviceQueue], every: float, now: float) -> list[tuple[DeviceQueue, LastVisit]]:
        """Devices that have been due for long, the longest first."""
        if now < self._began + every * OVERDUE:
            return []
        found = []
        for queue in queues:
            if is_visited(queue.device, queue.state):
                last = self.last(queue.device)
                if (at := due_of(queue.device, last, every).at) < now - every * OVERDUE:
                    found.append((at, queue.device.id, queue, last))
        return [(queue, last) for _, _, queue, last in sorted(found, key=lambda each: each[:2])]


def _latest(*times: float | None) -> float | None:
    return max((at for at in times if at is not None), default=None)
