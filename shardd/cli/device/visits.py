"""When a WhatsApp device was last online, and when it is visited next, for `shardd device show`; estimated from the database."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from shardd.cli.output import Facts
from shardd.config import TRANSPORTS, Config
from shardd.queue.devices import DeviceRow
from shardd.states import DeviceState
from shardd.supervisor.scheduling.visits import due_of, is_visited, last_visit
from shardd.words import ago, span


def visit_facts(device: DeviceRow, config: Config) -> Facts:
    """For people."""
    if not _has_sessions(device):
        return []
    online = "never" if device.online_at is None else ago(device.online_at)
    if device.visit_failed_at is None and device.visit_note is not None:
        online += f"; {device.visit_note}"
    elif device.presence_at is not None:
        online += f"; its presence was shown {ago(device.presence_at)}"
    failed = None if device.visit_failed_at is None else f"{ago(device.visit_failed_at)}: {device.visit_note}"
    return [("last online", online), ("visit failed", failed), ("next visit", _next_words(device, config))]


def _has_sessions(device: DeviceRow) -> bool:
    """Not those of a transport that only a newer release knows."""
    return device.transport in TRANSPORTS and TRANSPORTS[device.transport].has_sessions


def visits_json(device: DeviceRow, config: Config) -> dict[str, Any]:
    """For programs: when it is visited next, at the earliest; null: it is not visited."""
    at, _ = _next(device, config)
    return {"next_visit_at": None if at is None else datetime.fromtimestamp(at, UTC)}


def _next_words(device: DeviceRow, config: Config) -> str:
    at, why_not = _next(device, config)
    if at is None:
        return why_not
    wait = at - time.time()
    return f"in {span(wait)}, unless it is online before" if wait > 0 else "now, after those that wait longer"


def _next(device: DeviceRow, config: Config) -> tuple[float | None, str]:
    """POSIX seconds, or None and why it is not visited."""
    every = config.transports.whatsapp.visit_every
    if not _has_sessions(device):
        return None, ""
    if not every:
        return None, "none: transports.whatsapp.visit_every is never"
    if not is_visited(device, DeviceState(device.state)):
        return None, f"none while it is {device.state}" if device.fault is None else "none: its row cannot be used"
    return due_of(device, last_visit(device), every).next, ""
