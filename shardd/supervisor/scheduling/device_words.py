"""A device in words for people: what it waits for and what to do about it, its pace, what it sent today, and its visits.

`shardd device show` and the dashboard say the same.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from shardd.config import TRANSPORTS, PacingConfig
from shardd.config.transports.device_settings import remedy_of
from shardd.config.values import format_duration
from shardd.pacing import CLASSES, DevicePace, Pace, daily_limit
from shardd.queue.records import Device
from shardd.states import DeviceState
from shardd.supervisor.scheduling.current_config import device_pace
from shardd.supervisor.scheduling.outlook_words import tally_of
from shardd.supervisor.scheduling.visits import due_of, is_visited, last_visit
from shardd.words import Facts, ago, span

BACKING_OFF: Final = (
    "nothing yet: it is backing off after the error below and tries again; if the error persists, fix what it names"
)
NOT_COUNTED: Final = "not counted"
"""Sends of a device without a gap and limits: counting them would cost every settlement a write for each device."""


def why_words(device: Device) -> str:
    """Why it is in its state, and until when."""
    if device.paused_at is not None:
        return device.paused_why or ""
    if device.fault is not None:
        return device.fault
    until = "" if device.state_until is None else f"until {device.state_until:%Y-%m-%d %H:%M} UTC"
    return ", ".join(part for part in (device.reason, until) if part)


def to_do(device: Device) -> str:
    """What a person does about it."""
    remedy = device.fault or remedy_of(device.transport, DeviceState(device.state)).format(id=device.id)
    if device.paused_at is None:
        return remedy
    resume = f"let it send again: shardd device resume {device.id}"
    return resume if device.state == DeviceState.READY and device.fault is None else f"{resume}; and {remedy}"


def today_words(device: Device, pacing: PacingConfig) -> str:
    """What it sent today, and how much it may: `12/50`; `-`: not counted."""
    pace = device_pace(pacing, device)
    if not pace.limited:
        return "-"
    sent, _, days = tally_of(device, pace).today(datetime.now(pace.zone))
    limit, _ = daily_limit(pace, CLASSES[0], days)
    return f"{sent}/{limit}" if limit else str(sent)


def last_sent_words(device: Device, pacing: PacingConfig) -> str:
    """When it last sent."""
    limited = device_pace(pacing, device).limited
    return ago(device.last_at) if limited or device.last_at is not None else NOT_COUNTED


def pace_facts(pace: DevicePace, device: Device) -> Facts:
    """Its gaps, its quiet hours, and by which clock."""
    origin = " (as configured)" if device.gap_min is None and device.gap_max is None else ""
    gaps = [f"{_gap(pace.base)}{origin}"]
    for name, own in pace.classes.items():
        if (own.gap_min, own.gap_max) != (pace.base.gap_min, pace.base.gap_max):
            gaps.append(f"{name} {_gap(own)}{f', {own.burst} in a row' if own.burst else ''}")
    hours = {name: str(pace.of(name).quiet or "none") for name in CLASSES}
    if len(set(hours.values())) == 1:
        quiet = "" if hours[CLASSES[0]] == "none" else hours[CLASSES[0]]
    else:
        quiet = "; ".join(f"{name}: {one}" for name, one in hours.items())
    return [
        ("gap", "; ".join(gaps)),
        ("quiet hours", quiet),
        ("clock", pace.zone.key if isinstance(pace.zone, ZoneInfo) else "UTC"),
    ]


def _gap(pace: Pace) -> str:
    if pace.gap_max <= 0:
        return "none"
    return f"{format_duration(pace.gap_min)} to {format_duration(pace.gap_max)}"


def visit_facts(device: Device, visit_every: float) -> Facts:
    """When a WhatsApp device was last online, and when it is visited next; estimated from the database."""
    if not _has_sessions(device):
        return []
    online = "never" if device.online_at is None else ago(device.online_at)
    if device.visit_failed_at is None and device.visit_note is not None:
        online += f"; {device.visit_note}"
    elif device.presence_at is not None:
        online += f"; its presence was shown {ago(device.presence_at)}"
    failed = None if device.visit_failed_at is None else f"{ago(device.visit_failed_at)}: {device.visit_note}"
    return [("last online", online), ("visit failed", failed), ("next visit", _next_words(device, visit_every))]


def next_visit(device: Device, every: float) -> tuple[float | None, str]:
    """POSIX seconds, or None and why it is not visited."""
    if not _has_sessions(device):
        return None, ""
    if not every:
        return None, "none: transports.whatsapp.visit_every is never"
    if not is_visited(device, DeviceState(device.state)):
        return None, f"none while it is {device.state}" if device.fault is None else "none: its row cannot be used"
    return due_of(device, last_visit(device), every).next, ""


def _next_words(device: Device, visit_every: float) -> str:
    at, why_not = next_visit(device, visit_every)
    if at is None:
        return why_not
    wait = at - time.time()
    return f"in {span(wait)}, unless it is online before" if wait > 0 else "now, after those that wait longer"


def _has_sessions(device: Device) -> bool:
    """Not those of a transport that only a newer release knows."""
    return device.transport in TRANSPORTS and TRANSPORTS[device.transport].has_sessions
