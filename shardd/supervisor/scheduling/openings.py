"""Which devices of a shard have an open client in its worker, and for how many others jobs may be claimed.

A claim is a send: a job that is claimed for a device without a client begins to connect at once. So no more of these are claimed
for than the worker can connect at the same time; the jobs of the others stay in the queue, where they can be cancelled and where
`status` shows why they wait. Devices with an open client are never held.

No I/O. What a worker reports is a little old: a device whose client was just closed takes a place that is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from shardd.supervisor.scheduling.device_queue import DeviceQueue


class Openings:
    """Of one shard."""

    def __init__(self) -> None:
        self._most: float = math.inf
        """Devices that may be opening at a time; infinity until the worker has reported it."""
        self._open: set[str] = set()
        self._opening: set[str] = set()
        """Devices without a client that have a place: a claim is under way, or they are next."""
        self._held: dict[str, DeviceQueue] = {}
        """In the order in which they wait."""
        self._moves = 0
        """How often a place was given or a client opened."""
        self._seen: int | None = None
        """By the last look; None: none waited."""
        self._still_since = 0.0
        self.still_for = 0.0
        """Seconds for which devices have waited and none was given a place."""

    @property
    def held(self) -> int:
        """How many devices wait for a place."""
        return len(self._held)

    def holds(self, queue: DeviceQueue) -> bool:
        """Whether this device waits for a place."""
        return queue.device.id in self._held

    def admit(self, queue: DeviceQueue) -> bool:
        """Whether a job may be claimed for this device; otherwise it is held until `next` returns it."""
        device = queue.device
        if device.session is None or device.id in self._open or device.id in self._opening:
            return True
        if not self._has_place:
            self._held[device.id] = queue
            return False
        self._take(device.id)
        return True

    def next(self) -> DeviceQueue | None:
        """The device that has waited longest, which has a place from now on; None: none waits, or there is no place."""
        if not self._held or not self._has_place:
            return None
        device_id = next(iter(self._held))
        self._take(device_id)
        return self._held.pop(device_id)

    def end(self, device_id: str) -> None:
        """A device needs its place no more."""
        self._opening.discard(device_id)

    def forget(self, device_id: str) -> None:
        """A device was removed."""
        self._opening.discard(device_id)
        self._held.pop(device_id, None)

    def reset(self) -> None:
        """Another worker serves the shard, without any client."""
        self._open.clear()
        self._opening.clear()

    def report(self, opened: Collection[str], closed: Collection[str], most: int | None) -> list[DeviceQueue]:
        """Devices whose clients were opened or closed, and how many may be opening at a time; None: any number.

        Returns those that waited and have a client now.
        """
        self._open.difference_update(closed)
        self._open.update(opened)
        self._opening.difference_update(self._open)
        self._most = math.inf if most is None else most
        self._moves += len(opened)
        return [self._held.pop(device_id) for device_id in opened if device_id in self._held]

    def look(self, now: float) -> None:
        """Called every few seconds: notes for how long none was given a place."""
        if not self._held:
            self._seen, self.still_for = None, 0.0
        elif self._moves != self._seen:
            self._seen, self._still_since, self.still_for = self._moves, now, 0.0
        else:
            self.still_for = now - self._still_since

    def _take(self, device_id: str) -> None:
        self._opening.add(device_id)
        self._moves += 1

    @property
    def _has_place(self) -> bool:
        return len(self._opening) < self._most
