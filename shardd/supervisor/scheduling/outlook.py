"""When one device may send next and why not now, as plain data for whoever asks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from shardd.pacing import NextSend, Tally
from shardd.states import CAN_SEND
from shardd.supervisor.scheduling.device_queue import DeviceQueue
from shardd.supervisor.scheduling.scheduler import Scheduler


class ClassOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """Of the jobs of one class."""

    wait: float | None
    """Seconds until one may be sent; None: nobody knows when."""
    why: str | None
    """What it waits for; None: nothing."""


class DeviceOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """Of one device. Fields are added, never renamed."""

    id: str
    held: str | None
    """What keeps the whole device from sending, whatever its pace; None: nothing."""
    error: str | None = None
    """What it is backing off after; None: nothing that is known."""
    in_flight: int
    """Jobs that a worker has."""
    sent_today: int
    """By the device's own calendar, as the next two."""
    sent_this_hour: int
    sending_days: int
    """Days before today on which it sent, as far as the warm-up asks."""
    classes: dict[str, ClassOutlook]


def device_outlook(
    scheduler: Scheduler, queue: DeviceQueue, now: float, why_down: Callable[[int], str | None] = lambda _: None
) -> DeviceOutlook:
    """What this supervisor knows. `now`: of the monotonic clock; `why_down`: of a shard."""
    device = queue.device
    held = None
    if device.paused_at is not None:
        held = f"it is paused: {device.paused_why}" if device.paused_why else "it is paused"
    elif queue.fault is not None:
        held = queue.fault
    elif queue.state not in CAN_SEND:
        held = f"it is {queue.state.value}"
    elif (why := why_down(queue.shard)) is not None:
        held = why
    elif not scheduler.is_up(queue):
        held = "its shard does not run on this node"
    local = datetime.fromtimestamp(time.time(), queue.pace.zone)
    turns = scheduler.outlook(queue, now)
    error = scheduler.backing_off_after(queue, now)
    return make_outlook(
        device.id, turns, queue.tally, local, now=now, held=held, error=error, in_flight=queue.in_flight
    )


def make_outlook(
    device_id: str,
    turns: Mapping[str, NextSend],
    tally: Tally,
    local: datetime,
    *,
    now: float,
    held: str | None,
    in_flight: int,
    error: str | None = None,
) -> DeviceOutlook:
    """The outlook of a device at a moment of its own clock; `turns` by class, on the clock of `now`."""
    sent_today, sent_this_hour, days = tally.today(local)
    return DeviceOutlook(
        id=device_id,
        held=held,
        error=error,
        in_flight=in_flight,
        sent_today=sent_today,
        sent_this_hour=sent_this_hour,
        sending_days=days,
        classes={
            name: ClassOutlook(wait=max(0.0, turn.at - now) if math.isfinite(turn.at) else None, why=turn.why)
            for name, turn in turns.items()
        },
    )
