"""What the worker pool does with the leases: workers for the shards that are held, none for those that are lost or may be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final

from shardd.errors import AlreadyRunningError, DatabaseError, SharddError
from shardd.logs import get_logger
from shardd.supervisor.cluster.leases import LeaseKeeper
from shardd.supervisor.cluster.past import explain
from shardd.supervisor.services import Service
from shardd.supervisor.workers.pool import WorkerPool

log = get_logger(__name__)

DEADLINE_EVERY: Final = 0.1
"""Seconds between checks of the deadlines. They are moments of a clock for which the event loop has no timers."""


class Ownership(Service):
    """Runs the lease keeper for the worker pool: passes on what changed, and fences in time."""

    def __init__(
        self,
        keeper: LeaseKeeper,
        workers: WorkerPool,
        *,
        read_devices: Callable[[], Awaitable[None]],
        renewed: Callable[[], None],
        end: Callable[[SharddError], None],
        why_not: Callable[[int], Awaitable[str | None]],
        hindered_for: Callable[[], float],
        away_after: float,
    ) -> None:
        """`read_devices`: brings the devices up to date before a new shard sends. `renewed`: jobs may be claimed again.

        `end`: ends the supervisor, because another one is this node now. `why_not`: why this release cannot run on a database
        with so many migrations.

        `hindered_for`: seconds for which this node has been unable to hand jobs over; it takes no shards then, and gives its
        own to other nodes after `away_after` seconds.
        """
        self._keeper = keeper
        keeper.on_lost = workers.fence
        self._workers = workers
        self._read_devices = read_devices
        self._renewed = renewed
        self._end = end
        self._why_not = why_not
        self._hindered_for = hindered_for
        self._away_after = away_after

    async def serve(self) -> None:
        """Watch the deadlines; `Renewal` calls `renew`."""
        while True:
            if self._keeper.epochs and not self._keeper.good():
                self._workers.wind_down(self._keeper.drop_all(), self._keeper.deadlines)
            self._workers.end_overdue()
            await asyncio.sleep(DEADLINE_EVERY)

    async def take(self) -> None:
        """Take the shards for the first time; no worker runs yet. Raises DatabaseError."""
        await self._keeper.run_cycle(self._workers.give_back)
        if self._keeper.doubt is not None:
            raise DatabaseError(explain(self._keeper.doubt))
        if (why := await self._why_not(self._keeper.migrations)) is not None:
            raise DatabaseError(why)

    async def renew(self) -> None:
        """Renew once, and pass on what changed. Raises DatabaseError."""
        hindered = self._hindered_for()
        away = hindered > self._away_after
        if away and self._keeper.epochs:
            log.warning("this node cannot hand jobs over: its shards go to other nodes", action="lease")
        await self._keeper.run_cycle(self._workers.give_back, may_take=not hindered, away=away)
        if self._keeper.displaced_by is not None:
            self._workers.fence(self._keeper.drop_all())
            error = AlreadyRunningError(self._keeper.displacement())
            if self._keeper.cloned:
                # Whatever it settled would also settle what the other one has in flight.
                log.critical("this supervisor ends at once", action="stop", error=str(error))
                os._exit(error.exit_code)
            # What it has in flight is settled at the end, and resolves doubts that the other one had about it.
            self._end(error)
            return
        if self._keeper.doubt is not None:
            # The next start waits for the answer of a person. What is in flight may end.
            self._end(DatabaseError(explain(self._keeper.doubt)))
            return
        if (why := await self._why_not(self._keeper.migrations)) is not None:
            self._end(DatabaseError(why))
            return
        epochs = self._keeper.serving
        kept = {
            shard.index: shard.epoch
            for shard in self._workers.shards
            if shard.epoch is not None and shard.epoch == epochs.get(shard.index)
        }
        if epochs.keys() - kept.keys():
            # Until a moment ago another node sent for the new ones, which counts for gaps and limits. Fencing is not delayed.
            self._workers.leases(kept)
            await self._read_devices()
        self._workers.leases(self._keeper.serving)
        self._renewed()

    async def close(self) -> None:
        """Give the leases back."""
        await self._keeper.give_up()
