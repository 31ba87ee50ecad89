"""Devices in the database, for the daemon and for operators: the statements of `sql/devices.sql` as typed calls.

The operators' calls work with the daemon up or down; a running daemon is notified of changed devices by the table's trigger.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from shardd.json_values import UnreadableError, read_object
from shardd.pacing import CLASSES, check_class_settings
from shardd.queue.database import Database, Params
from shardd.queue.records import Device, StateChange
from shardd.queue.typed_rows import fetch_rows
from shardd.states import DeviceState

MOST_SETTINGS: Final = 8192
"""Bytes, as the table has it (check_device in 0001_devices.sql)."""


@dataclass(frozen=True, slots=True)
class DeviceJson:
    """`fault`: why the device cannot send, and the fix, with {id} for its name; then both columns count as empty."""

    settings: dict[str, Any]
    classes: dict[str, dict[str, Any]]
    fault: str | None = None


_EMPTY: Final = DeviceJson({}, {})


def read_device_json(settings: str, classes: str) -> DeviceJson:
    """What the columns `settings` and `classes` say; never raises."""
    if settings == classes == "{}":  # as in most rows, of which there are thousands
        return _EMPTY
    try:
        read = read_object(settings, MOST_SETTINGS)
    except UnreadableError as error:
        return DeviceJson(
            {}, {}, f"its settings cannot be read: settings {error}; write them anew: {_SET} --settings JSON"
        )
    try:
        differ = read_object(classes, MOST_SETTINGS)
        check_class_settings(differ)
    except ValueError as error:
        return DeviceJson({}, {}, f"its classes cannot be read: classes {error}; write them anew: {_SET} {_CLEAR}")
    return DeviceJson(read, differ)


_SET: Final = "shardd device set {id}"
_CLEAR: Final = " ".join(f"--clear-class {name}" for name in CLASSES)


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


PAUSED: Final = "paused"
"""What a paused device's state is called in lists, whatever else is known about it."""
CHANGEABLE: Final = (
    *("label", "proxy", "settings", "gap_min", "gap_max", "hourly_limit", "daily_limit", "quiet_hours", "timezone"),
    "warm",
)
"""Columns that `DeviceAdmin.change` sets."""


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device, its live jobs and what it sent; that is known only of devices with a gap or a limit."""

    id: str
    transport: str
    label: str | None
    session: str | None
    proxy: str | None = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    state: str
    reason: str | None
    state_since: datetime
    state_until: datetime | None
    paused_at: datetime | None
    paused_why: str | None
    gap_min: float | None
    gap_max: float | None
    hourly_limit: int | None
    daily_limit: int | None
    quiet_hours: str | None
    timezone: str | None
    warm: bool
    classes: dict[str, dict[str, Any]]
    created_at: datetime
    jobs: int
    in_flight: int
    day: date | None
    """The last day of its own calendar on which it sent, with what it sent then and in the last hour of that."""
    sent: int
    hour: int
    hour_sent: int
    last_sent: datetime | None
    days: int
    """On how many days before `day` it sent, as far as was asked."""
    fault: str | None = None
    """Why its row cannot be used, and the fix; None: it can."""

    @property
    def shown_state(self) -> str:
        """The state, or that the device is paused."""
        return self.state if self.paused_at is None else PAUSED


def _device_row(*, id: str, settings: str, classes: str, **fields: Any) -> DeviceRow:  # noqa: A002  # a column's name
    read = read_device_json(settings, classes)
    fault = None if read.fault is None else read.fault.format(id=id)
    return DeviceRow(id=id, settings=read.settings, classes=read.classes, fault=fault, **fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDevices:
    """Devices that differ in nothing but their ids; gaps in seconds, None: as the config says."""

    ids: Sequence[str]
    transport: str
    state: DeviceState
    label: str | None = None
    proxy: str | None = field(default=None, repr=False)
    settings: dict[str, Any] | None = field(default=None, repr=False)
    gap_min: float | None = None
    gap_max: float | None = None
    hourly_limit: int | None = None
    daily_limit: int | None = None
    quiet_hours: str | None = None
    timezone: str | None = None
    warm: bool = False
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChange:
    """What is to differ on devices."""

    fields: Mapping[str, Any]
    """Columns of shardd.devices and their values; what is not named stays."""
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of classes; None: none of its own. What is not named stays."""
    cleared: Sequence[str] = ()
    """Classes that lose all their own settings first."""


class DeviceAdmin:
    """Devices, over a database. Every call raises DatabaseError; removed devices count as unknown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(
        self,
        *,
        ids: Sequence[str] | None = None,
        transport: str | None = None,
        state: str | None = None,
        warm_days: int = 0,
    ) -> list[DeviceRow]:
        """Devices in the order of their ids; `state` may be `paused`. `warm_days`: how long a warm-up takes."""
        params = {
            "ids": None if ids is None else list(ids),
            "transport": transport,
            "state": state,
            "warm_days": warm_days,
        }
        return await fetch_rows(self._database, _device_row, "list_devices", params)

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
            "hourly_limit": devices.hourly_limit,
            "daily_limit": devices.daily_limit,
            "quiet_hours": devices.quiet_hours,
            "timezone": devices.timezone,
            "warm": devices.warm,
            "classes": Jsonb(devices.classes),
        }
        return await self._ids("add_devices", params)

    async def change(self, ids: Sequence[str], change: DeviceChange) -> set[str]:
        """Set what differs; returns the ids that exist."""
        params: dict[str, Any] = dict.fromkeys(CHANGEABLE) | dict(change.fields)
        params |= {
            "ids": list(ids),
            "given": list(change.fields),
            "settings": Jsonb(params["settings"] or {}),
            "classes": Jsonb(change.classes),
            "cleared": list(change.cleared),
        }
        return await self._ids("change_devices", params)

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
