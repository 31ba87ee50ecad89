"""What an operator asks and does: the statements of `sql/admin.sql` as typed calls.

They work with the daemon up or down; a daemon that runs learns of changed devices by the table's trigger, and of jobs
that came back by its scan. Nothing here touches a job that a worker has in hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import Any, Final, TypeVar

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from shardd.queue.database import Database, Params
from shardd.states import DeviceState, JobState

Row = TypeVar("Row")

CHUNK: Final = 2000
"""Jobs that are moved in one transaction, so that no row stays locked for long."""
PAUSED: Final = "paused"
"""What a paused device's state is called in lists, whatever else is known about it."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as a list shows it; `transport` is None when its device is unknown."""

    id: int
    state: str
    device_id: str
    transport: str | None
    recipient: str
    kind: str
    reference: str | None
    waits_for: str | None
    failures: int
    max_attempts: int
    priority: int
    run_at: datetime
    due_at: datetime | None
    created_at: datetime
    settled_at: datetime | None
    message_id: str | None
    error: str | None
    delivered_at: datetime | None
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class WholeJob(JobRow):
    """A job with its content and its last claim; `node` and `shard` made that claim."""

    body: str
    media: str | None
    file_name: str | None
    mime_type: str | None
    details: dict[str, Any] | None
    on_doubt: str
    dedupe_key: str | None
    claims: int
    claimed_at: datetime | None
    node: str | None
    shard: int | None


@dataclass(frozen=True, slots=True)
class WeighedJob:
    """What decides about what can be done with a job; `orphaned`: its device was removed."""

    id: int
    state: str
    device_id: str
    transport: str | None
    orphaned: bool


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device, its live jobs and what it sent; `last_sent` is known only of devices with a gap or a daily limit."""

    id: str
    transport: str
    label: str | None
    session: str | None
    proxy: str | None
    settings: dict[str, Any]
    state: str
    reason: str | None
    state_since: datetime
    state_until: datetime | None
    paused_at: datetime | None
    paused_why: str | None
    gap_min: float | None
    gap_max: float | None
    daily_limit: int | None
    created_at: datetime
    jobs: int
    in_hand: int
    sent_today: int
    last_sent: datetime | None

    @property
    def shown_state(self) -> str:
        """The state, or that the device is paused."""
        return self.state if self.paused_at is None else PAUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDevices:
    """Devices that differ in nothing but their ids; gaps in seconds, None: as the config says."""

    ids: Sequence[str]
    transport: str
    state: DeviceState
    label: str | None = None
    proxy: str | None = None
    settings: dict[str, Any] | None = None
    gap_min: float | None = None
    gap_max: float | None = None
    daily_limit: int | None = None


class JobAdmin:
    """Jobs, over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(
        self, most: int, *, state: JobState | None = None, device_id: str | None = None, reference: str | None = None
    ) -> list[JobRow]:
        """Up to `most` jobs, newest first."""
        params = {"most": most, "state": state, "device_id": device_id, "reference": reference}
        return await _rows(self._database, JobRow, "list_jobs", params)

    async def show(self, job_id: int) -> WholeJob | None:
        """One job, or None when there is none of this id."""
        rows = await _rows(self._database, WholeJob, "show_job", {"id": job_id})
        return rows[0] if rows else None

    async def weigh(self, ids: Sequence[int]) -> list[WeighedJob]:
        """Those of these jobs that exist."""
        return await _rows(self._database, WeighedJob, "weigh_jobs", {"ids": list(ids)})

    async def weigh_finished(self, state: JobState, device_id: str | None = None) -> list[WeighedJob]:
        """Every finished job in this state."""
        params = {"state": state, "device_id": device_id}
        return await _rows(self._database, WeighedJob, "weigh_finished_jobs", params)

    async def weigh_live(
        self, *, device_ids: Sequence[str] | None = None, reference: str | None = None
    ) -> list[WeighedJob]:
        """Every live job of these devices, with this reference."""
        params = {"device_ids": None if device_ids is None else list(device_ids), "reference": reference}
        return await _rows(self._database, WeighedJob, "weigh_live_jobs", params)

    async def retry(self, ids: Sequence[int]) -> set[int]:
        """Bring finished jobs back into the queue; returns those that came back, which no sent one does."""
        back: set[int] = set()
        for chunk in _chunks(ids):
            back.update(row[0] for row in await self._database.fetch_all("retry_jobs", {"ids": chunk}))
        return back

    async def cancel(self, ids: Sequence[int], why: str) -> set[int]:
        """End jobs that nobody has in hand; returns those that ended. `why` becomes their error."""
        gone: set[int] = set()
        for chunk in _chunks(ids):
            gone.update(row[0] for row in await self._database.fetch_all("cancel_jobs", {"ids": chunk, "why": why}))
        return gone

    async def move(self, ids: Sequence[int], *, old: str, new: str) -> set[int]:
        """Give jobs of device `old` that nobody has in hand to `new`; returns those that moved."""
        moved: set[int] = set()
        for chunk in _chunks(ids):
            params = {"ids": chunk, "old": old, "new": new}
            moved.update(row[0] for row in await self._database.fetch_all("hand_over_jobs", params))
        return moved


class DeviceAdmin:
    """Devices, over a database. Every call raises DatabaseError; removed devices count as unknown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(
        self,
        day: date,
        *,
        ids: Sequence[str] | None = None,
        transport: str | None = None,
        state: str | None = None,
    ) -> list[DeviceRow]:
        """Devices in the order of their ids; `day` is today in the config's time zone, `state` may be `paused`."""
        params = {"day": day, "ids": None if ids is None else list(ids), "transport": transport, "state": state}
        return await _rows(self._database, DeviceRow, "list_devices", params)

    async def was_there(self, device_id: str) -> bool:
        """Whether there is or ever was such a device."""
        return bool((await self._database.fetch_all("device_was_there", {"id": device_id}))[0][0])

    async def add(self, devices: NewDevices) -> set[str]:
        """Add devices, or bring removed ones back; returns the ids that were not there."""
        params = {
            "ids": list(devices.ids),
            "transport": devices.transport,
            "state": devices.state,
            "label": devices.label,
            "proxy": devices.proxy,
            "settings": Jsonb(devices.settings or {}),
            "gap_min": devices.gap_min,
            "gap_max": devices.gap_max,
            "daily_limit": devices.daily_limit,
        }
        return await self._ids("add_devices", params)

    async def pause(self, ids: Sequence[str], why: str | None) -> set[str]:
        """Hold devices back; returns those that exist."""
        return await self._ids("pause_devices", {"ids": list(ids), "why": why})

    async def resume(self, ids: Sequence[str]) -> set[str]:
        """Let devices send again; returns those that exist."""
        return await self._ids("resume_devices", {"ids": list(ids)})

    async def remove(self, ids: Sequence[str]) -> set[str]:
        """Take devices out of service; returns those that were there and had no live job."""
        return await self._ids("remove_devices", {"ids": list(ids)})

    async def _ids(self, name: str, params: Params) -> set[str]:
        return {row[0] for row in await self._database.fetch_all(name, params)}


async def _rows(database: Database, row: type[Row], name: str, params: Params) -> list[Row]:
    async with (
        database.connection() as connection,
        connection.transaction(),
        connection.cursor(row_factory=class_row(row)) as cursor,
    ):
        await connection.execute(database.queries["plan_for_values"])
        await cursor.execute(database.queries[name], params)
        return await cursor.fetchall()


def _chunks(ids: Sequence[int]) -> Iterator[list[int]]:
    rest = iter(ids)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
