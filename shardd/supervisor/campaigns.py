"""Keeps the lines up to date with the campaigns: which run, their weights and caps, and what they sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.campaigns import Campaigns
from shardd.queue.database import Database
from shardd.supervisor.router import Router
from shardd.supervisor.waiting import has_come

log = get_logger(__name__)

EVERY: Final = 0.5
"""Seconds between looks when nothing announces a change: a campaign that was resumed waits no longer."""
SENDS_EVERY: Final = 2.0
"""Seconds between looks at what campaigns with a cap have sent, which another node may have counted."""


class CampaignWatch:
    """The router's knowledge of campaigns. That a paused one sends nothing is seen to by the claim itself."""

    def __init__(
        self, database: Database, campaigns: Campaigns, router: Router, resumed: Callable[[], None] = lambda: None
    ) -> None:
        """`resumed` is called when campaigns run that did not before: somebody must look where their jobs stand.

        A claim that found its campaign paused made the router believe that there is no work.
        """
        self._resumed = resumed
        self._database = database
        self._campaigns = campaigns
        self._router = router
        self._wake = asyncio.Event()
        self._sends_seen = float("-inf")

    async def look(self) -> None:
        """Read which campaigns run. Raises DatabaseError."""
        lines, now = self._router.lines, time.monotonic()
        running = await self._campaigns.running()
        capped = any(campaign.device_cap is not None for campaign in running.values())
        if capped and (running != lines.campaigns or now >= self._sends_seen + SENDS_EVERY):
            # Before the campaigns are known, so that none of them is without its count for a moment.
            since = (datetime.now(UTC) - timedelta(days=2)).date()
            for campaign, device_id, day, sent in await self._campaigns.sends(since):
                if (line := lines.by_id.get(device_id)) is not None:
                    line.note_campaign(campaign, day, sent)
            self._sends_seen = now
        if running != lines.campaigns:
            resumed = running.keys() - lines.campaigns.keys()
            lines.set_campaigns(running, time.monotonic())
            self._router.wake()
            if resumed:
                self._resumed()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await has_come(self._wake, EVERY)
            self._wake.clear()
            try:
                await self.look()
            except DatabaseError as error:
                log.debug("no look at the campaigns", action="poll", error=str(error))

    async def listen(self) -> None:
        """Turn notifications into looks, until cancelled."""
        async for event in self._database.listen("shardd_campaigns"):
            if event.kind != "lost":
                self._wake.set()
