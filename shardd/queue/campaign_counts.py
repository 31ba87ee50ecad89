"""How many jobs of a campaign are in which state, on each of its devices: counted in pages, no statement reads all of them.

The pages are of one snapshot: a job that ends meanwhile is counted once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from shardd.postgres.servers import Connection
from shardd.postgres.snapshots import Snapshot
from shardd.queue.campaigns import CampaignDetails, CampaignRow, CampaignTitle, DeviceShare, Pool
from shardd.queue.queries import Params, Record, Statements, first, rows_of

PAGE: Final = 5000
"""Jobs of one statement: some milliseconds."""
REVOCATIONS: Final = 500
"""Revocations of one statement, each of which is looked up in other tables."""
LONGEST: Final = 120.0
"""Seconds for all pages of a campaign."""
_LIVE: Final = ("queued", "scheduled", "sending")
_ENDED: Final = ("sent", "failed", "in_doubt", "expired", "opted_out", "cancelled")


@dataclass(slots=True)
class _Counted:
    """Of one device, or of those without a device."""

    jobs: Counter[str] = field(default_factory=Counter)
    """By state."""
    by_lane: Counter[str] = field(default_factory=Counter)
    """Queued ones."""
    lane_waits: int = 0
    lane_why: str | None = None
    lane_until: datetime | None = None
    sent_lately: int = 0
    next_due: datetime | None = None
    first_sent: datetime | None = None
    first_lately: datetime | None = None
    last_sent: datetime | None = None

    def add_live(self, row: Record) -> None:
        """A row of `live_jobs_of_campaign`."""
        self.jobs.update({name: row[name] for name in _LIVE})
        self.by_lane[row["lane"]] += row["queued"]
        self.next_due = _first(self.next_due, row["next_due"])

    def add_wait(self, row: Record) -> None:
        """A row of `waits_of_lanes`."""
        if queued := self.by_lane[row["lane"]]:
            self.lane_waits += queued
            self.lane_why = min(filter(None, (self.lane_why, row["why"])))
            self.lane_until = _first(self.lane_until, row["until"])

    def add_ended(self, row: Record) -> None:
        """A row of `ended_jobs_of_campaign`."""
        self.jobs[row["state"]] += row["jobs"]
        if row["state"] == "sent":
            self.sent_lately += row["lately"]
            self.first_sent = _first(self.first_sent, row["first"])
            self.first_lately = _first(self.first_lately, row["first_lately"])
            self.last_sent = max(filter(None, (self.last_sent, row["last"])), default=None)

    def share(self, device: Record) -> DeviceShare:
        """`device`: a row of `devices_of_campaign`."""
        counts: dict[str, Any] = {name: self.jobs[name] for name in (*_LIVE, *_ENDED)}
        return DeviceShare(
            **device,
            **counts,
            sent_lately=self.sent_lately,
            first_lately=self.first_lately,
            lane_waits=self.lane_waits,
            lane_why=self.lane_why,
            lane_until=self.lane_until,
            next_due=self.next_due,
            first_sent=self.first_sent,
            last_sent=self.last_sent,
        )


_NO_DEVICE: Final = {"device_id": None, "transport": None, "device_state": None, "sent_today": 0}


class CampaignCounts(Statements):
    """Each reads all jobs of a campaign, page by page."""

    async def details(self, campaign: str, zone: str) -> CampaignDetails | None:
        """One campaign by device, or None; `zone`: the time zone of devices without one."""
        async with self._snapshot() as (connection, snapshot):
            title = await self._title(connection, campaign)
            if title is None:
                return None
            counted, pools = await self._count(connection, campaign, by_device=True)
            lanes = [*{lane for one in counted.values() for lane in one.by_lane}]
            for row in await self._rows(connection, "waits_of_lanes", {"lanes": lanes}):
                if row["device_id"] in counted:
                    counted[row["device_id"]].add_wait(row)
            ids = [one for one in counted if one is not None]
            devices = await self._rows(connection, "devices_of_campaign", {"id": campaign, "ids": ids, "zone": zone})
            groups = await self._rows(connection, "device_groups_of_pools", {"ids": list(pools)})
            revocations = await self._revocations(connection, campaign)
        shares = [counted[device["device_id"]].share(device) for device in devices]
        shares += [counted[None].share(_NO_DEVICE)] if None in counted else []
        return CampaignDetails(
            row_of(title, shares),
            sorted(shares, key=lambda share: (-share.waiting, -share.sent, share.device_id is None, share.device_id)),
            [Pool(jobs=jobs, **group) for group in groups if (jobs := pools[group["device_group"]])],
            dict(revocations.most_common()),
            snapshot,
        )

    async def totals(self, campaign: str) -> CampaignDetails | None:
        """One campaign with all its devices as one share, or None."""
        async with self._snapshot() as (connection, snapshot):
            title = await self._title(connection, campaign)
            if title is None:
                return None
            counted, _ = await self._count(connection, campaign, by_device=False)
        return CampaignDetails(title, [counted[None].share(_NO_DEVICE)], [], snapshot=snapshot)

    async def _count(
        self, connection: Connection, campaign: str, *, by_device: bool
    ) -> tuple[dict[str | None, _Counted], Counter[str]]:
        """By device, and the jobs in the pools of device groups."""
        counted: defaultdict[str | None, _Counted] = defaultdict(_Counted)
        pools: Counter[str] = Counter()
        asked: dict[str, Any] = {"id": campaign, "by_device": by_device, "most": PAGE}
        after: int | None = 0
        while after is not None:
            rows = await self._rows(connection, "live_jobs_of_campaign", {**asked, "after": after})
            for row in rows:
                counted[row["device_id"]].add_live(row)
                if row["pool"] is not None:
                    pools[row["pool"]] += row["jobs"]
            after = rows[0]["upto"] if _fills(rows) else None
        position: dict[str, Any] | None = {"after_state": "", "after_moment": "-infinity"}
        while position is not None:
            rows = await self._rows(connection, "ended_jobs_of_campaign", {**asked, **position})
            for row in rows:
                counted[row["device_id"]].add_ended(row)
            last = rows[0] if _fills(rows) else None
            position = last and {"after_state": last["upto_state"], "after_moment": last["upto_moment"]}
        return counted, pools

    async def _revocations(self, connection: Connection, campaign: str) -> Counter[str]:
        """Of its messages, by state: they are looked for among all."""
        found: Counter[str] = Counter()
        after: int | None = 0
        while after is not None:
            asked = {"id": campaign, "after": after, "most": REVOCATIONS}
            rows = await self._rows(connection, "campaign_revocations", asked)
            found.update({row["state"]: row["jobs"] for row in rows if row["state"] is not None})
            after = next(row["upto"] for row in rows if row["state"] is None)
        return found

    @asynccontextmanager
    async def _snapshot(self) -> AsyncGenerator[tuple[Connection, Snapshot]]:
        async with self._database.connection(timeout=LONGEST) as connection, connection.transaction():
            await connection.execute(self._database.queries["one_snapshot"])
            await connection.execute(self._database.queries["plan_for_values"])
            await connection.execute(self._database.queries["pages_by_index"])
            (row,) = await self._rows(connection, "snapshot", {})
            yield connection, Snapshot.read(row["snapshot"])

    async def _title(self, connection: Connection, campaign: str) -> CampaignTitle | None:
        query = self._database.queries["campaign_title"]
        return first(await rows_of(connection, CampaignTitle, query, {"id": campaign}))

    async def _rows(self, connection: Connection, name: str, params: Params) -> list[Record]:
        return await rows_of(connection, Record, self._database.queries[name], params)


def _first(one: datetime | None, other: datetime | None) -> datetime | None:
    return min(filter(None, (one, other)), default=None)


def _fills(rows: Sequence[Record]) -> bool:
    """Whether these rows are of a full page, so that there may be another one."""
    return sum(int(row["jobs"]) for row in rows) >= PAGE


def row_of(title: CampaignTitle, shares: Sequence[DeviceShare]) -> CampaignRow:
    """The campaign as a list has it."""
    fields = {name: getattr(title, name) for name in CampaignTitle.__dataclass_fields__}
    return CampaignRow(
        **fields,
        live=sum(share.waiting + share.sending for share in shares),
        sent_lately=sum(share.sent_lately for share in shares),
        last_sent=max((share.last_sent for share in shares if share.last_sent), default=None),
    )
