"""The complete list of jobs and their history, which the judge reads, and which replaces the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

from shardd.pacing import DevicePace
from shardd.queue.records import Position
from shardd.queue.settle import Claim
from shardd.states import DeviceState, Verdict
from shardd.supervisor.scheduling.device_queue import PRIORITY_SHIFT

LEFT: Final = {Verdict.SENT, Verdict.IN_DOUBT}
"""Verdicts after which a message was or may have been sent."""
NOT_TRIED: Final = {Verdict.RETURNED, Verdict.EXPIRED, Verdict.OPTED_OUT}


@dataclass
class Job:
    """One message."""

    id: int
    device: str | None
    group: str | None
    campaign: str
    job_class: str
    priority: int
    run_at: int
    """Microseconds; jobs may have the same value."""
    address: str
    order_group: str | None = None
    expires_at: float | None = None
    """This and the next field in POSIX seconds."""
    due_at: float | None = None
    """It is in no lane before."""
    held: bool = False
    claim: Claim | None = None
    settling: bool = False
    """Its claim has ended, but this is not settled yet."""
    returned: bool = False
    """When it is in its lane again."""
    attempt: int = 0
    failures: int = 0
    ended: str | None = None
    """Its final state."""

    @property
    def lane(self) -> str:
        return f"{self.campaign}/{self.job_class}"

    @property
    def place(self) -> Position:
        return self.run_at - (self.priority << PRIORITY_SHIFT), self.id

    @property
    def stands_in_line(self) -> bool:
        """Whether it is in its lane; in the table only after its release is settled."""
        return self.ended is None and (self.claim is None or self.returned) and self.due_at is None and not self.held

    def is_late(self, wall: float) -> bool:
        return self.expires_at is not None and self.expires_at <= wall


@dataclass
class Campaign:
    """A row of the campaigns."""

    weight: float = 1.0
    cap: int | None = None
    state: str = "running"


@dataclass
class Sender:
    """A device with its settings."""

    id: str
    shard: int
    room: int
    pace: DevicePace
    state: DeviceState = DeviceState.READY
    paused: bool = False
    rests_until: float = 0.0
    """POSIX seconds until which the other side asked to wait."""

    @property
    def alive(self) -> bool:
        return self.state in (DeviceState.READY, DeviceState.RESTRICTED) and not self.paused


@dataclass(frozen=True)
class Take:
    """A claim, with the weight of its campaign at that time."""

    device: str
    campaign: str
    weight: float


@dataclass(frozen=True)
class Try:
    """An attempt from `start` to `end` (POSIX seconds); `left`: it was or may have been sent."""

    device: str
    campaign: str
    job_class: str
    start: float
    end: float
    day: date
    """The device's local time at its end."""
    hour: int
    left: bool
    before_restart: bool = False
    fast: bool = False
    """Closer to the previous one than the device's gap: part of a burst."""


@dataclass
class Book:
    """The whole state and history."""

    senders: dict[str, Sender]
    campaigns: dict[str, Campaign] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    opted_out: set[str] = field(default_factory=set)
    contacts: dict[tuple[str, str], str] = field(default_factory=dict)
    up: set[int] = field(default_factory=set)
    """Running shards."""
    takes: list[Take] = field(default_factory=list)
    """Claims since the last restart, which resets shares."""
    tries: list[Try] = field(default_factory=list)

    def live(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.ended is None]

    def in_line(self, device: str) -> list[Job]:
        """The jobs that wait for this device, unordered."""
        return [job for job in self.jobs.values() if job.device == device and job.stands_in_line]

    def lane_of(self, device: str, lane: str) -> list[Job]:
        """The jobs that wait in a lane, in their order."""
        return sorted((job for job in self.in_line(device) if job.lane == lane), key=lambda job: job.place)

    def pool(self, group: str, lane: str) -> list[Job]:
        """The jobs of a group that wait for a device, in their order."""
        found = [
            job
            for job in self.jobs.values()
            if job.group == group and job.device is None and job.stands_in_line and job.lane == lane
        ]
        return sorted(found, key=lambda job: job.place)

    def in_flight(self, device: str) -> list[Job]:
        return [
            job
            for job in self.jobs.values()
            if job.ended is None and job.claim is not None and not job.settling and job.device == device
        ]

    def first_unsent(self, order_group: str) -> Job | None:
        """The next job of an order group, if all before it were sent."""
        unsent = [job for job in self.jobs.values() if job.order_group == order_group and job.ended != "sent"]
        return min(unsent, key=lambda job: job.id, default=None)


def local(sender: Sender, moment: float) -> datetime:
    """A moment in the device's local time."""
    return datetime.fromtimestamp(moment, sender.pace.zone)
