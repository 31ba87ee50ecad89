"""What the scheduler, the router and the commands exchange with the queue, as plain data without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Final

from shardd.ipc import DeviceSpec, JobSpec
from shardd.queue.settle import Claim
from shardd.states import DeviceState

Position = tuple[int, int]
"""(ord, id): a job's place in its lane."""

WorkHint = tuple[str, str, Position]
"""(device, lane, position): there may be a job at this position of the lane."""


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A lane of a device that can send now, and how many of its jobs may be claimed."""

    device_id: str
    lane: str
    epoch: int
    low: Position
    room: int
    peek: bool = False
    """Whether the answer should include the position of the next job; only with a room of one."""


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that was claimed."""

    spec: JobSpec
    claim: Claim
    opted_out: bool = False
    """Its recipient opted out: it must not be sent."""
    next: Position | None = None
    """The position of the next job in its lane, if the request was to peek; None: there is none."""
    fault: str | None = None
    """Why no worker can process it, so that it must not be sent; None: one can."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """A running campaign, as the scheduler needs it."""

    weight: float = 1.0
    """Of two campaigns on one device, 2 sends twice as much as 1."""
    device_cap: int | None = None
    """Messages per device and day."""


NO_CAMPAIGN: Final = Campaign()


@dataclass(frozen=True, slots=True)
class RemovedDevice:
    """What is left of a device: its platform may go on reporting what people write to it."""

    id: str
    transport: str
    settings: Mapping[str, Any] = field(repr=False)
    """Empty if they cannot be read."""


@dataclass(frozen=True, slots=True)
class Device:
    """A row of shardd.devices, with what it sent today."""

    id: str
    transport: str
    label: str | None
    session: str | None
    proxy: str | None = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    state: DeviceState
    reason: str | None
    state_since: datetime
    state_until: datetime | None
    paused_at: datetime | None
    paused_why: str | None
    gap_min: float | None
    gap_max: float | None
    hourly_limit: int | None = None
    daily_limit: int | None = None
    quiet_hours: str | None = None
    """`21:00-08:00`, or `none`."""
    timezone: str | None = None
    warm: bool = False
    classes: dict[str, Any] = field(default_factory=dict)
    """Limits that differ for a class of jobs."""
    day: date | None = None
    """The last day of its own calendar on which it sent; `sent` counts that day, `hour_sent` the last hour in which it sent."""
    sent: int = 0
    hour: int = 0
    hour_sent: int = 0
    last_at: datetime | None = None
    days: int = 0
    """On how many days before `day` it sent, counted up to the length of a warm-up."""
    online_at: datetime | None = None
    """When it was last online, for a send or a visit, and had received what waited for it."""
    presence_at: datetime | None = None
    """When it last showed its presence."""
    visit_failed_at: datetime | None = None
    """When a visit failed after that; None: none did."""
    visit_note: str | None = None
    """Why the last visit failed, or why it showed no presence."""
    backoff_until: datetime | None = None
    """It does not send until then, because its platform reported an error of the account after it had accepted a message."""
    backoff_reason: str | None = None
    fault: str | None = None
    """Why its row cannot be used, with the fix; None: it can."""

    @property
    def spec(self) -> DeviceSpec:
        """What its worker needs."""
        restricted = self.state is DeviceState.RESTRICTED and self.state_until is not None
        return DeviceSpec(
            id=self.id,
            transport=self.transport,
            settings=self.settings,
            session=self.session,
            proxy=self.proxy,
            restricted_until=self.state_until.timestamp() if restricted and self.state_until is not None else None,
        )


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as a list shows it, in the order of its JSON; `transport` is None when it has no device yet, or an unknown one."""

    id: int
    state: str
    device_id: str | None
    device_group: str | None
    transport: str | None
    recipient: str
    kind: str
    job_class: str
    campaign: str | None
    order_group: str | None
    reference: str | None
    waits_for: str | None
    failures: int
    max_attempts: int
    priority: int
    run_at: datetime
    expires_at: datetime | None
    due_at: datetime | None
    created_at: datetime
    settled_at: datetime | None
    message_id: str | None
    error: str | None
    error_class: str | None
    delivered_at: datetime | None
    read_at: datetime | None
    members_without_keys: int | None
    metadata: Any
    reply_to: int | None
    """The message of the inbox that it answers."""
    resend_of: int | None
    """The job whose message it repeats."""
    unreadable_at: datetime | None
    unreadable_why: str | None
    resent_as: int | None
    """The job that repeats its message."""
    revokes: int | None
    """The job whose message it deletes for everyone."""
    revoked_by: int | None
    """The last job that was to delete its message."""


@dataclass(frozen=True, slots=True)
class WholeJob(JobRow):
    """A job with its content and its last claim; `node` and `shard` made that claim. The body has its variables put in.

    `producer`: the bound role whose dedupe key and order group these are; empty: everybody else's. `revocation_state`: of the
    job `revoked_by`; `revoked_at`: when that was sent.
    """

    body: str
    variables: dict[str, Any] | None
    media: str | None
    file_name: str | None
    mime_type: str | None
    details: dict[str, Any] | None
    on_doubt: str
    on_unreadable: str | None
    dedupe_key: str | None
    producer: str
    claims: int
    claimed_at: datetime | None
    node: str | None
    shard: int | None
    revocation_state: str | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class StateChange:
    """A new state of a device, reported by a worker; times in POSIX seconds."""

    device_id: str
    state: DeviceState
    reason: str
    until: float | None
    at: float
    epoch: int | None = None
    """Epoch of the lease under which it was learned; None: no lease."""


@dataclass(frozen=True, slots=True)
class Sends:
    """What a device sent in an hour of its own clock, or what a campaign sent through it on a day."""

    device_id: str
    day: date
    hour: int
    sent: int
    last_at: datetime
    campaign: str = ""
    """Empty: everything that the device sent."""


@dataclass(frozen=True, slots=True)
class Send:
    """A message that was sent or may have been; `at` in POSIX seconds, `zone` of the device."""

    device_id: str
    at: float
    zone: tzinfo
    campaign: str = ""
    """One with a cap; empty: none."""


def count_sends(sends: Iterable[Send]) -> list[Sends]:
    """Add up by device, local day and hour, and by campaign."""
    times: dict[tuple[str, date, int, str], list[float]] = {}
    for send in sends:
        local = datetime.fromtimestamp(send.at, send.zone)
        times.setdefault((send.device_id, local.date(), local.hour, ""), []).append(send.at)
        if send.campaign:
            times.setdefault((send.device_id, local.date(), 0, send.campaign), []).append(send.at)
    return [
        Sends(device, day, hour, len(ats), datetime.fromtimestamp(max(ats), UTC), campaign)
        for (device, day, hour, campaign), ats in times.items()
    ]
