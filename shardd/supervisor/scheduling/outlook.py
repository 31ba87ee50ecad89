"""When one device may send next and why not now, as plain data: of the running node, or computed from the database by the CLI."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from shardd.pacing import NextSend, Tally
from shardd.states import CAN_SEND, DeviceState
from shardd.supervisor.scheduling.device_queue import DeviceQueue
from shardd.supervisor.scheduling.scheduler import Scheduler


class ClassOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one class."""

    wait: float | None
    """Seconds until one may be sent; None: unknown."""
    why: str | None
    """What it waits for; None: nothing."""


class DeviceOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """One device. Fields are added, never renamed."""

    id: str
    held: str | None
    """What keeps the whole device from sending, regardless of its pace; None: nothing."""
    error: str | None = None
    """The error after which it is backing off; None: it is not, as far as is known."""
    in_flight: int
    """Jobs that a worker has."""
    sent_today: int
    """By the device's own calendar, like the next two."""
    sent_this_hour: int
    sending_days: int
    """Days before today on which it sent, up to the length of the warm-up."""
    classes: dict[str, ClassOutlook]
    served_by: str | None = None
    """The other node that serves its shard, and knows what is missing here; None: this one, or none."""


def device_outlook(
    scheduler: Scheduler, queue: DeviceQueue, now: float, why_down: Callable[[int], str | None]
) -> DeviceOutlook:
    """The outlook of a device of this node. `now`: of the monotonic clock; `why_down` of a shard: what keeps it from running."""
    device = queue.device
    held = why_held(paused=device.paused_at is not None, why=device.paused_why, fault=queue.fault, state=queue.state)
    held = held or why_down(queue.shard)
    if held is None and not scheduler.is_up(queue):
        held = "its shard does not run on this node"
    if held is None and (waiting := scheduler.waits_to_open(queue)) is not None:
        devices = "it is the next one" if waiting == 1 else f"{waiting:,} devices wait"
        held = f"its worker opens the clients of other devices first: {devices}"
    return make_outlook(
        device.id,
        queue.next_by_class(now),
        queue.tally,
        datetime.fromtimestamp(time.time(), queue.pace.zone),
        now=now,
        held=held,
        error=queue.backing_off_after(now),
        in_flight=queue.in_flight,
    )


def why_held(*, paused: bool, why: str | None, fault: str | None, state: DeviceState) -> str | None:
    """What in a device's row keeps it from sending; None: nothing. `why` it is paused, if a reason was given."""
    if paused:
        return f"it is paused: {why}" if why else "it is paused"
    return fault or (None if state in CAN_SEND else f"it is {state.value}")


def make_outlook(
    device_id: str,
    next_sends: Mapping[str, NextSend],
    tally: Tally,
    local: datetime,
    *,
    now: float,
    held: str | None,
    in_flight: int,
    error: str | None = None,
) -> DeviceOutlook:
    """The outlook at a moment of the device's own clock; `next_sends` by class, on the clock of `now`."""
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
            name: ClassOutlook(wait=max(0.0, each.at - now) if math.isfinite(each.at) else None, why=each.why)
            for name, each in next_sends.items()
        },
    )
