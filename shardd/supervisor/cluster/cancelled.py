"""Moves the jobs of cancelled campaigns to the archive, in chunks.

Nothing waits for it: no claim takes a job of a cancelled campaign, and the outcomes say that such a job waits for nothing. It
keeps the live table small. After each chunk it rests as long as the chunk took, so that ending a million jobs takes the claims at
most half of the database's time.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from shardd.logs import get_logger
from shardd.queue.database import Database

log = get_logger(__name__)

CHUNK: Final = 2000
"""Jobs that end in one transaction, so that no row stays locked for long."""


class CancelledJobs:
    """Ends what cancelled campaigns left behind."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def end(self) -> int:
        """End every such job that nobody has in flight; returns how many ended. Raises DatabaseError."""
        ended = 0
        for campaign, why in await self._database.fetch_all("cancelled_campaigns"):
            ended += await self._end(campaign, why)
        return ended

    async def _end(self, campaign: str, why: str | None) -> int:
        error = "its campaign was cancelled" + (f": {why}" if why else "")
        ended = after = 0
        while True:
            began = time.monotonic()
            params = {"campaign": campaign, "after": after, "most": CHUNK, "error": error}
            ids = [row[0] for row in await self._database.fetch_all("end_cancelled_jobs", params)]
            ended += len(ids)
            if len(ids) < CHUNK:
                break
            after = max(ids)
            await asyncio.sleep(time.monotonic() - began)
        if ended:
            log.info("jobs of a cancelled campaign ended", action="campaign", campaign=campaign, jobs=ended)
        return ended
