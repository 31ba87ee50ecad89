"""A device for programs: its row, and what follows from it and the config. Passwords and secrets are masked.

`shardd device list --json` and `show --json` print it, and the dashboard's API answers with it.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from shardd.config import PacingConfig
from shardd.config.transports.device_settings import MASK, masked_settings
from shardd.hashing import shard_of
from shardd.pacing import CLASSES, Pace
from shardd.queue.devices import DeviceRow
from shardd.supervisor.scheduling.current_config import device_pace
from shardd.supervisor.scheduling.device_words import next_visit, to_do
from shardd.supervisor.scheduling.outlook_words import Outlook, tally_of

INNER: Final = frozenset({"day", "sent", "hour", "hour_sent", "days", "last_at", "in_flight"})
"""Fields of a row that only mean something together, or that only one device has; JSON has what follows from them."""


def device_json(device: DeviceRow, pacing: PacingConfig, *, shards: int, visit_every: float) -> dict[str, Any]:
    """One device."""
    pace = device_pace(pacing, device)
    visit, _ = next_visit(device, visit_every)
    # Not asdict, which copies everything in it, for each of a thousand devices.
    row = {field.name: getattr(device, field.name) for field in dataclasses.fields(device) if field.name not in INNER}
    return row | {
        "proxy": masked_proxy(device.proxy),
        "settings": masked_settings(device.transport, device.settings),
        "shown_state": device.shown_state,
        "last_sent": device.last_at,
        "to_do": to_do(device),
        "shard": shard_of(device.id, shards),
        "sent_today": tally_of(device, pace).today(datetime.now(pace.zone))[0],
        "next_visit_at": None if visit is None else datetime.fromtimestamp(visit, UTC),
        "pace": {name: _pace_json(pace.of(name)) for name in CLASSES},
    }


def outlook_json(outlook: Outlook) -> dict[str, Any]:
    """When it may send next: `next` by class, in seconds from now."""
    device = outlook.device
    return {
        "reckoned": outlook.note is not None,
        "held": device.held,
        "error": device.error,
        "in_flight": device.in_flight,
        "sent_today": device.sent_today,
        "sent_this_hour": device.sent_this_hour,
        "sending_days": device.sending_days,
        "next": {name: {"wait": one.wait, "why": one.why} for name, one in device.classes.items()},
    }


def masked_proxy(proxy: str | None) -> str | None:
    """Without its password."""
    parts = urlsplit(proxy or "")
    if parts.password is None:
        return proxy
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username}:{MASK}@{place}").geturl()


def _pace_json(pace: Pace) -> dict[str, Any]:
    fields = {field.name: getattr(pace, field.name) for field in dataclasses.fields(pace)}
    return fields | {"quiet": None if pace.quiet is None else str(pace.quiet)}
