"""What a supervisor does again and again beside routing: leases, the count of the queue, lost nodes, its own PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from shardd.embedded import EmbeddedPostgres
from shardd.logs import get_logger
from shardd.supervisor.admin.status import QueueStatus
from shardd.supervisor.cluster.bindings import LOOK_EVERY as BINDINGS_EVERY
from shardd.supervisor.dispatch.claim_watch import EVERY as CLAIMS_EVERY
from shardd.supervisor.dispatch.recovery import LOST_AFTER, sweep
from shardd.supervisor.outbox.held import EVERY as HELD_EVERY
from shardd.supervisor.outbox.upkeep import EVERY as EVENTS_EVERY
from shardd.supervisor.parts import Parts
from shardd.supervisor.steps import PATIENCE
from shardd.supervisor.workers.pool import JOURNAL_RETRY

log = get_logger(__name__)

SELDOM: Final = 20.0
"""Work that reads every live job pauses for this many times as long as it takes: it stays a small part of the database's."""
SWEEP_EVERY: Final = 60.0
"""Seconds between looks for claims of lost nodes."""
DEPTH_EVERY: Final = 2.0
"""Seconds between counts of the queue, at least; a count that takes long is repeated seldom."""
EXPIRE_EVERY: Final = 1.0
"""Seconds between looks for jobs whose time is over. None is sent late meanwhile: the claim and the worker look, too."""
EXPIRE_MOST: Final = 2000
"""Jobs that are ended with one statement."""
ORDER_EVERY: Final = 2.0
"""Seconds between looks at order groups, at least; mostly the settling of a job has let the next one go."""
ORDER_MOST: Final = 5000
"""Order groups that are looked at with one statement; of more than these the next look begins behind them."""
FIRST_ORDER_GROUP: Final = ("", "")
CANCELLED_EVERY: Final = 1.0
"""Seconds between looks for jobs of cancelled campaigns; none is sent meanwhile."""
RETENTION_EVERY: Final = 3600.0
"""Seconds between looks for what is old enough to be forgotten."""
POSTGRES_EVERY: Final = 0.5
"""Seconds between looks at the embedded PostgreSQL."""


class Upkeep:
    """The steps, and their rhythm."""

    def __init__(self, parts: Parts, embedded: EmbeddedPostgres | None) -> None:
        self._parts = parts
        self._embedded = embedded
        self.queue: QueueStatus | None = None
        self._order_group = FIRST_ORDER_GROUP

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """One endless coroutine for each duty."""
        lease = self._parts.rules.config.lease
        loops = [
            self._every(lease.renew_every, self._renew, "renewing the leases", first=lease.renew_every),
            self._every(DEPTH_EVERY, self._count, "counting the queue", rest=SELDOM),
            self._every(CLAIMS_EVERY, self._watch_claims, "looking for claims that stand still", rest=SELDOM),
            self._every(SWEEP_EVERY, self._sweep, "looking for claims of lost nodes"),
            self._every(JOURNAL_RETRY, self._unblock, "settling what a journal covers", first=JOURNAL_RETRY),
            self._every(EXPIRE_EVERY, self._expire, "ending expired jobs", patience=None),
            self._every(ORDER_EVERY, self._advance, "letting jobs of order groups go on", rest=SELDOM),
            self._every(HELD_EVERY, self._parts.held_events.look, "looking for what holds events back"),
            self._every(EVENTS_EVERY, self._parts.event_upkeep.step, "purging events", patience=None),
            self._every(CANCELLED_EVERY, self._end_cancelled, "ending jobs of cancelled campaigns", patience=None),
            self._every(BINDINGS_EVERY, self._parts.binding_check.look, "looking at the bound producers"),
            self._every(RETENTION_EVERY, self._forget, "forgetting what is old", patience=None),
        ]
        if self._embedded is not None:
            loops.append(self._every(POSTGRES_EVERY, self._revive, "restarting the embedded PostgreSQL"))
        return loops

    async def _every(
        self,
        seconds: float,
        work: Callable[[], Awaitable[None]],
        name: str,
        *,
        first: float = 0.0,
        rest: float = 0.0,
        patience: float | None = PATIENCE,
    ) -> None:
        """`rest`: the pause is at least this many times as long as the work takes; `patience`: see `Steps`."""
        step = self._parts.steps.add(name, patience=patience)
        await asyncio.sleep(first)
        while True:
            began = time.monotonic()
            with step:
                await work()
            await asyncio.sleep(max(step.pause(seconds), rest * (time.monotonic() - began)))

    async def _renew(self) -> None:
        parts = self._parts
        await parts.keeper.run_cycle(parts.workers.give_back)
        epochs = parts.keeper.epochs
        kept = {shard.index: shard.epoch for shard in parts.workers.shards if shard.epoch == epochs.get(shard.index)}
        if epochs.keys() - kept.keys():
            # Of the new ones another node has sent until a moment ago, which counts for gaps and limits. Nothing delays a fence.
            parts.workers.leases({index: epoch for index, epoch in kept.items() if epoch is not None})
            await parts.device_sync.look()
        parts.workers.leases(parts.keeper.epochs)
        parts.router.wake()

    async def _watch_claims(self) -> None:
        await self._parts.claim_watch.look()

    async def _count(self) -> None:
        depth, campaigns = await self._parts.counts.depth(), await self._parts.counts.campaigns()
        self.queue = QueueStatus(**depth, **campaigns, as_of=time.time())

    async def _sweep(self) -> None:
        parts, rules = self._parts, self._parts.rules
        grace = LOST_AFTER * rules.config.lease.ttl
        blocked = parts.recovery.blocked
        await sweep(
            parts.jobs,
            backoff=rules.job_backoff,
            grace=grace,
            zones=parts.zone_of,
            spare=lambda node, shard: node == rules.config.node and shard in blocked,
        )
        await parts.jobs.prepare_archive()

    async def _unblock(self) -> None:
        for shard in await self._parts.recovery.retry():
            self._parts.workers.unblock(shard)
        for shard, why in self._parts.recovery.blocked.items():
            self._parts.workers.block(shard, why)

    async def _expire(self) -> None:
        while await self._parts.jobs.expire(EXPIRE_MOST) == EXPIRE_MOST:
            pass

    async def _advance(self) -> None:
        hints, last = await self._parts.jobs.advance_order_groups(self._order_group, ORDER_MOST)
        self._order_group = FIRST_ORDER_GROUP if last is None else last
        self._parts.work_poller.hint(hints)

    async def _forget(self) -> None:
        await self._parts.retention.sweep(self._parts.rules.config.retention)

    async def _end_cancelled(self) -> None:
        await self._parts.cancelled.end()

    async def _revive(self) -> None:
        assert self._embedded is not None
        if await self._embedded.restart_if_dead():
            log.warning("embedded PostgreSQL had died and is started again", action="postgres")
