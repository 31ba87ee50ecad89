"""A scheduler for tests, driven by hand: devices, requests, answers and outcomes, without a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from shardd.ipc import Devices, JobSpec, Outcome
from shardd.pacing import DevicePace, Pace
from shardd.queue.records import Campaign, ClaimedJob, Device, Position, StateChange
from shardd.queue.settle import Claim
from shardd.states import DeviceState, Verdict
from shardd.supervisor.scheduling.device_queue import PRIORITY_SHIFT
from shardd.supervisor.scheduling.scheduler import Scheduler

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
WALL = 1_800_000_000.0
"""The POSIX time at monotonic time 0: 08:00 UTC."""
LANE = "/marketing"


def device(name: str, **fields: Any) -> Device:
    """A pace; by default without limits."""
    plain = Device(
        id=name,
        transport="sandbox",
        label=None,
        session=None,
        proxy=None,
        settings={},
        state=DeviceState.READY,
        reason=None,
        state_since=LONG_AGO,
        state_until=None,
        paused_at=None,
        paused_why=None,
        gap_min=None,
        gap_max=None,
    )
    return replace(plain, **fields)


def pace_of(which: Device) -> DevicePace:
    """The device's own gap and limits."""
    base = Pace(which.gap_min or 0.0, which.gap_max or 0.0, which.hourly_limit or 0, which.daily_limit or 0)
    return DevicePace(base)


def make_scheduler(room: int = 1, **more: Any) -> Scheduler:
    """Devices a… are on shard 0, b… on shard 1."""
    return Scheduler(
        shard_of=lambda name: 1 if name.startswith("b") else 0,
        in_flight_of=lambda transport: room if transport == "sandbox" else 1,
        **{"pace_of": pace_of, "account_of": lambda _: None, **more},
    )


def look(
    scheduler: Scheduler, *devices: Device, now: float = 0.0, unwritten: Mapping[str, StateChange] | None = None
) -> dict[int, Devices]:
    return scheduler.set_devices(devices, now, wall=WALL + now, unwritten=unwritten or {})


def ready(*devices: Device, room: int = 1, **more: Any) -> Scheduler:
    """Both shards are up, and every device has jobs from the first position on."""
    scheduler = make_scheduler(room, **more)
    look(scheduler, *devices)
    scheduler.shard_up(0, 10, 0.0)
    scheduler.shard_up(1, 11, 0.0)
    for each in devices:
        scheduler.hint(each.id, LANE, (1, 1), 0.0)
    return scheduler


def place(number: int, priority: int = 0) -> Position:
    """The position of the job with this id, before those with higher ids."""
    return number - (priority << PRIORITY_SHIFT), number


def asked(scheduler: Scheduler, now: float = 0.0, most: int = 100) -> list[str]:
    return [ask.device_id for ask in scheduler.next_requests(most, now)]


def job(claim: Claim, then: Position | None = None) -> ClaimedJob:
    """A claimed job as the database returns it; `then`: the position of the following job."""
    return ClaimedJob(JobSpec(*claim.key, claim.device_id, "+628"), claim, next=then)


def take(scheduler: Scheduler, now: float = 0.0, most: int = 100, then: Position | None = (2, 2)) -> list[Claim]:
    """Request claims, and get as many jobs as requested."""
    requests = scheduler.next_requests(most, now)
    claims = [
        Claim(1000 + number, ask.epoch, 1, 9, ask.device_id, 0, 5, "hold", 1, ask.lane)
        for ask in requests
        for number in range(ask.room)
    ]
    scheduler.claimed(requests, [job(claim, then) for claim in claims], now)
    return claims


def end(
    scheduler: Scheduler, claim: Claim, now: float, verdict: Verdict = Verdict.SENT, *, back: bool = False, **more: Any
) -> None:
    scheduler.ended(claim, Outcome(*claim.key, verdict.value, **more), now, back=back)


def serve(
    scheduler: Scheduler, jobs: dict[str, list[Position]], count: int, now: float = 0.0, most: int = 1
) -> list[str]:
    """Send jobs of one device with this many requests; returns their lanes in the order of sending."""
    served = []
    for _ in range(count):
        requests = scheduler.next_requests(most, now)
        if not requests:
            break
        (ask,) = requests
        lane = [each for each in jobs[ask.lane] if each >= ask.low]
        claims = [
            Claim(each[1], ask.epoch, 1, 9, ask.device_id, 0, 5, "hold", each[0], ask.lane) for each in lane[: ask.room]
        ]
        follows = lane[1] if ask.peek and len(lane) > 1 else None
        scheduler.claimed(requests, [job(claim, follows) for claim in claims], now)
        jobs[ask.lane] = [each for each in jobs[ask.lane] if each[1] not in {claim.id for claim in claims}]
        for claim in claims:
            served.append(ask.lane)
            end(scheduler, claim, now)
    return served


def fill(scheduler: Scheduler, name: str, jobs: dict[str, list[Position]], now: float = 0.0) -> None:
    """Hint the first positions of a device's lanes."""
    for lane, places in jobs.items():
        scheduler.hint(name, lane, places[0], now)


def running(**campaigns: Campaign) -> dict[str, Campaign]:
    return campaigns
