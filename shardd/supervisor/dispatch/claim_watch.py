"""Claims that stand still: that no worker has, that one has for far too long, or that the database refuses to make or to end.

No index names the columns of a claim, so that claiming stays cheap: looking for old claims reads every live job. It is done now
and then, on a connection of its own, and what it finds is only suspected: the router asks again while no cycle is under way.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from shardd.queue.jobs import Jobs
from shardd.queue.settle import Claim
from shardd.supervisor.dispatch.router import Router
from shardd.supervisor.problems import Problem, ProblemKind

EVERY: Final = 10.0
"""Seconds between looks, at least; one that takes long is repeated seldom."""
OLD: Final = 5.0
"""Seconds after which a claim is looked at: most are settled long before."""
SHOWN: Final = 60.0
"""Seconds for which it is shown that claims without a worker were returned to the queue."""
LATE: Final = 15.0
"""Seconds that a worker may take to report a send that it has cut off."""


class ClaimWatch:
    """One step, repeated by the supervisor's upkeep, and what it knows."""

    def __init__(self, jobs: Jobs, router: Router, send_timeout: Callable[[], float]) -> None:
        """`send_timeout`: seconds that a worker gives a send."""
        self._jobs = jobs
        self._router = router
        self._send_timeout = send_timeout
        self._orphans: Counter[str] = Counter()

    async def look(self) -> None:
        """Raises DatabaseError."""
        epochs = set(self._router.epochs)
        found = await self._jobs.old_claims(OLD, sorted(epochs))
        self._router.suspect([claim for claim, _, _ in found])
        self._orphans = Counter(node for claim, node, leased in found if not leased and claim.epoch not in epochs)

    def problems(self) -> Iterator[Problem]:
        """See `shardd.supervisor.problems`."""
        now = time.monotonic()
        lost, at = self._router.lost_claims
        if now < at + SHOWN:
            yield Problem(
                ProblemKind.CLAIM,
                f"{_count(lost)} claimed {now - at:.0f} s ago or earlier, but no worker was told: the answer of the database was "
                "lost, or its commit hung; they are back in the queue",
            )
        for node, jobs in sorted(self._orphans.items()):
            yield Problem(
                ProblemKind.CLAIM,
                f"{_count(jobs)} left `sending` by node {node}, whose leases have ended: in doubt in a moment, unless that node "
                "starts again and its journals know more",
            )
        yield from self._late(now)
        yield from self._refused()

    def _late(self, now: float) -> Iterator[Problem]:
        limit = self._send_timeout() + LATE
        by_shard: dict[int, list[Claim]] = {}
        for shard, claim in self._router.in_flight_since(now - limit):
            by_shard.setdefault(shard, []).append(claim)
        for shard, claims in sorted(by_shard.items()):
            yield Problem(
                ProblemKind.CLAIM,
                f"{_count(len(claims))} with the worker of shard {shard} for over {limit:.0f} s, longer than queue.send_timeout "
                f"allows, such as job {claims[0].id} of device {claims[0].device_id}: shardd restart {shard} settles them by the "
                "journal",
            )

    def _refused(self) -> Iterator[Problem]:
        outcomes = [(f"job {claim.id} of device {claim.device_id}", error) for claim, error in self._router.set_aside()]
        if outcomes:
            yield Problem(
                ProblemKind.REFUSED,
                f"the database refuses to store what became of {_first(outcomes)}: `sending` until it does; it is tried again",
            )


def _count(number: int) -> str:
    return "1 job" if number == 1 else f"{number:,} jobs"


def _first(found: Sequence[tuple[str, str]]) -> str:
    what, error = found[0]
    return f"{what} ({error})" if len(found) == 1 else f"{what} ({error}) and {len(found) - 1:,} more"
