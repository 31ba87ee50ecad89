"""What a supervisor does again and again beside routing: leases, the count of the queue, lost nodes, its own PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from shardd.embedded import EmbeddedPostgres
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.supervisor.parts import Parts
from shardd.supervisor.recovery import sweep
from shardd.supervisor.status import QueueStatus

log = get_logger(__name__)

SWEEP_EVERY: Final = 60.0
"""Seconds between looks for claims of lost nodes."""
DEPTH_EVERY: Final = 2.0
"""Seconds between counts of the queue, at least; a count that takes long is repeated seldom."""
POSTGRES_EVERY: Final = 0.5
"""Seconds between looks at the embedded PostgreSQL."""
LOST_AFTER: Final = 2.0
"""A node is called lost after this many times its leases' ttl."""


class Upkeep:
    """The steps, and their rhythm."""

    def __init__(self, parts: Parts, embedded: EmbeddedPostgres | None) -> None:
        self._parts = parts
        self._embedded = embedded
        self.queue: QueueStatus | None = None

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """One endless coroutine for each duty."""
        lease = self._parts.rules.config.lease
        loops = [
            _every(lease.renew_every, self._renew, "leases not renewed", first=lease.renew_every),
            _every(DEPTH_EVERY, self._count, "queue not counted"),
            _every(SWEEP_EVERY, self._sweep, "lost claims not looked for"),
        ]
        if self._embedded is not None:
            loops.append(_every(POSTGRES_EVERY, self._revive, "embedded PostgreSQL not started"))
        return loops

    async def _renew(self) -> None:
        parts = self._parts
        await parts.keeper.turn(parts.fleet.give_back)
        parts.fleet.leases(parts.keeper.epochs)
        parts.router.wake()

    async def _count(self) -> None:
        began = time.monotonic()
        self.queue = QueueStatus(**await self._parts.jobs.depth(), as_of=time.time())
        # Counting a long queue must stay a small part of the database's work.
        await asyncio.sleep(20 * (time.monotonic() - began))

    async def _sweep(self) -> None:
        rules = self._parts.rules
        grace, zone = LOST_AFTER * rules.config.lease.ttl, rules.config.pacing.zone
        await sweep(self._parts.jobs, backoff=rules.job_backoff, grace=grace, zone=zone)
        await self._parts.jobs.prepare_archive()

    async def _revive(self) -> None:
        assert self._embedded is not None
        if await self._embedded.restart_if_dead():
            log.warning("embedded PostgreSQL had died and is started again", action="postgres")


async def _every(seconds: float, step: Callable[[], Awaitable[None]], trouble: str, *, first: float = 0.0) -> None:
    await asyncio.sleep(first)
    while True:
        try:
            await step()
        except SharddError as error:
            log.warning(trouble, action="upkeep", error=str(error))
        await asyncio.sleep(seconds)
