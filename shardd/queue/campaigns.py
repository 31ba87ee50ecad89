"""Campaigns in the database, for the daemon and for operators: the statements of `sql/campaigns.sql` as typed calls.

The operators' calls work with the daemon up or down. A claim checks its campaign's row, so a change takes effect with its commit,
however long the queue is; a running daemon moves the jobs of a cancelled campaign to the archive afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

from shardd.postgres.snapshots import Snapshot
from shardd.queue.queries import Changes, Record, Statements, changes_of, first, rows_of
from shardd.queue.records import Campaign
from shardd.words import count

WEIGHTS: Final = (0.001, 1000.0)
"""The least and the largest weight."""
FINAL: Final = "cancelled, and that is final; begin a new one under another id"
"""Why nothing more can be done with a campaign."""


class Campaigns(Statements):
    """What the daemon does with campaigns."""

    async def running(self) -> dict[str, Campaign]:
        """Every campaign whose jobs may be sent, by id."""

        def running(*, id: str, **terms: Any) -> tuple[str, Campaign]:  # noqa: A002  # a column's name
            return id, Campaign(**terms)

        return dict(await self._database.rows(running, "running_campaigns"))

    async def sends(self, since: date) -> list[tuple[str, str, date, int]]:
        """(campaign, device, day, messages) of running campaigns with a cap, since a day."""
        rows = await self._database.rows(Record, "campaign_sends", {"since": since})
        return [(row["campaign"], row["device_id"], row["day"], row["sent"]) for row in rows]


class CampaignState(StrEnum):
    """Whether a campaign's jobs are sent."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"  # for good


@dataclass(frozen=True, slots=True)
class CampaignTitle:
    """A campaign without its numbers.

    `shown_state`: `finished` while it runs, has had jobs and has none left, until it gets more; otherwise `state`.
    """

    id: str
    label: str | None
    state: str
    shown_state: str
    why: str | None
    state_since: datetime
    weight: float
    device_cap: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CampaignRow(CampaignTitle):
    """A campaign; `live`: jobs that have not ended, `sent_lately`: messages of the last ten minutes."""

    live: int
    sent_lately: int
    last_sent: datetime | None


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """A campaign's jobs on one device; `device_id` None: those without a device.

    `device_state` may also be `removed` or `paused`. `sent_today` is by the device's own calendar, and counted only for a
    campaign with a cap. `first_lately`: when the first message of `sent_lately` was sent. `lane_waits`: queued jobs whose lane
    the pace or a backoff of the device holds back for longer than a gap, with `lane_why`, until `lane_until`. `next_due`: when
    the next scheduled job is due.
    """

    device_id: str | None
    transport: str | None
    device_state: str | None
    queued: int
    scheduled: int
    sending: int
    sent: int
    failed: int
    in_doubt: int
    expired: int
    opted_out: int
    cancelled: int
    sent_lately: int
    first_lately: datetime | None
    sent_today: int
    lane_waits: int
    lane_why: str | None
    lane_until: datetime | None
    next_due: datetime | None
    first_sent: datetime | None
    last_sent: datetime | None

    @property
    def waiting(self) -> int:
        """Jobs that are not in flight."""
        return self.queued + self.scheduled


@dataclass(frozen=True, slots=True)
class Pool:
    """A campaign's jobs that wait for a device of a group; `able`: how many of its `devices` can send."""

    device_group: str
    jobs: int
    devices: int
    able: int


@dataclass(frozen=True, slots=True)
class CampaignDetails:
    """One campaign with the counts of its jobs."""

    row: CampaignTitle
    shares: Sequence[DeviceShare]
    """The device with the most waiting jobs first."""
    pools: Sequence[Pool]
    revocations: Mapping[str, int] = field(default_factory=dict)
    """How many revocations of its messages are in which state."""
    snapshot: Snapshot | None = None
    """In which it was counted."""


@dataclass(frozen=True, slots=True)
class CampaignJobs:
    """A campaign's live jobs, which decide what can be done with it."""

    id: str
    state: str
    live: int
    in_flight: int
    more: bool = False
    """There may be more of them than were counted."""

    @property
    def waiting(self) -> int:
        """Jobs that are not in flight."""
        return self.live - self.in_flight


def waiting_words(campaigns: Sequence[CampaignJobs]) -> str:
    """How many jobs of these are not in flight, such as `1 waiting job` or `10,000 or more waiting jobs`."""
    waiting = sum(one.waiting for one in campaigns)
    return f"{waiting:,} or more waiting jobs" if any(one.more for one in campaigns) else count(waiting, "waiting job")


def what_ends(campaigns: Sequence[CampaignJobs]) -> str:
    """What cancelling these does, in words."""
    in_flight, waiting = sum(one.in_flight for one in campaigns), sum(one.waiting for one in campaigns)
    words = f"{waiting_words(campaigns)} {'ends' if waiting == 1 else 'end'} unsent"
    if any(one.more for one in campaigns):
        return words + ", those in flight are finished"
    return words + (f", {in_flight:,} in flight {'is' if in_flight == 1 else 'are'} finished" if in_flight else "")


def what_waits(campaign: CampaignJobs) -> str:
    """What of a campaign is still sent when its messages are revoked, in words; empty: nothing."""
    if campaign.state == CampaignState.CANCELLED or not campaign.live:
        return ""
    ends = "cancel it" if campaign.state == CampaignState.PAUSED else "pause or cancel it first"
    jobs = f"{campaign.live:,} or more jobs" if campaign.more else count(campaign.live, "job")
    return f"{jobs} of campaign {campaign.id} still {'waits' if campaign.live == 1 else 'wait'}: {ends}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignTerms:
    """The terms of a campaign; None: not given. A cap of 0 means none, an empty label no label."""

    label: str | None = None
    weight: float | None = None
    device_cap: int | None = None

    @property
    def words(self) -> str:
        """Those that are given, for the audit log."""
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items() if value is not None)

    def are_of(self, campaign: CampaignTitle) -> bool:
        """Whether a campaign is what `CampaignAdmin.add` with these terms would have made."""
        weight = 1.0 if self.weight is None else self.weight
        return (campaign.label, campaign.weight, campaign.device_cap) == (
            self.label or None,
            weight,
            self.device_cap or None,
        )


class CampaignAdmin(Statements):
    """What an operator asks and does about campaigns."""

    async def newest(
        self, most: int, *, state: CampaignState | None = None, most_jobs: int | None = None
    ) -> list[CampaignRow]:
        """Up to `most` campaigns, newest first. `most_jobs`: of each, so many live jobs are counted; None: all."""
        return await self._find(ids=None, state=state, most=most, most_jobs=most_jobs)

    async def find(self, ids: Sequence[str], *, most_jobs: int | None = None) -> list[CampaignRow]:
        """Those of these campaigns that exist. `most_jobs`: as of `newest`."""
        return await self._find(ids=ids, state=None, most=len(ids), most_jobs=most_jobs)

    async def page(
        self, most: int, *, after: str | None = None, state: CampaignState | None = None
    ) -> list[CampaignTitle]:
        """Up to `most` campaigns without their numbers, newest first; `after`: those that follow this one."""
        params = {"most": most, "after": after, "state": state}
        return await self._database.rows_for(CampaignTitle, "page_of_campaigns", params)

    async def title(self, campaign: str) -> CampaignTitle | None:
        """One campaign without its numbers."""
        return first(await self._database.rows(CampaignTitle, "campaign_title", {"id": campaign}))

    async def count_jobs(self, ids: Sequence[str], *, most: int | None = None) -> list[CampaignJobs]:
        """The live jobs of those of these campaigns that exist, counted up to `most` of each; None: all."""
        return await self._database.rows_for(CampaignJobs, "count_campaign_jobs", {"ids": list(ids), "most": most})

    async def add(self, ids: Sequence[str], terms: CampaignTerms, state: CampaignState) -> set[str]:
        """Add campaigns; returns the ids that were not there."""
        return await self._ids("add_campaigns", _params(ids, terms) | {"state": state})

    async def change(self, ids: Sequence[str], terms: CampaignTerms, zone: str) -> Changes:
        """Change the terms that are given. `zone`: the time zone of devices without one.

        A new cap counts today's earlier messages.
        """
        queries = self._database.queries
        async with self._database.connection() as connection, connection.transaction():
            if terms.device_cap:
                await connection.execute(queries["count_todays_sends"], {"ids": list(ids), "zone": zone})
            return changes_of(await rows_of(connection, Record, queries["set_campaigns"], _params(ids, terms)))

    async def set_state(self, ids: Sequence[str], state: CampaignState, why: str | None = None) -> Changes:
        """Pause or resume those that are not cancelled, or give those that are paused a new reason."""
        return await self._changes("set_campaign_state", {"ids": list(ids), "state": state, "why": why})

    async def cancel(self, ids: Sequence[str], why: str | None) -> set[str]:
        """End campaigns for good; returns those that were not cancelled before."""
        return await self._ids("cancel_campaigns", {"ids": list(ids), "why": why})

    async def _find(
        self, *, ids: Sequence[str] | None, state: CampaignState | None, most: int, most_jobs: int | None
    ) -> list[CampaignRow]:
        params = {"ids": None if ids is None else list(ids), "state": state, "most": most, "most_jobs": most_jobs}
        return await self._database.rows_for(CampaignRow, "list_campaigns", params)


def _params(ids: Sequence[str], terms: CampaignTerms) -> dict[str, object]:
    return {**asdict(terms), "ids": list(ids)}
