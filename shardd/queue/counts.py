"""How much there is: numbers that take reading whole tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardd.queue.database import Database


class Counts:
    """The counting statements over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        """`database`: with the planner's own plans, because every row is read."""
        self._database = database

    async def depth(self, held: Sequence[str] = ()) -> dict[str, Any]:
        """Live jobs: queued, scheduled, sending, and oldest_due_age (seconds; None: none may be sent).

        `held`: devices whose jobs do not count as due, because a limit, quiet hours or a backoff holds them.
        """
        row = (await self._database.fetch_all("queue_depth", {"held": list(held)}))[0]
        oldest = None if row[3] is None else max(0.0, float(row[3]))
        return {"queued": row[0], "scheduled": row[1], "sending": row[2], "oldest_due_age": oldest}

    async def doubts(self) -> int:
        """Jobs in doubt, which wait for a person."""
        count: int = (await self._database.fetch_all("count_doubts"))[0][0]
        return count

    async def campaigns(self) -> dict[str, int]:
        """Of those with live jobs: running_campaigns, paused_campaigns, and paused_jobs, which are those of the paused."""
        running, paused, jobs = (await self._database.fetch_all("count_campaigns"))[0]
        return {"running_campaigns": running, "paused_campaigns": paused, "paused_jobs": jobs}
