"""Devices as people and programs see them. Passwords are masked in both."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from shardd.cli.device.outlook import Outlook, next_words, sent_words, tally_of
from shardd.cli.output import (
    SANDBOX,
    SANDBOX_STYLE,
    Lines,
    Text,
    ago,
    count,
    make_console,
    make_facts,
    make_table,
    moment_text,
    sandbox_line,
    state_text,
)
from shardd.config import Config
from shardd.config.pacing import device_pace
from shardd.config.transports.device_settings import MASK, masked_settings, remedy_of
from shardd.config.values import format_duration
from shardd.hashing import shard_of
from shardd.pacing import CLASSES, DevicePace, Pace, daily_limit
from shardd.queue.devices import PAUSED, DeviceRow
from shardd.states import DeviceState

WIDE: Final = 110
BACKING_OFF: Final = (
    "it backs off after the error below, and is tried again by itself; if that does not pass, fix what the error names"
)
_INNER: Final = frozenset({"day", "sent", "hour", "hour_sent", "days"})
"""Fields of a row that only mean something together; what follows from them is shown."""


def device_json(device: DeviceRow, config: Config) -> dict[str, Any]:
    """What `--json` prints of a device: its row, and what follows from it and the config."""
    pace = device_pace(config.pacing, device)
    row = {name: value for name, value in dataclasses.asdict(device).items() if name not in _INNER}
    return row | {
        "proxy": _masked_proxy(device.proxy),
        "settings": masked_settings(device.transport, device.settings),
        "shown_state": device.shown_state,
        "to_do": _to_do(device),
        "shard": shard_of(device.id, config.shards),
        "sent_today": tally_of(device, pace).today(datetime.now(pace.zone))[0],
        "pace": {name: _pace_json(pace.of(name)) for name in CLASSES},
    }


def show_devices(devices: Sequence[DeviceRow], config: Config, *, chosen: bool) -> None:
    """A table, and below it which of them are sandbox. `chosen`: not all were asked for."""
    console = make_console()
    if not devices:
        first = "no devices yet; add some with: shardd device add ID --transport whatsapp"
        console.print("no such devices; all of them: shardd device list" if chosen else first)
        return
    wide = console.width >= WIDE
    headers = ["id", "transport", "state", "jobs", "today", "last sent", *(["shard", "label"] if wide else []), "why"]
    table = make_table(*headers, right=("jobs", "today", "shard"), whole=("state", "last sent"))
    for device in devices:
        row = [
            Text(device.id),
            _transport_text(device.transport),
            state_text(device.shown_state),
            Text(str(device.jobs)),
            Text(_today(device, config)),
            Text(ago(device.last_sent)),
        ]
        if wide:
            row += [Text(str(shard_of(device.id, config.shards))), Text(device.label or "")]
        table.add_row(*row, Text(_why(device)))
    console.print(table)
    sandbox = sum(device.transport == SANDBOX for device in devices)
    states = Counter(device.shown_state for device in devices)
    sums = ", ".join(f"{number:,} {state}" for state, number in states.most_common())
    console.print(Text(f"{count(len(devices), 'device')}: {sums}", "dim"))
    if sandbox:
        console.print(Text(sandbox_line(sandbox, len(devices), "devices"), SANDBOX_STYLE))


def show_device(device: DeviceRow, config: Config, outlook: Outlook) -> None:
    """One device, line by line."""
    console = make_console()
    transport = _transport_text(device.transport)
    if device.transport == SANDBOX:
        transport.append(": its messages reach nobody")
    rows: list[tuple[str, Text | str]] = [
        ("device", device.id),
        ("label", device.label or ""),
        ("transport", transport),
    ]
    rows += _state_rows(device)
    rows += [
        ("to do", BACKING_OFF if outlook.device.error is not None else _to_do(device)),
        ("jobs", _jobs(device)),
        ("may send", Lines(next_words(outlook))),
        ("sent today", sent_words(outlook)),
        ("last sent", moment_text(device.last_sent)),
        *_pace_rows(outlook.pace, device),
        ("shard", f"{shard_of(device.id, config.shards)} of {config.shards}"),
        ("session", device.session or ""),
        ("proxy", _masked_proxy(device.proxy) or ""),
        ("settings", _settings(device)),
        ("added", moment_text(device.created_at)),
    ]
    console.print(make_facts(rows))


def _state_rows(device: DeviceRow) -> list[tuple[str, Text | str]]:
    rows: list[tuple[str, Text | str]] = []
    if device.paused_at is not None:
        paused = state_text(PAUSED).append(f" since {moment_text(device.paused_at)}", "default")
        rows += [("state", paused), ("why", device.paused_why or ""), ("otherwise", state_text(device.state))]
    else:
        rows.append(("state", state_text(device.state)))
    if device.state != DeviceState.READY:
        rows += [("reason", device.reason or ""), ("since", moment_text(device.state_since))]
        rows.append(("until", moment_text(device.state_until)))
    return rows


def _transport_text(transport: str) -> Text:
    return Text(transport, SANDBOX_STYLE if transport == SANDBOX else "")


def _why(device: DeviceRow) -> str:
    if device.paused_at is not None:
        return device.paused_why or ""
    if device.fault is not None:
        return device.fault
    parts = [device.reason or ""]
    if device.state_until is not None:
        parts.append(f"until {device.state_until:%Y-%m-%d %H:%M} UTC")
    return ", ".join(part for part in parts if part)


def _to_do(device: DeviceRow) -> str:
    remedy = device.fault or remedy_of(device.transport, DeviceState(device.state)).format(id=device.id)
    if device.paused_at is None:
        return remedy
    resume = f"let it send again: shardd device resume {device.id}"
    return resume if device.state == DeviceState.READY and device.fault is None else f"{resume}; and {remedy}"


def _settings(device: DeviceRow) -> str:
    masked = masked_settings(device.transport, device.settings)
    return json.dumps(masked, ensure_ascii=False) if masked else ""


def _jobs(device: DeviceRow) -> str:
    words = count(device.jobs, "live job")
    return words + (f", {device.in_flight} with a worker" if device.in_flight else "")


def _pace_json(pace: Pace) -> dict[str, Any]:
    return dataclasses.asdict(pace) | {"quiet": None if pace.quiet is None else str(pace.quiet)}


def _today(device: DeviceRow, config: Config) -> str:
    pace = device_pace(config.pacing, device)
    if not pace.limited:
        return "-"
    sent, _, days = tally_of(device, pace).today(datetime.now(pace.zone))
    limit, _ = daily_limit(pace, CLASSES[0], days)
    return f"{sent}/{limit}" if limit else str(sent)


def _pace_rows(pace: DevicePace, device: DeviceRow) -> list[tuple[str, Text | str]]:
    hours = [(name, pace.of(name).quiet) for name in CLASSES]
    clock = pace.zone.key if isinstance(pace.zone, ZoneInfo) else "UTC"
    quiet = (
        "; ".join(f"{name}: {one}" for name, one in hours) if len({one for _, one in hours}) > 1 else str(hours[0][1])
    )
    return [
        ("gap", "; ".join([_gap_words(device, pace), *_class_gaps(pace)])),
        ("quiet hours", "" if not any(one for _, one in hours) else quiet.replace("None", "none")),
        ("clock", clock),
    ]


def _gap_words(device: DeviceRow, pace: DevicePace) -> str:
    origin = " (as configured)" if device.gap_min is None and device.gap_max is None else ""
    return f"{_gap(pace.base)}{origin}"


def _class_gaps(pace: DevicePace) -> list[str]:
    words = []
    for name, own in pace.classes.items():
        if (own.gap_min, own.gap_max) != (pace.base.gap_min, pace.base.gap_max):
            burst = f", {own.burst} in a row" if own.burst else ""
            words.append(f"{name} {_gap(own)}{burst}")
    return words


def _gap(pace: Pace) -> str:
    if pace.gap_max <= 0:
        return "none"
    return f"{format_duration(pace.gap_min)} to {format_duration(pace.gap_max)}"


def _masked_proxy(proxy: str | None) -> str | None:
    if proxy is None:
        return None
    parts = urlsplit(proxy)
    if parts.password is None:
        return proxy
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username}:{MASK}@{place}").geturl()
