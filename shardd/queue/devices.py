"""Devices in the database: the statements of `sql/devices.sql` as typed calls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from psycopg.rows import TupleRow

from shardd.ipc import DeviceSpec
from shardd.queue.database import Database
from shardd.queue.device_json import read_device_json
from shardd.states import CAN_SEND, DeviceState


@dataclass(frozen=True, slots=True)
class Device:
    """A row of shardd.devices, with what it sent today."""

    id: str
    transport: str
    label: str | None
    session: str | None
    proxy: str | None = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    state: DeviceState
    reason: str | None
    state_since: datetime
    state_until: datetime | None
    paused_at: datetime | None
    paused_why: str | None
    gap_min: float | None
    gap_max: float | None
    hourly_limit: int | None = None
    daily_limit: int | None = None
    quiet_hours: str | None = None
    """`21:00-08:00`, or `none`."""
    timezone: str | None = None
    warm: bool = False
    classes: dict[str, Any] = field(default_factory=dict)
    """What differs for a class of jobs."""
    day: date | None = None
    """The last day of its own calendar on which it sent, with what it sent then and in the last hour of that."""
    sent: int = 0
    hour: int = 0
    hour_sent: int = 0
    last_at: datetime | None = None
    days: int = 0
    """On how many days before `day` it sent, counted up to the length of a warm-up."""
    fault: str | None = None
    """Why its row cannot be used, and the fix; None: it can."""

    @property
    def can_send(self) -> bool:
        """Whether its jobs may be claimed, its pace aside."""
        return self.paused_at is None and self.fault is None and self.state in CAN_SEND

    @property
    def spec(self) -> DeviceSpec:
        """What its worker needs to know."""
        return DeviceSpec(
            id=self.id, transport=self.transport, settings=self.settings, session=self.session, proxy=self.proxy
        )


@dataclass(frozen=True, slots=True)
class StateChange:
    """Something that was learned about a device; times in POSIX seconds."""

    device_id: str
    state: DeviceState
    reason: str
    until: float | None
    at: float
    epoch: int | None = None
    """Of the lease under which a worker learned it; None: nobody's."""


class Devices:
    """The devices' statements over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, warm_days: int) -> list[Device]:
        """Every device that is not removed; `warm_days`: how long the longest warm-up is."""
        rows = await self._database.fetch_all("all_devices", {"warm_days": warm_days})
        return [_device(row) for row in rows]

    async def set_states(self, changes: Sequence[StateChange]) -> None:
        """Write what was learned."""
        now = time.time()
        await self._database.execute(
            "set_device_states",
            {
                "ids": [c.device_id for c in changes],
                "states": [c.state.value for c in changes],
                "reasons": [c.reason for c in changes],
                "remainings": [None if c.until is None else c.until - now for c in changes],
                "ages": [max(0.0, now - c.at) for c in changes],
                "epochs": [c.epoch for c in changes],
            },
        )

    async def heal(self) -> list[str]:
        """Make devices ready whose ban or restriction is over; returns their ids."""
        rows = await self._database.fetch_all("heal_devices")
        return [row[0] for row in rows]


def _device(row: TupleRow) -> Device:
    fields = list(row)
    read = read_device_json(row[5], row[19])
    fields[5], fields[19] = read.settings, read.classes
    fields[6] = DeviceState(fields[6])
    fields[21:24] = [number or 0 for number in fields[21:24]]
    fields.append(None if read.fault is None else read.fault.format(id=row[0]))
    return Device(*fields)
