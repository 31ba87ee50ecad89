"""Periodic work beside dispatching: queue counts, order groups, producer bindings, embedded PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from shardd.embedded import EmbeddedPostgres
from shardd.errors import DatabaseError, SharddError
from shardd.logs import get_logger
from shardd.queue.forgetting import Forgetting
from shardd.queue.jobs import Counts, Jobs
from shardd.queue.producers import ProducerAdmin
from shardd.queue.records import WorkHint
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.status import QueueStatus

log = get_logger(__name__)

SELDOM: Final = 20.0
"""Work that reads every live job pauses for this many times its own duration, to stay a small part of the database's load."""
SWEEP_EVERY: Final = 60.0
"""Seconds between checks of what changes seldom: the archive's next months, the rules of numbers."""
DEPTH_EVERY: Final = 2.0
"""Seconds between counts of the queue, at least (see `SELDOM`)."""
EXPIRE_EVERY: Final = 1.0
"""Seconds between checks for expired jobs. None is sent late meanwhile: the claim and the worker check, too."""
ORDER_EVERY: Final = 2.0
"""Seconds between checks of order groups, at least; mostly settling a job has released the next one."""
ORDER_MOST: Final = 5000
"""Order groups that one statement checks; the next one continues behind them."""
FIRST_ORDER_GROUP: Final = ("", "")
CANCELLED_EVERY: Final = 1.0
"""Seconds between checks for jobs of cancelled campaigns; none is sent meanwhile."""
RETENTION_EVERY: Final = 3600.0
"""Seconds between checks for what is old enough to be deleted."""
BINDINGS_EVERY: Final = 20.0
"""Seconds between checks of the bound roles."""
FORGETTING_EVERY: Final = 20.0
"""Seconds between checks for erasures that were interrupted."""
POSTGRES_EVERY: Final = 0.5
"""Seconds between checks of the embedded PostgreSQL."""

_UNBOUND: Final = {
    "missing": "there is no such role: was it renamed? Bind it under its new name, and free the old one (shardd producer remove)",
    "unheld": "no binding holds it, because it is a superuser, a member of the role that owns shardd's tables, or has BYPASSRLS",
    "stale": "it was given LOGIN, or lost it, since it was bound: bind it again (shardd producer add)",
}


class QueueCounter:
    """Counts the live table periodically."""

    def __init__(
        self, counts: Counts, opens: Callable[[], Mapping[str, float]], down: Callable[[], Mapping[str, str]]
    ) -> None:
        """`opens`: see `Scheduler.opens`; `down`: the state of the shard of each device whose shard does not run here."""
        self._counts = counts
        self._opens = opens
        self._down = down
        self.queue: QueueStatus | None = None
        """The last count; None: not counted yet."""

    async def count(self) -> None:
        """Count now. Raises DatabaseError."""
        began = time.time()
        depth, doubts = await self._counts.depth(self._opens(), self._down()), await self._counts.doubts()
        counts: dict[str, Any] = {**await self._counts.campaigns(), **await self._counts.unreadable()}
        self.queue = QueueStatus(**depth, **counts, in_doubt=doubts, as_of=began)


class OrderGroups:
    """Releases jobs whose predecessor in their order group has ended without being sent."""

    def __init__(self, jobs: Jobs, hint: Callable[[list[WorkHint]], None]) -> None:
        self._jobs = jobs
        self._hint = hint
        self._after = FIRST_ORDER_GROUP

    async def advance(self) -> None:
        """Check the next order groups. Raises DatabaseError."""
        hints, last = await self._jobs.advance_order_groups(self._after, ORDER_MOST)
        self._after = FIRST_ORDER_GROUP if last is None else last
        self._hint(hints)


class BindingCheck:
    """Whether the bindings of producers hold the roles they were made for.

    A role that was renamed or became a superuser is as free as one that was never bound, and no INSERT of its own would show it.
    """

    def __init__(self, producers: ProducerAdmin) -> None:
        self._producers = producers
        self._unbound: list[tuple[str, str]] = []

    async def check(self) -> None:
        """Check now. Raises DatabaseError."""
        self._unbound = await self._producers.idle()

    def problems(self) -> Iterable[Problem]:
        """One for each role."""
        for role, why in self._unbound:
            yield Problem(ProblemKind.PRODUCER, f"producer {role} is bound, but {_UNBOUND[why]}")


class ForgettingCheck:
    """Whether the erasure of somebody who asked to be forgotten was interrupted."""

    def __init__(self, forgetting: Forgetting) -> None:
        self._forgetting = forgetting
        self._interrupted: tuple[datetime, int] | None = None

    async def check(self) -> None:
        """Check now. Raises DatabaseError."""
        self._interrupted = await self._forgetting.interrupted()

    def problems(self) -> Iterable[Problem]:
        """One, if there is any."""
        if self._interrupted is not None:
            since, runs = self._interrupted
            yield Problem(
                ProblemKind.OPT_OUTS,
                f"people who asked to be forgotten are not erased yet: shardd opt-out forget was interrupted (runs: {runs:,}; "
                f"the first began at {since:%Y-%m-%d %H:%M} UTC): shardd opt-out forget, without a number, continues it",
            )


async def revive(embedded: EmbeddedPostgres) -> None:
    """Restart the embedded PostgreSQL if it has died. Raises SharddError."""
    try:
        restarted = await embedded.restart_if_dead()
    except DatabaseError as error:
        # Not as a DatabaseError: a database that does not answer explains those, and this explains that.
        raise SharddError(str(error)) from error
    if restarted:
        log.warning("embedded PostgreSQL had died and was restarted", action="postgres")
