"""How many devices are where, counted as they change: a status asks for it every second, and there may be 100,000 of them.

No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from shardd.supervisor.scheduling.device_queue import DeviceQueue


class Place(NamedTuple):
    """What devices have in common, and are counted by."""

    shard: int
    transport: str
    shown_state: str
    can_send: bool


class Census:
    """The devices of a scheduler by place, and those about which there may be something to tell."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        """By device id."""
        self._counts: Counter[Place] = Counter()
        self._watched: dict[str, DeviceQueue] = {}
        """By device id."""

    def note(self, queue: DeviceQueue) -> None:
        """A device may be at another place now."""
        device = queue.device
        place = Place(queue.shard, device.transport, queue.shown_state, queue.can_send)
        before = self._places.get(device.id)
        if before != place:
            self._leave(before)
            self._places[device.id] = place
            self._counts[place] += 1
        if queue.fault is not None:
            self.watch(queue)

    def watch(self, queue: DeviceQueue) -> None:
        """There may be something to tell about a device: a fault, a backoff, a refused lane, jobs that nobody takes."""
        self._watched[queue.device.id] = queue

    def forget(self, device_id: str) -> None:
        """A device was removed."""
        self._leave(self._places.pop(device_id, None))
        self._watched.pop(device_id, None)

    def _leave(self, place: Place | None) -> None:
        if place is not None:
            self._counts[place] -= 1
            if not self._counts[place]:
                del self._counts[place]

    def count(self, is_meant: Callable[[Place], bool] = lambda _: True) -> int:
        """The devices at some places."""
        return sum(devices for place, devices in self._counts.items() if is_meant(place))

    @property
    def transports(self) -> set[str]:
        """Those that devices have."""
        return {place.transport for place in self._counts}

    def by_state(self, shards: Iterable[int] | None = None) -> Counter[str]:
        """The devices of these shards by the state that is shown; None: of all shards."""
        wanted = None if shards is None else frozenset(shards)
        counts: Counter[str] = Counter()
        for place, devices in self._counts.items():
            if wanted is None or place.shard in wanted:
                counts[place.shown_state] += devices
        return counts

    def by_shard(self) -> tuple[Counter[int], Counter[int]]:
        """The devices of each shard, and those of them that can send."""
        every: Counter[int] = Counter()
        able: Counter[int] = Counter()
        for place, devices in self._counts.items():
            every[place.shard] += devices
            able[place.shard] += devices * place.can_send
        return every, able

    @property
    def watched(self) -> list[DeviceQueue]:
        """All that were given to `watch`, until `prune` finds nothing to tell about them."""
        return list(self._watched.values())

    def prune(self, now: float) -> None:
        """Leave those about which there is nothing to tell any more."""
        for queue in self.watched:
            if (
                queue.fault is None
                and not queue.refused
                and queue.idle_since is None
                and queue.own_backoff_until <= now
            ):
                del self._watched[queue.device.id]
