"""One device as the scheduler remembers it: its lanes, its pace, its backoff, and which lane may send next.

A lane is the device's queue of one campaign and class. A lane that may not send now (its campaign is paused or at its cap, its
class has quiet hours) does not block the others. Among the lanes that may send, the highest priority goes first; among equals,
campaigns share the device by weight (start-time fair queueing); then the oldest job goes first.

No I/O and no clock of its own: times are seconds of the caller's monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

from shardd.backoff import full_jitter
from shardd.ipc import Outcome
from shardd.pacing import CLASSES, DevicePace, NextSend, Tally, daily_limit, next_midnight, next_send
from shardd.queue.records import NO_CAMPAIGN, Campaign, Device, Position
from shardd.states import CAN_SEND, PAUSED, DeviceState

FIRST_POSITION: Final[Position] = (-(2**63), 0)
NEVER: Final = math.inf
PRIORITY_SHIFT: Final = 52
"""Bits of a position that hold the time; the bits above hold the priority (see 0002_jobs.sql)."""
MOST_LANES: Final = 64
"""Lanes of a device that are remembered: a producer may create any number of campaigns, and each choice examines every lane."""
TRIM_AT: Final = MOST_LANES * 3 // 2
"""Number of lanes at which the last ones are forgotten, so that this is not done for each new lane."""
FAR: Final = 3600.0
"""Seconds; a lane that may send later than this, such as tomorrow, is forgotten before one that may send sooner."""
BACKOFF_FIRST, BACKOFF_CAP = 5.0, 600.0
"""Seconds before an unavailable device is tried again, after the first and after many failures."""
OF_ACCOUNT: Final = "a backoff of its account"


@dataclass(slots=True, eq=False)
class Lane:
    """The jobs of one campaign and class on one device."""

    name: str
    campaign: str
    """Empty: none."""
    job_class: str
    has_work: bool = False
    hinted: Position | None = None
    """The first position hinted at since the last claim request, whose answer may not include it."""
    low: Position = FIRST_POSITION
    """No job precedes this position."""
    head: Position = FIRST_POSITION
    """Probable position of the first job."""
    in_flight: int = 0
    claiming: bool = False
    """A claim request for it is under way."""

    @classmethod
    def named(cls, name: str) -> Lane:
        """An empty lane; `name` is `campaign/class`."""
        campaign, _, job_class = name.rpartition("/")
        return cls(name, campaign, job_class)

    @property
    def priority(self) -> int:
        """Priority of the job that is probably first."""
        return -(self.head[0] >> PRIORITY_SHIFT)

    def hint(self, position: Position) -> None:
        """There may be a job at this position, or after it."""
        self.low = min(self.low, position)
        self.head = min(self.head, position) if self.has_work else position
        self.has_work = True
        self.hinted = position if self.hinted is None else min(self.hinted, position)

    def answered(self, claimed: Sequence[Position], *, more: bool, then: Position | None) -> None:
        """The jobs at these positions were claimed. `more`: there may be others; `then`: position of the next one, if known."""
        self.claiming = False
        if claimed:
            self.low = self.head = max(self.low, claimed[-1])
        self.has_work = more
        if then is not None:
            self.low = self.head = then
        if self.hinted is not None:
            # Even if this one was claimed: others may have come behind it meanwhile.
            self.hint(self.hinted)


@dataclass(slots=True)
class Refusal:
    """The database refused to claim from a lane, which is left alone until a moment."""

    until: float
    error: str


@dataclass(slots=True)
class CampaignSends:
    """What a campaign sent through a device on a day."""

    day: date
    sent: int = 0


@dataclass(slots=True)
class SharedState:
    """What all device queues of a node have in common."""

    campaigns: Mapping[str, Campaign] = field(default_factory=dict)
    """The running ones, by id."""
    clock_offset: float = 0.0
    """POSIX seconds minus the monotonic clock."""
    rate_limited_until: dict[str, float] = field(default_factory=dict)
    """By account."""

    def may_be_capped(self, campaign: str) -> bool:
        """Whether the sends of a campaign (empty: none) are counted for its cap.

        Whether one that was paused meanwhile has a cap is unknown here; an unneeded count does no harm.
        """
        known = self.campaigns.get(campaign)
        return bool(campaign) and (known is None or known.device_cap is not None)


@dataclass(slots=True, eq=False)
class DeviceQueue:
    """One device of the scheduler."""

    device: Device
    shard: int
    state: DeviceState
    shared: SharedState
    pace: DevicePace = field(default_factory=DevicePace)
    room: int = 1
    """How many of its jobs its transport may have in flight."""
    account: str | None = None
    """Account whose rate limit it shares; None: its own."""
    tally: Tally = field(default_factory=Tally)
    in_flight: int = 0
    claiming: bool = False
    """A claim request for one of its lanes is under way: until it is answered, its pace allows no other."""
    own_backoff_until: float = 0.0
    backoff_error: str | None = None
    """Error that caused the last backoff."""
    failures: int = 0
    """Times in a row that the device was unavailable."""
    lanes: dict[str, Lane] = field(default_factory=dict)
    campaign_sends: dict[str, CampaignSends] = field(default_factory=dict)
    """Of campaigns with a cap."""
    virtual_finish: dict[str, float] = field(default_factory=dict)
    """By campaign, the virtual time up to which it has had its share."""
    virtual_time: float = 0.0
    """Start of the last share."""
    undeliverable: str | None = None
    """Why its row cannot be sent to a worker; None: it can."""
    served_at: float = -math.inf
    """When its last job was claimed."""
    idle_since: float | None = None
    """Since when each scan has found jobs that it could send at once, and none was claimed."""
    idle_for: float = 0.0
    """Seconds from then to the last scan."""
    refused: dict[str, Refusal] = field(default_factory=dict)
    """By lane."""
    due: float | None = None
    """When it may send, while it waits for that; minus infinity: it is in the ready queue; None: it waits for nothing."""

    # ---- the device as a whole

    @property
    def fault(self) -> str | None:
        """Why its row cannot be used, with the fix; None: it can."""
        if self.undeliverable is None:
            return self.device.fault
        fix = f"rewrite its settings: shardd device set {self.device.id} --settings JSON"
        return f"its row cannot be sent to a worker: {self.undeliverable}; {fix}"

    @property
    def shown_state(self) -> str:
        """As in `Device`, of the state that is known here."""
        return PAUSED if self.device.paused_at is not None else self.state.value

    @property
    def can_send(self) -> bool:
        """Whether the device itself may be used, regardless of its pace, its backoff and its shard."""
        return self.state in CAN_SEND and self.device.paused_at is None and self.fault is None

    @property
    def has_work(self) -> bool:
        """Whether there may be work in any lane."""
        return any(lane.has_work for lane in self.lanes.values())

    @property
    def has_choice(self) -> bool:
        """Whether more than one lane may have work."""
        return len(self.lanes) > 1 and sum(lane.has_work for lane in self.lanes.values()) > 1

    @property
    def free_room(self) -> int:
        """How many more jobs may be in flight: with limits only one at a time, because the next may exceed them."""
        if self.room == 1 or self.pace.has_gap:
            return 1 - self.in_flight
        if self.pace.limited or any(lane.campaign for lane in self.lanes.values()):
            return min(1, self.room - self.in_flight)
        return self.room - self.in_flight

    @property
    def backoff_until(self) -> float:
        """Until when the device, or the account that it belongs to, is not used."""
        if self.account is None:
            return self.own_backoff_until
        return max(self.own_backoff_until, self.shared.rate_limited_until.get(self.account, 0.0))

    def backing_off_after(self, now: float) -> str | None:
        """The error after which the device or its account is backing off; None: it is not backing off."""
        return (self.backoff_error or OF_ACCOUNT) if self.backoff_until > now else None

    def back_off(self, outcome: Outcome, now: float) -> None:
        """The device was unavailable."""
        self.failures += 1
        wait = outcome.retry_after
        self.own_backoff_until = now + (
            full_jitter(self.failures, BACKOFF_FIRST, BACKOFF_CAP) if wait is None else wait
        )
        self.backoff_error = outcome.error
        if outcome.whole_account and self.account is not None:
            self.shared.rate_limited_until[self.account] = self.backoff_until

    def wait_until(self, until: float, error: str | None) -> None:
        """A platform reported an error of the device's account after it had accepted a message. A longer backoff stays."""
        if until > self.own_backoff_until:
            self.own_backoff_until, self.backoff_error = until, error

    def end_backoff(self, now: float) -> None:
        """Its cause may be gone: the device is tried at once."""
        self.failures, self.own_backoff_until = 0, now

    # ---- lanes

    def lane(self, name: str) -> Lane:
        """The lane of this name; created if unknown."""
        found = self.lanes.get(name)
        if found is None:
            found = self.lanes[name] = Lane.named(name)
        return found

    def choose(self, now: float) -> tuple[Lane | None, float]:
        """(the lane that may send now, now) or (None, when one may; NEVER: nothing but a change can allow it).

        Only lanes that may have work count.
        """
        if (until := self.backoff_until) > now:
            return None, until
        if self.pace.free and len(self.lanes) == 1 and not self.refused:
            (only,) = self.lanes.values()
            if not only.campaign:  # the usual case in a fleet without limits: nothing to choose or to wait for
                return (only, now) if only.has_work else (None, NEVER)
        ready: list[Lane] = []
        soonest = NEVER
        known: dict[str, NextSend] = {}
        for lane in self.lanes.values():
            if not lane.has_work:
                continue
            at = self.next_send(lane, now, known).at
            if at > now:
                soonest = min(soonest, at)
            else:
                ready.append(lane)
        return (min(ready, key=self._rank), now) if ready else (None, soonest)

    def _rank(self, lane: Lane) -> tuple[int, float, Position]:
        """The order between lanes: the lowest goes first."""
        return -lane.priority, max(self.virtual_time, self.virtual_finish.get(lane.campaign, 0.0)), lane.head

    def next_send(self, lane: Lane, now: float, known: dict[str, NextSend] | None = None) -> NextSend:
        """When this lane may send, regardless of the device's state and backoff; NEVER: nothing but a change can allow it.

        `known`: answers for this moment by class, reused and extended; lanes of running campaigns differ only by class and cap.
        """
        if (refusal := self.refused.get(lane.name)) is not None and refusal.until > now:
            return NextSend(refusal.until, "an error of the database")
        campaign = self.shared.campaigns.get(lane.campaign) if lane.campaign else NO_CAMPAIGN
        if campaign is None:
            return NextSend(NEVER, "its campaign")
        offset = self.shared.clock_offset
        found = None if known is None else known.get(lane.job_class)
        if found is None:
            found = next_send(self.pace, lane.job_class, self.tally, now=now, ahead=offset, in_flight=self.in_flight)
            if known is not None:
                known[lane.job_class] = found
        if campaign.device_cap is not None:
            local = datetime.fromtimestamp(found.at + offset, self.pace.zone)
            if self._campaign_sent(lane.campaign, local.date()) >= campaign.device_cap:
                midnight = next_midnight(local, self.pace.zone).timestamp() - offset
                found = next_send(self.pace, lane.job_class, self.tally, now=midnight, ahead=offset)
                return NextSend(found.at, "its campaign's cap")
        return found

    def next_by_class(self, now: float) -> dict[str, NextSend]:
        """By class, when a job without a campaign may be sent, regardless of the device's state."""
        own = {name: self.next_send(Lane.named(f"/{name}"), now) for name in CLASSES}
        backoff = NextSend(self.backoff_until, self.backoff_error or OF_ACCOUNT)
        return {name: backoff if backoff.at > each.at else each for name, each in own.items()}

    def left(self, name: str, now: float) -> float:
        """How many more messages of this lane the limits allow in this hour of the device's clock; infinity: any number."""
        lane = self.lanes.get(name) or Lane.named(name)
        local = self._local(now)
        sent, hour_sent, days = self.tally.today(local)
        limit, _ = daily_limit(self.pace, lane.job_class, days)
        hourly = self.pace.of(lane.job_class).hourly_limit
        cap = self.shared.campaigns.get(lane.campaign, NO_CAMPAIGN).device_cap
        lefts = [NEVER]
        if limit:
            lefts.append(limit - sent - self.in_flight)
        if hourly:
            lefts.append(hourly - hour_sent - self.in_flight)
        if cap is not None:
            lefts.append(cap - self._campaign_sent(lane.campaign, local.date()))
        return max(0, min(lefts))

    def claimed(self, name: str, now: float) -> None:
        """A job of this lane was claimed: its campaign has had a share."""
        lane = self.lane(name)
        self.in_flight += 1
        lane.in_flight += 1
        weight = self.shared.campaigns.get(lane.campaign, NO_CAMPAIGN).weight
        self.virtual_time = max(self.virtual_time, self.virtual_finish.get(lane.campaign, 0.0))
        self.virtual_finish[lane.campaign] = self.virtual_time + 1.0 / weight
        self.served_at, self.idle_since = now, None

    def forget_empty_lanes(self) -> None:
        """A lane without work holds no information."""
        if len(self.lanes) > 1:
            self.lanes = {name: lane for name, lane in self.lanes.items() if lane.has_work or lane.in_flight}
        if self.virtual_finish:
            self.virtual_finish = {name: at for name, at in self.virtual_finish.items() if at > self.virtual_time}

    def trim(self, now: float) -> None:
        """Forget the lanes that would be chosen last, down to `MOST_LANES`; the next scan finds them again.

        A campaign that has just had its share comes after those that have not, so that each gets its share in time.
        """
        kept = {name: lane for name, lane in self.lanes.items() if lane.in_flight or lane.claiming}
        known: dict[str, NextSend] = {}
        others = sorted(
            (lane for name, lane in self.lanes.items() if name not in kept),
            key=lambda lane: (not lane.has_work, self.next_send(lane, now, known).at > now + FAR, self._rank(lane)),
        )
        self.lanes = kept | {lane.name: lane for lane in others[: max(0, MOST_LANES - len(kept))]}

    # ---- what it sent

    def count(self, campaign: str, now: float) -> None:
        """A message was sent, or may have been."""
        local = self._local(now)
        self.tally.count(local)
        if self.shared.may_be_capped(campaign):
            self.note_campaign_sends(campaign, local.date(), self._campaign_counted(campaign, local.date()) + 1)

    def note_campaign_sends(self, campaign: str, day: date, sent: int) -> None:
        """A count of what a campaign sent on a day; the highest one is kept."""
        known = self.campaign_sends.get(campaign)
        if known is None or known.day < day:
            self.campaign_sends[campaign] = CampaignSends(day, sent)
        elif known.day == day:
            known.sent = max(known.sent, sent)

    def _campaign_counted(self, campaign: str, day: date) -> int:
        known = self.campaign_sends.get(campaign)
        return known.sent if known is not None and known.day == day else 0

    def _campaign_sent(self, campaign: str, day: date) -> int:
        """What it sent on this day, plus what is in flight."""
        in_flight = sum(lane.in_flight for lane in self.lanes.values() if lane.campaign == campaign)
        return self._campaign_counted(campaign, day) + in_flight

    def _local(self, now: float) -> datetime:
        return datetime.fromtimestamp(now + self.shared.clock_offset, self.pace.zone)

    def merge_counts(self, device: Device, now: float) -> None:
        """Take over what the database has counted, where that is more than is known here."""
        tally = self.tally
        if device.last_at is not None:
            ended = min(now, device.last_at.timestamp() - self.shared.clock_offset)
            if ended > tally.ended:
                tally.ended, tally.used = ended, None
        if device.day is None:
            return
        if tally.day is None or device.day > tally.day:
            tally.day, tally.sent, tally.hour, tally.hour_sent = device.day, device.sent, device.hour, device.hour_sent
            tally.days = device.days
        elif device.day == tally.day:
            tally.sent, tally.days = max(tally.sent, device.sent), max(tally.days, device.days)
            if device.hour >= tally.hour:
                known = tally.hour_sent if device.hour == tally.hour else 0
                tally.hour, tally.hour_sent = device.hour, max(known, device.hour_sent)
