"""Campaigns in the database, for the daemon and for operators: the statements of `sql/campaigns.sql` as typed calls.

The operators' calls work with the daemon up or down. A claim checks its campaign's row, so a change takes effect with its commit,
however long the queue is; a running daemon moves the jobs of a cancelled campaign to the archive afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from shardd.queue.database import Database, Params
from shardd.queue.records import Campaign
from shardd.queue.typed_rows import fetch_rows


class Campaigns:
    """The campaigns' statements over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def running(self) -> dict[str, Campaign]:
        """Every campaign whose jobs may be sent, by id."""
        return {row[0]: Campaign(row[1], row[2]) for row in await self._database.fetch_all("running_campaigns")}

    async def sends(self, since: date) -> list[tuple[str, str, date, int]]:
        """(campaign, device, day, messages) of running campaigns with a cap since a day."""
        rows = await self._database.fetch_all("campaign_sends", {"since": since})
        return [(row[0], row[1], row[2], row[3]) for row in rows]


class CampaignState(StrEnum):
    """Whether a campaign's jobs are sent."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"  # for good


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign; `live`: jobs that have not ended, `sent_lately`: messages of the last ten minutes."""

    id: str
    label: str | None
    state: str
    why: str | None
    state_since: datetime
    weight: float
    device_cap: int | None
    created_at: datetime
    live: int
    sent_lately: int
    last_sent: datetime | None


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """A campaign's jobs on one device; `device_id` None: those that have none yet, or never had one.

    `device_state` is `removed` or `paused` before it is a state of the device. `sent_today` is of the device's own calendar, and
    counted only for a campaign with a cap. `next_due`: when the next scheduled one may be sent.
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
    sent_today: int
    next_due: datetime | None
    first_sent: datetime | None
    last_sent: datetime | None

    @property
    def waiting(self) -> int:
        """Jobs that nobody has in flight."""
        return self.queued + self.scheduled


@dataclass(frozen=True, slots=True)
class Pool:
    """A campaign's jobs that wait for some device of a group; `able`: how many of its `devices` can send."""

    device_group: str
    jobs: int
    devices: int
    able: int


@dataclass(frozen=True, slots=True)
class CampaignDetails:
    """One campaign with all its jobs, counted."""

    row: CampaignRow
    shares: Sequence[DeviceShare]
    """The device with the most waiting jobs first."""
    pools: Sequence[Pool]


@dataclass(frozen=True, slots=True)
class WeighedCampaign:
    """What decides about what can be done with a campaign."""

    id: str
    state: str
    live: int
    in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignTerms:
    """How a campaign sends; None: not said. A cap of 0 means none, an empty label no label."""

    label: str | None = None
    weight: float | None = None
    device_cap: int | None = None


class CampaignAdmin:
    """Campaigns, over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, most: int, *, state: CampaignState | None = None) -> list[CampaignRow]:
        """Up to `most` campaigns, newest first."""
        return await self._find(ids=None, state=state, most=most)

    async def find(self, ids: Sequence[str]) -> list[CampaignRow]:
        """Those of these campaigns that exist."""
        return await self._find(ids=ids, state=None, most=len(ids))

    async def show(self, campaign: str, zone: str) -> CampaignDetails | None:
        """One campaign, or None; `zone`: the time zone of devices that name none."""
        rows = await self.find([campaign])
        if not rows:
            return None
        shares = await fetch_rows(self._database, DeviceShare, "campaign_by_device", {"id": campaign, "zone": zone})
        pools = await fetch_rows(self._database, Pool, "campaign_pools", {"id": campaign})
        return CampaignDetails(rows[0], shares, pools)

    async def weigh(self, ids: Sequence[str]) -> list[WeighedCampaign]:
        """Those of these campaigns that exist."""
        return await fetch_rows(self._database, WeighedCampaign, "weigh_campaigns", {"ids": list(ids)})

    async def add(self, ids: Sequence[str], terms: CampaignTerms, state: CampaignState) -> set[str]:
        """Add campaigns; returns the ids that were not there."""
        return await self._ids("add_campaigns", _params(ids, terms) | {"state": state})

    async def change(self, ids: Sequence[str], terms: CampaignTerms, zone: str) -> set[str]:
        """Change what is said; returns the ids that exist. `zone`: the time zone of devices that name none.

        A new cap counts what was sent today before it.
        """
        queries = self._database.queries
        async with self._database.connection() as connection, connection.transaction():
            if terms.device_cap:
                await connection.execute(queries["count_todays_sends"], {"ids": list(ids), "zone": zone})
            rows = await (await connection.execute(queries["set_campaigns"], _params(ids, terms))).fetchall()
        return {row[0] for row in rows}

    async def set_state(self, ids: Sequence[str], state: CampaignState, why: str | None = None) -> set[str]:
        """Pause or resume campaigns; returns those that exist and are not cancelled."""
        return await self._ids("turn_campaigns", {"ids": list(ids), "state": state, "why": why})

    async def cancel(self, ids: Sequence[str], why: str | None) -> set[str]:
        """End campaigns for good; returns those that were not cancelled before."""
        return await self._ids("cancel_campaigns", {"ids": list(ids), "why": why})

    async def _find(self, *, ids: Sequence[str] | None, state: CampaignState | None, most: int) -> list[CampaignRow]:
        params = {"ids": None if ids is None else list(ids), "state": state, "most": most}
        return await fetch_rows(self._database, CampaignRow, "list_campaigns", params)

    async def _ids(self, name: str, params: Params) -> set[str]:
        return {row[0] for row in await self._database.fetch_all(name, params)}


def _params(ids: Sequence[str], terms: CampaignTerms) -> dict[str, object]:
    return {"ids": list(ids), "label": terms.label, "weight": terms.weight, "device_cap": terms.device_cap}
