"""The numbers of campaigns, which take the database reading all their jobs: counted now and then, and moved by events meanwhile.

What events do not tell, such as new jobs, shows with the next count. An event of the moment of a count may be counted twice, or
not at all, until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from shardd.dashboard.kept import Answer, Kept
from shardd.dashboard.supervisor_client import SupervisorClient
from shardd.event_kinds import EventKind
from shardd.queue.campaign_counts import CampaignCounts
from shardd.queue.campaigns import CampaignDetails, DeviceShare
from shardd.queue.database import Database
from shardd.queue.events import EventRow

_ENDS: Final[Mapping[str, str]] = {
    EventKind.JOB_SENT: "sent",
    EventKind.JOB_FAILED: "failed",
    EventKind.JOB_IN_DOUBT: "in_doubt",
    EventKind.JOB_EXPIRED: "expired",
    EventKind.JOB_OPTED_OUT: "opted_out",
    EventKind.JOB_CANCELLED: "cancelled",
}
"""The column of `DeviceShare` in which a job is counted after an event."""
_LIVE: Final = ("sending", "queued", "scheduled")
"""Those that it may have been counted in before, the likeliest first."""


class CampaignNumbers:
    """Of all campaigns that somebody looks at."""

    def __init__(self, database: Database, supervisor: SupervisorClient) -> None:
        """`supervisor`: knows the time zone of devices without one."""
        counts, turn = CampaignCounts(database), asyncio.Lock()

        async def details(campaign: str) -> CampaignDetails | None:
            return await counts.details(campaign, (await supervisor.settings()).pacing.timezone)

        self.details = Kept(details, turn)
        """By device."""
        self.totals = Kept(counts.totals, turn)
        """As one share."""

    def begin(self) -> None:
        """Events may have been missed."""
        self.outdate()

    def outdate(self, campaign: str | None = None) -> None:
        """Something was done with a campaign, or with any."""
        self.details.outdate(campaign)
        self.totals.outdate(campaign)

    def heard(self, events: Sequence[EventRow]) -> None:
        """Move the numbers by what happened since they were counted."""
        by_campaign: dict[str, list[EventRow]] = {}
        for event in events:
            if event.campaign is not None and event.kind in _ENDS:
                by_campaign.setdefault(event.campaign, []).append(event)
        for campaign, ends in by_campaign.items():
            _move(self.totals.last(campaign), ends, lambda _: None)
            _move(self.details.last(campaign), ends, lambda event: event.device_id)

    async def close(self) -> None:
        """Stop counting."""
        await self.details.close()
        await self.totals.close()


def _move(
    answer: Answer[CampaignDetails | None] | None, ends: Sequence[EventRow], device: Callable[[EventRow], str | None]
) -> None:
    """`device`: of which share an event is."""
    if answer is None or answer.value is None:
        return
    shares = {share.device_id: share for share in answer.value.shares}
    for event in ends:
        share = shares.get(device(event))
        if share is not None and event.at.timestamp() >= answer.asked_at:
            shares[share.device_id] = _after(share, event, _ENDS[event.kind])
    answer.value = replace(answer.value, shares=[*shares.values()])


def _after(share: DeviceShare, event: EventRow, ended_as: str) -> DeviceShare:
    changes: dict[str, Any] = {ended_as: getattr(share, ended_as) + 1}
    if (was := next((name for name in _LIVE if getattr(share, name)), None)) is not None:
        changes[was] = getattr(share, was) - 1
    if ended_as == "sent":
        changes |= {"last_sent": event.at, "first_sent": share.first_sent or event.at}
        changes |= {"sent_lately": share.sent_lately + 1, "first_lately": share.first_lately or event.at}
    return replace(share, **changes)
