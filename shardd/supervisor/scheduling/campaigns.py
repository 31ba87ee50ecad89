"""Keeps the scheduler up to date with the campaigns: which run, their weights and caps, and what they sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from shardd.queue.campaigns import Campaigns
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.services import Service, Step
from shardd.tasks import WakeUp

EVERY: Final = 0.5
"""Seconds between looks when nothing announces a change: a campaign that was resumed waits no longer."""
SPACING: Final = 0.1
"""Seconds between looks, however many changes are announced."""
SENDS_EVERY: Final = 2.0
"""Seconds between looks at what campaigns with a cap have sent, which another node may have counted."""


class CampaignSync(Service):
    """The scheduler's knowledge of campaigns. The claim itself sees to it that a paused one sends nothing."""

    def __init__(
        self,
        campaigns: Campaigns,
        scheduler: Scheduler,
        step: Step,
        *,
        changed: Callable[[], None],
        resumed: Callable[[], None],
    ) -> None:
        """`changed` is called after each change, `resumed` if campaigns run that did not before: their lanes must be scanned.

        A claim that found its campaign paused made the scheduler believe that there is no work.
        """
        self._changed = changed
        self._resumed = resumed
        self._campaigns = campaigns
        self._scheduler = scheduler
        self._step = step
        self._wake = WakeUp(SPACING)
        self._sends_seen = float("-inf")

    async def look(self) -> None:
        """Read which campaigns run. Raises DatabaseError."""
        scheduler, now = self._scheduler, time.monotonic()
        running = await self._campaigns.running()
        capped = any(campaign.device_cap is not None for campaign in running.values())
        if capped and (running != scheduler.campaigns or now >= self._sends_seen + SENDS_EVERY):
            # Before the campaigns are known, so that none of them is without its count for a moment.
            since = (datetime.now(UTC) - timedelta(days=2)).date()
            for campaign, device_id, day, sent in await self._campaigns.sends(since):
                if (queue := scheduler.queues.get(device_id)) is not None:
                    queue.note_campaign_sends(campaign, day, sent)
            self._sends_seen = now
        if running != scheduler.campaigns:
            resumed = running.keys() - scheduler.campaigns.keys()
            scheduler.set_campaigns(running, time.monotonic())
            self._changed()
            if resumed:
                self._resumed()

    async def serve(self) -> None:
        """Look until cancelled."""
        while True:
            await self._wake.wait(self._step.pause(EVERY))
            with self._step:
                await self.look()

    def wake(self) -> None:
        """Look soon."""
        self._wake.set()
