"""When a device may send next, and what it sent, in words for people; from the running shardd, else estimated from its row."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from shardd.pacing import CLASSES, WARM_UP, DevicePace, Tally, daily_limit, next_send
from shardd.queue.devices import DeviceRow
from shardd.queue.records import Device
from shardd.supervisor.scheduling.outlook import ClassOutlook, DeviceOutlook, make_outlook, why_held
from shardd.words import moment_text, span

SOON: Final = 3600.0
"""Seconds up to which a wait is shown without the moment at which it ends."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known, and its origin."""

    device: DeviceOutlook
    pace: DevicePace
    note: str | None = None
    """Why it is an estimate; None: the running shardd answered."""


def told(answer: DeviceOutlook, device: DeviceRow, pace: DevicePace) -> Outlook:
    """What a node said; of a device that another node serves, it knows no more than the database."""
    if answer.served_by is None:
        return Outlook(answer, pace)
    return Outlook(
        estimate(device, pace), pace, f"node {answer.served_by} serves its shard; estimated from the database"
    )


def estimate(device: DeviceRow, pace: DevicePace) -> DeviceOutlook:
    """From the database, without a running shardd; a gap may end sooner, because only its longest end is certain."""
    now, tally = time.time(), tally_of(device, pace)
    turns = {name: next_send(pace, name, tally, now=now, ahead=0.0, in_flight=device.in_flight) for name in CLASSES}
    held = why_held(paused=device.paused_at is not None, why=device.paused_why, fault=device.fault, state=device.state)
    local = datetime.fromtimestamp(now, pace.zone)
    return make_outlook(device.id, turns, tally, local, now=now, held=held, in_flight=device.in_flight)


def tally_of(device: Device, pace: DevicePace) -> Tally:
    """What the database knows of a device's sends; moments in POSIX seconds."""
    return Tally(
        ended=float("-inf") if device.last_at is None else device.last_at.timestamp(),
        draw=1.0,
        day=device.day,
        sent=device.sent,
        hour=device.hour,
        hour_sent=device.hour_sent,
        days=len(pace.warm_up) if device.warm else device.days,
    )


def next_lines(outlook: Outlook) -> list[str]:
    """`now`; `in 8s: its gap`; what differs by class on a line each."""
    device = outlook.device
    if device.held is not None:
        return [f"not now: {device.held}"]
    by_words: dict[str, list[str]] = {}
    for name, one in device.classes.items():
        by_words.setdefault(_class_words(one), []).append(name)
    lines = [f"{', '.join(names)}: {words}" if len(by_words) > 1 else words for words, names in by_words.items()]
    return [*lines, *([] if outlook.note is None else [outlook.note])]


def sent_words(outlook: Outlook) -> str:
    """What it sent, and its limits."""
    pace, device = outlook.pace, outlook.device
    if not pace.limited:
        return "not counted: it has neither a gap nor a limit"
    days = device.sending_days
    daily = {name: daily_limit(pace, name, days) for name in CLASSES}
    warming = any(reason == WARM_UP for _, reason in daily.values())
    words = [
        f"{device.sent_today} {_of({name: limit for name, (limit, _) in daily.items()})}",
        *([f"day {days + 1} of {len(pace.warm_up)} of its warm-up"] if warming else []),
        f"this hour {device.sent_this_hour} {_of({name: pace.of(name).hourly_limit for name in CLASSES})}",
    ]
    return "; ".join(words)


def _of(limits: Mapping[str, int]) -> str:
    """`of 40`; `of 40 (reply: no limit)`; `(no limit)`: the first class, then those that differ."""
    first = limits[CLASSES[0]]
    others: dict[int, list[str]] = {}
    for name, limit in limits.items():
        if limit != first:
            others.setdefault(limit, []).append(name)
    differ = "; ".join(f"{', '.join(names)}: {limit or 'no limit'}" for limit, names in others.items())
    if not first:
        return f"({'; '.join(filter(None, ('no limit', differ)))})"
    return f"of {first}" + (f" ({differ})" if differ else "")


def _class_words(one: ClassOutlook) -> str:
    if one.wait is None:
        return f"unknown when: {one.why}"
    if one.wait <= 0:
        return "now"
    when = f"in {span(one.wait)}" if one.wait < SOON else moment_text(datetime.now(UTC) + timedelta(seconds=one.wait))
    return f"{when}: {one.why}"
