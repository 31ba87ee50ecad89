"""Keeps the shards of this node: tells the workers which are whose when their leases are renewed, and fences in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from shardd.logs import get_logger
from shardd.supervisor.cluster.leases import LeaseKeeper
from shardd.supervisor.services import Service

log = get_logger(__name__)

DEADLINE_EVERY: Final = 0.1
"""Seconds between looks at the deadline of the leases."""


class LeasedShard(Protocol):
    """A shard, and the epoch under which its worker serves it."""

    index: int
    epoch: int | None


class Workers(Protocol):
    """What ownership needs from the worker pool."""

    @property
    def shards(self) -> Sequence[LeasedShard]:
        """All shards of the config."""

    def leases(self, epochs: dict[int, int]) -> None:
        """Which shards this node holds now."""

    def fence(self, indexes: Iterable[int]) -> None:
        """The lease is lost or may be: the clients must be gone now."""

    async def give_back(self, index: int) -> None:
        """Drain a shard whose lease goes to another node."""


class Ownership(Service):
    """Runs the lease keeper, for the pool of workers."""

    def __init__(
        self,
        keeper: LeaseKeeper,
        workers: Workers,
        *,
        read_devices: Callable[[], Awaitable[None]],
        renewed: Callable[[], None],
        hindered_for: Callable[[], float] = lambda: 0.0,
        away_after: float = 0.0,
    ) -> None:
        """`read_devices`: brings the devices up to date before a new shard sends. `renewed`: things may be claimed again.

        `hindered_for`: seconds for which this node could hand over nothing; it takes no shards then, and after `away_after`
        seconds gives its own to the others.
        """
        self._keeper = keeper
        self._workers = workers
        self._read_devices = read_devices
        self._renewed = renewed
        self._hindered_for = hindered_for
        self._away_after = away_after

    async def serve(self) -> None:
        """Watch the deadline; a `Periodic` calls `renew`."""
        while True:
            if self._keeper.epochs and not self._keeper.good():
                self._workers.fence(self._keeper.drop_all())
            await asyncio.sleep(DEADLINE_EVERY)

    async def take(self) -> None:
        """Take the shards for the first time; no worker runs yet. Raises DatabaseError."""
        await self._keeper.run_cycle(self._workers.give_back)

    async def renew(self) -> None:
        """Renew once, and pass on what changed. Raises DatabaseError."""
        hindered = self._hindered_for()
        away = hindered > self._away_after
        if away and self._keeper.epochs:
            log.warning("nothing can be handed over here: the shards go to other nodes", action="lease")
        await self._keeper.run_cycle(self._workers.give_back, may_take=not hindered, away=away)
        epochs = self._keeper.epochs
        kept = {shard.index: epoch for shard in self._workers.shards if (epoch := _kept(shard, epochs)) is not None}
        if epochs.keys() - kept.keys():
            # Of the new ones another node has sent until a moment ago, which counts for gaps and limits. Nothing delays a fence.
            self._workers.leases(kept)
            await self._read_devices()
        self._workers.leases(self._keeper.epochs)
        self._renewed()

    async def close(self) -> None:
        """Give the leases back."""
        await self._keeper.give_up()


def _kept(shard: LeasedShard, epochs: Mapping[int, int]) -> int | None:
    """The epoch of a shard that this node held before and still holds."""
    return shard.epoch if shard.epoch == epochs.get(shard.index) else None
