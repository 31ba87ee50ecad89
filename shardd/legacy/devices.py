"""Rows of `user_devices` as devices of shardd.

Taken as given, because the old system has no other place for it: what a platform device proves itself with (the token of
Wablas, the device id of Whacenter) stands in its column `jid`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shardd.errors import DeviceSettingsError
from shardd.legacy.report import Report
from shardd.legacy.tables import USER_DEVICES, Row
from shardd.queue.imports import ImportedDevice, KnownDevice
from shardd.queue.sessions import number_of
from shardd.transports.platforms.device_settings import check_device

WHATSAPP: Final = "whatsapp"
SECRETS: Final = {"wablas": "token", "whacenter": "device_id"}
"""The setting of a platform's device that its `jid` becomes."""

LONGEST_GAP: Final = 86400.0
"""Seconds, as the table has it."""
MOST_LABEL: Final = 200
"""Characters; what an old label has more is cut off."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+@-]{0,63}")
_TABLE: Final = USER_DEVICES.name


@dataclass(frozen=True, slots=True)
class OldDevice:
    """A device of the old system and the one of shardd that it becomes."""

    old_id: str
    id: str
    transport: str
    label: str | None
    jid: str
    number: str
    settings: dict[str, Any]
    gap_min: float | None
    gap_max: float | None


@dataclass(slots=True)
class DevicePlan:
    """What is to be done with the devices."""

    add: list[ImportedDevice] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)
    """The session that each device gets, by the device's id."""
    ids: dict[str, str] = field(default_factory=dict)
    """The ids of the devices that jobs may be given to, by their old ids."""


def new_id(old_id: str, prefix: str = "legacy-") -> str | None:
    """The old id where it can be one of shardd's, else the same behind `prefix`; None: neither can."""
    return next((one for one in (old_id, prefix + old_id) if _ID.fullmatch(one)), None)


def read_device(row: Row, report: Report) -> OldDevice | None:
    """None: the row is refused, and the report says why."""
    old_id = row["id"] or ""
    chosen = new_id(old_id)
    transport = (row.get("platform") or WHATSAPP).strip().lower() or WHATSAPP
    if chosen is None:
        report.refuse(
            _TABLE, old_id, "id cannot be a device id, even behind legacy-: at most 64 of A-Z a-z 0-9 . _ : + @ -"
        )
        return None
    if transport != WHATSAPP and transport not in SECRETS:
        report.refuse(_TABLE, old_id, "platform is none that shardd knows: whatsapp, Wablas or Whacenter", transport)
        return None
    jid = (row.get("jid") or "").strip()
    settings = _settings(transport, jid, old_id, report)
    number = re.sub(r"[^0-9]", "", number_of(jid) or row.get("phone") or "") if transport == WHATSAPP else ""
    low, high = _gap(row, old_id, report)
    label = (row.get("device_name") or "").strip()[:MOST_LABEL] or None
    return OldDevice(old_id, chosen, transport, label, jid, number, settings, low, high)


def plan_devices(
    devices: Sequence[OldDevice], there: Mapping[str, KnownDevice], sessions: Sequence[str], report: Report
) -> DevicePlan:
    """Which devices are added and which sessions they get; `sessions` are those of the old store."""
    plan = DevicePlan()
    taken = {number_of(one.session): one.id for one in there.values() if one.session and not one.removed}
    claims = _match(devices, sessions)
    for device in devices:
        known = there.get(device.id)
        if known is not None and known.removed:
            report.refuse(
                _TABLE, device.old_id, "the device was removed from shardd; bring it back: shardd device add", device.id
            )
            continue
        if known is not None and known.transport != device.transport:
            what = f"{device.id} sends by {known.transport}, not {device.transport}"
            report.refuse(_TABLE, device.old_id, "its id is that of another device of shardd", what)
            continue
        if device.old_id in plan.ids or device.id in plan.ids.values():
            report.refuse(_TABLE, device.old_id, "another row has the same id", device.id)
            continue
        plan.ids[device.old_id] = device.id
        session = known.session if known is not None else None
        report.devices["new" if known is None else "here"] += 1
        if device.transport == WHATSAPP:
            wanted = claims.get(device.old_id)
            holder = taken.setdefault(number_of(wanted), device.id) if wanted else None
            if session is None and wanted and holder == device.id:
                plan.sessions[device.id] = session = wanted
            elif session is None and wanted:
                report.note(
                    _TABLE, device.old_id, "its number has a session on another device: it stays unpaired", holder or ""
                )
            report.devices["with_session" if session else "unpaired"] += 1
        if known is None:
            plan.add.append(_imported(device))
    return plan


def _match(devices: Sequence[OldDevice], sessions: Sequence[str]) -> dict[str, str]:
    """The session of each device: the one that it names, else the last one that its number linked."""
    newest: dict[str, str] = {}
    for session in sorted(sessions, key=_index):
        newest[number_of(session)] = session
    exact = set(sessions)
    found = {device.old_id: device.jid for device in devices if device.transport == WHATSAPP and device.jid in exact}
    for device in devices:
        if device.transport == WHATSAPP and device.old_id not in found and device.number in newest:
            found[device.old_id] = newest[device.number]
    return found


def _index(session: str) -> int:
    digits = session.partition("@")[0].partition(":")[2]
    return int(digits) if digits.isdigit() else 0


def _imported(device: OldDevice) -> ImportedDevice:
    return ImportedDevice(
        id=device.id,
        transport=device.transport,
        state="unpaired" if device.transport == WHATSAPP else "ready",
        label=device.label,
        settings=device.settings,
        gap_min=device.gap_min,
        gap_max=device.gap_max,
    )


def _settings(transport: str, jid: str, old_id: str, report: Report) -> dict[str, Any]:
    if transport not in SECRETS:
        return {}
    settings = {SECRETS[transport]: jid}
    try:
        check_device(transport, settings, None)
    except DeviceSettingsError as error:
        remark = "its jid is no proof for its platform: it waits for one (shardd device set)"
        report.note(_TABLE, old_id, remark, str(error))
        return {}
    return settings


def _gap(row: Row, old_id: str, report: Report) -> tuple[float | None, float | None]:
    low, high = row.get("min_delay_seconds"), row.get("max_delay_seconds")
    if not low and not high:
        return None, None
    try:
        ends = float(low or "nan"), float(high or "nan")
    except ValueError:
        ends = math.nan, math.nan
    if 0 <= ends[0] <= ends[1] <= LONGEST_GAP:
        return ends
    report.note(_TABLE, old_id, "its delays are no range: it pauses as the config says", f"{low} to {high} seconds")
    return None, None
