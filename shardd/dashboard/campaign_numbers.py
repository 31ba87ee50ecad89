"""The numbers of campaigns, which take the database reading all their jobs: counted now and then, and moved by events meanwhile.

What events do not tell, such as new jobs, shows with the next count; where it would make a job count twice, that is soon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from shardd.dashboard.kept import Kept
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
_COUNT_AGAIN: Final = {EventKind.JOB_RETRIED, *_ENDS}
"""A job that had ended is in the queue again, or has another end: which one it had before is not told."""
_LIVE: Final = ("sending", "queued", "scheduled")
"""Those that it may have been counted in before, the likeliest first."""


@dataclass(frozen=True, slots=True)
class _End:
    """A job ended."""

    transaction: int
    at: datetime
    device_id: str | None
    ended_as: str


class CampaignNumbers:
    """Of all campaigns that somebody looks at."""

    def __init__(self, database: Database, supervisor: SupervisorClient) -> None:
        """`supervisor`: knows the time zone of devices without one."""
        self._counts, self._supervisor = CampaignCounts(database), supervisor
        self._heard: dict[str, list[_End]] = {}
        """Of the campaign that is being counted: what happens meanwhile."""
        turn = asyncio.Lock()
        self.details = Kept(self._details, turn)
        """By device."""
        self.totals = Kept(self._totals, turn)
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
        by_campaign: dict[str, list[_End]] = {}
        for event in events:
            if event.campaign is None:
                continue
            if (end := _end_of(event)) is not None:
                by_campaign.setdefault(event.campaign, []).append(end)
            elif event.kind in _COUNT_AGAIN:
                self.outdate(event.campaign)
        for campaign, ends in by_campaign.items():
            if (heard := self._heard.get(campaign)) is not None:
                heard += ends
            for kept, by_device in ((self.totals, False), (self.details, True)):
                if (answer := kept.last(campaign)) is not None:
                    answer.value = _moved(answer.value, ends, by_device=by_device)

    async def close(self) -> None:
        """Stop counting."""
        await self.details.close()
        await self.totals.close()

    async def _details(self, campaign: str) -> CampaignDetails | None:
        with self._hearing(campaign) as heard:
            zone = (await self._supervisor.settings()).pacing.timezone
            return _moved(await self._counts.details(campaign, zone), heard, by_device=True)

    async def _totals(self, campaign: str) -> CampaignDetails | None:
        with self._hearing(campaign) as heard:
            return _moved(await self._counts.totals(campaign), heard, by_device=False)

    @contextmanager
    def _hearing(self, campaign: str) -> Iterator[list[_End]]:
        """What happens in the block. One count goes on at a time."""
        try:
            yield self._heard.setdefault(campaign, [])
        finally:
            del self._heard[campaign]


def _end_of(event: EventRow) -> _End | None:
    """None: the job has not ended just now."""
    settled_at = event.data.get("settled_at")
    if event.kind not in _ENDS or settled_at is None or datetime.fromisoformat(settled_at) != event.at:
        return None
    transaction, _, _ = event.position.partition("-")
    return _End(int(transaction), event.at, event.device_id, _ENDS[event.kind])


def _moved(details: CampaignDetails | None, ends: Sequence[_End], *, by_device: bool) -> CampaignDetails | None:
    """With those ends that were not counted."""
    if details is None or details.snapshot is None:
        return details
    shares = {share.device_id: share for share in details.shares}
    for end in ends:
        share = shares.get(end.device_id if by_device else None)
        if share is not None and not details.snapshot.sees(end.transaction):
            shares[share.device_id] = _after(share, end)
    return replace(details, shares=[*shares.values()])


def _after(share: DeviceShare, end: _End) -> DeviceShare:
    was = next((name for name in _LIVE if getattr(share, name)), None)
    changes: dict[str, Any] = {end.ended_as: getattr(share, end.ended_as) + 1}
    if was is not None:
        changes[was] = getattr(share, was) - 1
    if end.ended_as == "sent":
        changes |= {"last_sent": end.at, "first_sent": share.first_sent or end.at}
        changes |= {"sent_lately": share.sent_lately + 1, "first_lately": share.first_lately or end.at}
    return replace(share, **changes)
