"""Devices in the database, for the daemon and for operators: the statements of `sql/devices.sql` as typed calls.

The operators' calls work with the daemon up or down; a running daemon is notified of changed devices by the table's trigger.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from psycopg.types.json import Jsonb

from shardd.config import TRANSPORTS
from shardd.ipc import Visited
from shardd.json_values import UnreadableError, read_object
from shardd.pacing import CLASSES, check_class_settings
from shardd.queue.queries import Changes, Record, Statements
from shardd.queue.records import Device, RemovedDevice, StateChange
from shardd.queue.values import arrays
from shardd.states import PAUSED, DeviceState

AnyDevice = TypeVar("AnyDevice", bound=Device)

MOST_SETTINGS: Final = 8192
"""Bytes, as in check_device of 0001_devices.sql."""


@dataclass(frozen=True, slots=True)
class ChangedDevices:
    """Which devices have changed since an earlier answer."""

    running: int
    """The oldest transaction that has not ended: what it and later ones change is in the next answer."""
    devices: int
    """How many there are that are not removed."""
    ids: list[str]
    """Those that changed, also removed ones."""


class Devices(Statements):
    """What the daemon does with devices."""

    async def all(self, warm_days: int, ids: Sequence[str] | None = None) -> list[Device]:
        """Every device that is not removed, or of these; `warm_days`: how long the longest warm-up is."""
        params = {"warm_days": warm_days, "ids": None if ids is None else list(ids)}
        return await self._database.rows(partial(make_device, Device), "all_devices", params)

    async def changed(self, since: int) -> ChangedDevices:
        """What changed; `since`: see `ChangedDevices.running`."""
        (found,) = await self._database.rows(ChangedDevices, "changed_devices", {"since": since})
        return found

    async def removed(self, transports: Sequence[str]) -> list[RemovedDevice]:
        """The removed devices of these transports."""
        rows = await self._database.rows(Record, "removed_devices", {"transports": list(transports)})
        return [
            RemovedDevice(row["id"], row["transport"], _read_json(row["id"], row["settings"], "{}")[0]) for row in rows
        ]

    async def set_states(self, changes: Sequence[StateChange]) -> None:
        """Write what workers reported."""
        now = time.time()
        params = arrays(changes, ids="device_id", states="state", reasons="reason", epochs="epoch")
        params["remainings"] = [None if c.until is None else c.until - now for c in changes]
        params["ages"] = [max(0.0, now - c.at) for c in changes]
        await self._database.execute("set_device_states", params)

    async def save_visits(self, reports: Sequence[Visited]) -> None:
        """Write when devices were online; at most one report for each device."""
        now = time.time()
        params = arrays(reports, ids="device_id", onlines="online", presences="presence", notes="note")
        params["ages"] = [max(0.0, now - report.at) for report in reports]
        await self._database.execute("save_visits", params)

    async def back_off(self, waits: Mapping[str, tuple[float, str]]) -> None:
        """Let devices wait, by id: seconds, and why."""
        params = {
            "ids": list(waits),
            "seconds": [seconds for seconds, _ in waits.values()],
            "reasons": [reason for _, reason in waits.values()],
        }
        await self._database.execute("back_off_devices", params)

    async def heal(self) -> list[str]:
        """Make devices ready whose ban or restriction is over; returns their ids."""
        return await self._database.column("heal_devices")


SHOWN_STATES: Final = (*(state.value for state in DeviceState), PAUSED)
"""All that are shown."""
CHANGEABLE: Final = (
    *("label", "proxy", "settings", "gap_min", "gap_max", "hourly_limit", "daily_limit", "quiet_hours", "timezone"),
    "warm",
)
"""Columns that `DeviceAdmin.change` sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow(Device):
    """A device with its live jobs. What it sent is counted only for devices with a gap or a limit."""

    created_at: datetime
    jobs: int
    in_flight: int

    @property
    def shown_state(self) -> str:
        """The state, or `paused`."""
        return shown_state_of(self)


def shown_state_of(device: Device) -> str:
    """The state, or `paused`."""
    return device.state if device.paused_at is None else PAUSED


_NEWER: Final = "its {what}, {name}, is one of a newer shardd: upgrade this host"
"""A fault: the device does not send here, and the others do."""
_STATES: Final[Mapping[str, DeviceState]] = {state.value: state for state in DeviceState}


def make_device(make: type[AnyDevice], /, *, state: str, settings: str, classes: str, **fields: Any) -> AnyDevice:
    """A device of this kind from a row; what cannot be read of it disables it."""
    settings_read, classes_read, fault = _read_json(fields["id"], settings, classes)
    known = _STATES.get(state)
    if fields["transport"] not in TRANSPORTS:
        fault = _NEWER.format(what="transport", name=fields["transport"])
    if known is None:
        # Nothing that this release can report leads out of it.
        known, fault = DeviceState.UNPAIRED, _NEWER.format(what="state", name=state)
    return make(state=known, settings=settings_read, classes=classes_read, fault=fault, **fields)


def _read_json(device_id: str, settings: str, classes: str) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """The columns `settings` and `classes`, and why the device cannot send; then both are empty.

    Unreadable JSON disables its device, and not the list of all devices.
    """
    if settings == classes == "{}":  # as in most rows, of which there are thousands
        return {}, {}, None
    command = f"shardd device set {device_id}"
    try:
        settings_read = read_object(settings, MOST_SETTINGS)
    except UnreadableError as error:
        fault = f"its settings cannot be read: settings {error}; write them anew: {command} --settings JSON"
        return {}, {}, fault
    try:
        classes_read = read_object(classes, MOST_SETTINGS)
        check_class_settings(classes_read)
    except ValueError as error:
        clear = " ".join(f"--clear-class {name}" for name in CLASSES)
        return {}, {}, f"its classes cannot be read: classes {error}; write them anew: {command} {clear}"
    return settings_read, classes_read, None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDevices:
    """Devices that differ only in their ids; gaps in seconds, None: the config's."""

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
    """A change of devices."""

    fields: Mapping[str, Any]
    """Columns of shardd.devices and their new values."""
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """New settings of classes; None removes a setting."""
    cleared: Sequence[str] = ()
    """Classes that lose all their own settings first."""


class DeviceAdmin(Statements):
    """What an operator asks and does about devices; removed ones count as unknown."""

    async def find(
        self,
        *,
        ids: Sequence[str] | None = None,
        transport: str | None = None,
        state: str | None = None,
        warm_days: int = 0,
        most_jobs: int | None = None,
    ) -> list[DeviceRow]:
        """Devices in the order of their ids; `state` may be `paused`. `warm_days`: the length of a warm-up.

        `most_jobs`: of each of these `ids`, so many live jobs are counted; and of several, it is not looked which are in flight.
        """
        params = {
            "ids": None if ids is None else list(ids),
            "transport": transport,
            "state": state,
            "warm_days": warm_days,
            "most": most_jobs,
            "most_looked_at": most_jobs if most_jobs is None or ids is None or len(ids) == 1 else 0,
        }
        return await self._database.rows_for(partial(make_device, DeviceRow), "list_devices", params)

    async def ids(self, start: str = "", *, most: int) -> list[str]:
        """The first ids that begin with `start`."""
        return await self._database.column("device_ids", {"start": start, "most": most})

    async def was_there(self, device_id: str) -> bool:
        """Whether there is or was such a device."""
        return bool(await self._database.value("device_was_there", {"id": device_id}))

    async def add(self, devices: NewDevices) -> set[str]:
        """Add devices, or bring removed ones back; returns the ids that are new."""
        params = {**asdict(devices), "ids": list(devices.ids)}
        params |= {"settings": Jsonb(devices.settings or {}), "classes": Jsonb(devices.classes)}
        return await self._ids("add_devices", params)

    async def change(self, ids: Sequence[str], change: DeviceChange) -> Changes:
        """Change devices."""
        params: dict[str, Any] = dict.fromkeys(CHANGEABLE) | dict(change.fields)
        params |= {
            "ids": list(ids),
            "given": list(change.fields),
            "settings": Jsonb(params["settings"] or {}),
            "classes": Jsonb(change.classes),
            "cleared": list(change.cleared),
        }
        return await self._changes("change_devices", params)

    async def pause(self, ids: Sequence[str], why: str | None) -> Changes:
        """Pause devices, or give those that are paused a new reason."""
        return await self._changes("pause_devices", {"ids": list(ids), "why": why})

    async def resume(self, ids: Sequence[str]) -> Changes:
        """Resume devices."""
        return await self._changes("resume_devices", {"ids": list(ids)})

    async def remove(self, ids: Sequence[str]) -> set[str]:
        """Remove devices; returns those that existed and had no live job."""
        return await self._ids("remove_devices", {"ids": list(ids)})
