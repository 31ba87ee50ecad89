"""What a supervisor does periodically beside dispatching: counts, expiry, order groups, lost nodes, retention."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import tzinfo
from typing import Final

from shardd.embedded import EmbeddedPostgres
from shardd.logs import get_logger
from shardd.queue.jobs import Counts, Jobs
from shardd.queue.records import WorkHint
from shardd.supervisor.dispatch.recovery import LOST_AFTER, Recovery, sweep
from shardd.supervisor.scheduling.rules import Rules
from shardd.supervisor.status import QueueStatus

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
"""Seconds between looks at order groups, at least; mostly the settling of a job has released the next one."""
ORDER_MOST: Final = 5000
"""Order groups that are looked at with one statement; of more than these the next look begins behind them."""
FIRST_ORDER_GROUP: Final = ("", "")
CANCELLED_EVERY: Final = 1.0
"""Seconds between looks for jobs of cancelled campaigns; none is sent meanwhile."""
RETENTION_EVERY: Final = 3600.0
"""Seconds between looks for what is old enough to be forgotten."""
POSTGRES_EVERY: Final = 0.5
"""Seconds between looks at the embedded PostgreSQL."""


class QueueCounter:
    """How much there is in the live table, counted now and then."""

    def __init__(self, counts: Counts, held: Callable[[], list[str]]) -> None:
        """`held`: the devices that may send nothing now, whatever is due."""
        self._counts = counts
        self._held = held
        self.queue: QueueStatus | None = None
        """As of the last count; None: there was none yet."""

    async def count(self) -> None:
        """Count now. Raises DatabaseError."""
        depth, doubts = await self._counts.depth(self._held()), await self._counts.doubts()
        self.queue = QueueStatus(**depth, **await self._counts.campaigns(), in_doubt=doubts, as_of=time.time())


class OrderGroups:
    """Releases jobs whose predecessor in their order group has ended otherwise than by being sent."""

    def __init__(self, jobs: Jobs, hint: Callable[[list[WorkHint]], None]) -> None:
        self._jobs = jobs
        self._hint = hint
        self._after = FIRST_ORDER_GROUP

    async def advance(self) -> None:
        """Look at the next order groups. Raises DatabaseError."""
        hints, last = await self._jobs.advance_order_groups(self._after, ORDER_MOST)
        self._after = FIRST_ORDER_GROUP if last is None else last
        self._hint(hints)


class LostNodes:
    """Settles the claims of nodes that are gone, and prepares the archive's next months."""

    def __init__(self, jobs: Jobs, rules: Rules, recovery: Recovery, zone_of: Callable[[str], tzinfo]) -> None:
        self._jobs = jobs
        self._rules = rules
        self._recovery = recovery
        self._zone_of = zone_of

    async def sweep(self) -> None:
        """Look once. Raises DatabaseError."""
        config = self._rules.config
        await sweep(
            self._jobs,
            backoff=self._rules.job_backoff,
            grace=LOST_AFTER * config.lease.ttl,
            zones=self._zone_of,
            # What waits for a readable journal of this node is not lost.
            spare=lambda node, shard: node == config.node and shard in self._recovery.blocked,
        )
        await self._jobs.prepare_archive()


async def expire(jobs: Jobs) -> None:
    """End the jobs whose time is over. Raises DatabaseError."""
    while await jobs.expire(EXPIRE_MOST) == EXPIRE_MOST:
        pass


async def revive(embedded: EmbeddedPostgres) -> None:
    """Restart the embedded PostgreSQL if it has died. Raises DatabaseError."""
    if await embedded.restart_if_dead():
        log.warning("embedded PostgreSQL had died and is started again", action="postgres")
