"""Converts rows of `user_devices` to devices.

The credential of a platform device (the token of Wablas, the device id of Whacenter) is assumed to be in its column `jid`: the
old system has no other column for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shardd.config.transports.device_settings import check_device
from shardd.errors import DeviceSettingsError
from shardd.legacy.report import Report
from shardd.legacy.tables import USER_DEVICES, Row
from shardd.queue.imports import ImportedDevice, KnownDevice
from shardd.queue.sessions import number_of

WHATSAPP: Final = "whatsapp"
SECRETS: Final = {"wablas": "token", "whacenter": "device_id"}
"""The device setting that `jid` becomes, by platform."""

LONGEST_GAP: Final = 86400.0
"""Seconds; the limit of the column in shardd.devices."""
MOST_LABEL: Final = 200
"""Characters; longer labels are truncated."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+@-]{0,63}")
_TABLE: Final = USER_DEVICES.name


@dataclass(frozen=True, slots=True)
class OldDevice:
    """A device of the old system, and the device that it becomes. `number`: digits only; empty if unknown."""

    old_id: str
    jid: str
    number: str
    becomes: ImportedDevice


@dataclass(slots=True)
class DevicePlan:
    """What the import does with the devices."""

    add: list[ImportedDevice] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)
    """The session of each device that gets one, by device id."""
    ids: dict[str, str] = field(default_factory=dict)
    """The ids of the devices that may get jobs, by their old ids."""


def new_id(old_id: str, prefix: str = "legacy-") -> str | None:
    """The old id if it is valid here, otherwise with `prefix` if that is; None: neither is valid."""
    return next((one for one in (old_id, prefix + old_id) if _ID.fullmatch(one)), None)


def read_device(row: Row, report: Report) -> OldDevice | None:
    """The device of a row; None: refused, with the reason in the report."""
    old_id = row["id"] or ""
    chosen = new_id(old_id)
    transport = (row.get("platform") or WHATSAPP).strip().lower() or WHATSAPP
    if chosen is None:
        report.refuse(
            _TABLE,
            old_id,
            "id cannot be a device id, even with the prefix legacy-: at most 64 of A-Z a-z 0-9 . _ : + @ -",
        )
        return None
    if transport != WHATSAPP and transport not in SECRETS:
        report.refuse(_TABLE, old_id, "platform is not whatsapp, Wablas or Whacenter", transport)
        return None
    jid = (row.get("jid") or "").strip()
    settings = _settings(transport, jid, old_id, report)
    number = re.sub(r"[^0-9]", "", number_of(jid) or row.get("phone") or "") if transport == WHATSAPP else ""
    low, high = _gap(row, old_id, report)
    device = ImportedDevice(
        id=chosen,
        transport=transport,
        state="unpaired" if transport == WHATSAPP else "ready",
        label=(row.get("device_name") or "").strip()[:MOST_LABEL] or None,
        settings=settings,
        gap_min=low,
        gap_max=high,
    )
    return OldDevice(old_id, jid, number, device)


def plan_devices(
    devices: Sequence[OldDevice], there: Mapping[str, KnownDevice], sessions: Sequence[str], report: Report
) -> DevicePlan:
    """Decide which devices are added and which sessions they get; `sessions` are those of the old store."""
    plan = DevicePlan()
    taken = {number_of(one.session): one.id for one in there.values() if one.session and not one.removed}
    claims = _match(devices, sessions)
    for old in devices:
        device = old.becomes
        known = there.get(device.id)
        if known is not None and known.removed:
            report.refuse(
                _TABLE, old.old_id, "the device was removed from shardd; bring it back: shardd device add", device.id
            )
            continue
        if known is not None and known.transport != device.transport:
            what = f"{device.id} uses {known.transport}, not {device.transport}"
            report.refuse(_TABLE, old.old_id, "its id belongs to another device", what)
            continue
        if old.old_id in plan.ids or device.id in plan.ids.values():
            report.refuse(_TABLE, old.old_id, "another row has the same id", device.id)
            continue
        plan.ids[old.old_id] = device.id
        session = known.session if known is not None else None
        report.devices["new" if known is None else "existing"] += 1
        if device.transport == WHATSAPP:
            wanted = claims.get(old.old_id)
            holder = taken.setdefault(number_of(wanted), device.id) if wanted else None
            if session is None and wanted and holder == device.id:
                plan.sessions[device.id] = session = wanted
            elif session is None and wanted:
                report.note(
                    _TABLE,
                    old.old_id,
                    "its number has a session on another device, so it stays unpaired",
                    holder or "",
                )
            report.devices["with_session" if session else "unpaired"] += 1
        if known is None:
            plan.add.append(device)
    return plan


def _match(devices: Sequence[OldDevice], sessions: Sequence[str]) -> dict[str, str]:
    """The session of each device: the one in its row, otherwise the latest that its number linked."""
    newest: dict[str, str] = {}
    for session in sorted(sessions, key=_index):
        newest[number_of(session)] = session
    exact = set(sessions)
    phones = [device for device in devices if device.becomes.transport == WHATSAPP]
    found = {device.old_id: device.jid for device in phones if device.jid in exact}
    for device in phones:
        if device.old_id not in found and device.number in newest:
            found[device.old_id] = newest[device.number]
    return found


def _index(session: str) -> int:
    digits = session.partition("@")[0].partition(":")[2]
    return int(digits) if digits.isdigit() else 0


def _settings(transport: str, jid: str, old_id: str, report: Report) -> dict[str, Any]:
    if transport not in SECRETS:
        return {}
    settings = {SECRETS[transport]: jid}
    try:
        check_device(transport, settings, None)
    except DeviceSettingsError as error:
        remark = "its jid is not a credential of its platform; set one with shardd device set"
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
    report.note(
        _TABLE, old_id, "its delays are not a range, so the pacing of the config applies", f"{low} to {high} seconds"
    )
    return None, None
