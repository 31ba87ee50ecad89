"""Claims that do not move on: that no worker has, that a worker has had for far too long, or whose outcome cannot be stored.

The columns of a claim have no index, so that claiming stays cheap: a search for old claims reads every live job, page by page. It
runs as often as the leases are renewed, less often where it takes long, on connections of its own, and its result is only a hint:
the router checks it while no cycle is under way.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final
from uuid import UUID

from shardd.queue.jobs import Jobs
from shardd.queue.settle import Claim
from shardd.supervisor.dispatch.in_flight import InFlight
from shardd.supervisor.dispatch.router import Router
from shardd.supervisor.problems import Problem, ProblemKind

OLD: Final = 5.0
"""Seconds after which a claim is examined: most are settled long before."""
SHOWN: Final = 60.0
"""Seconds for which the status shows that claims without a worker were returned to the queue."""
LATE: Final = 15.0
"""Seconds that a worker may take to report a send that it has cut off."""


class ClaimWatch:
    """One step, repeated by the supervisor's upkeep, and its findings."""

    def __init__(
        self, incarnation: UUID, jobs: Jobs, router: Router, in_flight: InFlight, send_timeout: Callable[[], float]
    ) -> None:
        """`incarnation`: of this supervisor; `send_timeout`: seconds that a worker gives a send."""
        self._incarnation = incarnation
        self._jobs = jobs
        self._old_claims = jobs.old_claims(OLD, incarnation)
        self._router = router
        self._in_flight = in_flight
        self._send_timeout = send_timeout
        self._orphans: Counter[str] = Counter()
        """By node."""

    async def search(self) -> None:
        """Search. Raises DatabaseError."""
        found = await self._old_claims.rest()
        doubts = await self._jobs.find_doubts([], [self._incarnation])
        self._router.check_claims([claim for claim, _, ours in found if ours], [doubt.claim for doubt in doubts])
        self._orphans = Counter(node for _, node, ours in found if not ours)

    def notes(self) -> list[str]:
        """Claims that were returned to the queue: told for a while, and no problem, since nothing waits for a person."""
        lost, at = self._router.lost_claims
        age = time.monotonic() - at
        if age >= SHOWN:
            return []
        text = "the database's answer was lost, or its commit hung; they are back in the queue"
        return [f"{_count(lost)} claimed {age:.0f} s ago or earlier without reaching a worker: {text}"]

    def problems(self) -> Iterator[Problem]:
        """See `shardd.supervisor.problems`."""
        for node, jobs in sorted(self._orphans.items()):
            yield Problem(
                ProblemKind.CLAIM,
                f"{_count(jobs)} left `sending` by node {node}, whose leases have ended: in doubt shortly, unless that node "
                "starts again and its journals know more",
            )
        now = time.monotonic()
        limit = self._send_timeout() + LATE
        late: dict[int, list[Claim]] = {}
        for shard, claim in self._in_flight.since(now - limit):
            late.setdefault(shard, []).append(claim)
        for shard, claims in sorted(late.items()):
            yield Problem(
                ProblemKind.CLAIM,
                f"{_count(len(claims))} with the worker of shard {shard} for over {limit:.0f} s, longer than queue.send_timeout "
                f"allows, such as job {claims[0].id} of device {claims[0].device_id}: shardd restart {shard} settles them by the "
                "journal",
            )
        if refused := self._in_flight.refused():
            claim, error = refused[0]
            more = f" and {len(refused) - 1:,} more" if len(refused) > 1 else ""
            yield Problem(
                ProblemKind.REFUSED,
                f"the database refuses to store the outcome of job {claim.id} of device {claim.device_id} ({error}){more}: "
                "`sending` until it does; this is retried",
            )


def _count(number: int) -> str:
    return "1 job" if number == 1 else f"{number:,} jobs"
