"""Which claims does the database have? Asked after an answer was lost: a claim that nobody here knows may have been committed.

All live jobs are read, page by page, and the router goes on between two pages. Lanes whose claims were not answered wait until
the end: what was claimed of them is unknown, and a job behind it would overtake it.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from shardd.queue.job_pass import JobPass
from shardd.queue.jobs import Jobs
from shardd.queue.records import ClaimRequest
from shardd.queue.settle import Claim


class Audit:
    """Of one supervisor's claims."""

    def __init__(self, jobs: Jobs, incarnation: UUID) -> None:
        self._jobs = jobs
        self._incarnation = incarnation
        self._pass: JobPass[Claim] | None = None
        self._lanes: set[tuple[str, str]] = set()
        self.due = False
        """Whether it has to begin, or to begin again."""
        self.needed_at_end = False
        """Whether any answer was lost: otherwise every claim is known."""

    @property
    def under_way(self) -> bool:
        """Whether pages are left."""
        return self._pass is not None

    def unanswered(self, requests: Iterable[ClaimRequest]) -> None:
        """The answer to these requests was lost."""
        self._lanes.update((request.device_id, request.lane) for request in requests)

    def database_failed(self) -> None:
        """An answer was lost."""
        self.due = self.needed_at_end = True

    def begin(self) -> None:
        """Read all live jobs, from the first on."""
        self._pass = self._jobs.claims_of_incarnation(self._incarnation)
        self.due = False

    async def page(self) -> list[Claim]:
        """The claims of the next page, while no cycle is under way. Raises DatabaseError."""
        if self._pass is None or (claims := await self._pass.page()) is None:
            self._pass = None
            self._lanes.clear()
            return []
        self._pass.advance()
        return claims

    def holds(self, request: ClaimRequest) -> bool:
        """Whether this lane must wait."""
        return (request.device_id, request.lane) in self._lanes
