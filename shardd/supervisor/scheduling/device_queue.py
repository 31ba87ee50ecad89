"""One device as the router remembers it: its lanes, and which of them may send next.

A lane is the device's queue of one campaign and one class. So what may not be sent now (its campaign is paused or has reached
its cap, its class has quiet hours) stands in nobody's way. Among the lanes that may send, the highest priority goes first; among
equals, campaigns share the device by their weights (start-time fair queueing); within a campaign, the oldest goes first.

No I/O and no clock of its own: times are seconds of the caller's monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

from shardd.pacing import DevicePace, NextSend, Tally, daily_limit, next_midnight, next_send
from shardd.queue.records import NO_CAMPAIGN, Campaign, Device, Position
from shardd.states import CAN_SEND, DeviceState

FIRST_POSITION: Final[Position] = (-(2**63), 0)
NEVER: Final = math.inf
PRIORITY_SHIFT: Final = 52
"""Bits of a position that hold the time; the priority stands above them (see 0002_jobs.sql)."""
MOST_LANES: Final = 64
"""Lanes of a device that are remembered: a producer may make any number of campaigns, and each choice looks at every lane."""
TRIM_AT: Final = MOST_LANES * 3 // 2
"""Lanes at which those that come last are forgotten, so that this is not done for each new one."""
FAR: Final = 3600.0
"""Seconds; a lane that may send later than this, such as tomorrow, is forgotten before one that may send sooner."""


@dataclass(slots=True, eq=False)
class Lane:
    """The jobs of one campaign and class on one device."""

    name: str
    campaign: str
    """Empty: none."""
    job_class: str
    has_work: bool = False
    fresh: Position | None = None
    """The foremost position that was hinted at since the last ask: its answer may know nothing of it."""
    low: Position = FIRST_POSITION
    """Nothing stands before this position."""
    head: Position = FIRST_POSITION
    """Where the first job probably stands."""
    in_flight: int = 0
    asked: bool = False
    """Its jobs are being claimed."""

    @classmethod
    def named(cls, name: str) -> Lane:
        """One of which nothing is known but its name, `campaign/class`."""
        campaign, _, job_class = name.rpartition("/")
        return cls(name, campaign, job_class)

    @property
    def priority(self) -> int:
        """Of the job that probably stands first."""
        return -(self.head[0] >> PRIORITY_SHIFT)

    def hint(self, position: Position) -> None:
        """There may be a job at this position, or after it."""
        self.low = min(self.low, position)
        self.head = min(self.head, position) if self.has_work else position
        self.has_work = True
        self.fresh = position if self.fresh is None else min(self.fresh, position)

    def answered(self, taken: Sequence[Position], *, more: bool, then: Position | None) -> None:
        """An ask brought the jobs from these places. `more`: whether there may be others, `then`: where, if that is known."""
        if taken:
            self.low = self.head = max(self.low, taken[-1])
        self.has_work = more
        if then is not None:
            self.low = self.head = then
        if self.fresh is not None:
            # Even if this one was taken: others may have come behind it meanwhile.
            self.hint(self.fresh)


def may_be_capped(campaign: str, campaigns: Mapping[str, Campaign]) -> bool:
    """Whether a campaign's sends are counted. `campaign`: empty, none; `campaigns`: those that run.

    Of one that was paused meanwhile nobody knows whether it has a cap: a count too many harms nobody.
    """
    known = campaigns.get(campaign)
    return bool(campaign) and (known is None or known.device_cap is not None)


@dataclass(slots=True)
class CampaignDay:
    """What a campaign sent through a device on a day."""

    day: date
    sent: int = 0


@dataclass(slots=True, eq=False)
class DeviceQueue:
    """One device and its position in the turns."""

    device: Device
    shard: int
    pace: DevicePace
    room: int
    state: DeviceState
    account: str | None = None
    """Whose rate limit it shares; None: its own."""
    tally: Tally = field(default_factory=Tally)
    in_flight: int = 0
    trouble_ends: float = 0.0
    trouble: str | None = None
    """What it rests for until `trouble_ends`."""
    troubles: int = 0
    """Times in a row that the device could not be reached."""
    lanes: dict[str, Lane] = field(default_factory=dict)
    campaign_days: dict[str, CampaignDay] = field(default_factory=dict)
    """Of campaigns with a cap."""
    finishes: dict[str, float] = field(default_factory=dict)
    """Virtual times up to which campaigns have had their share."""
    served: float = 0.0
    """Virtual time of the last share."""
    untold: str | None = None
    """Why no worker can be told of it; None: it can be."""
    served_at: float = -math.inf
    """When its last job was claimed."""
    idle_since: float | None = None
    """Since when each scan has found jobs that it could send at once, and none was claimed."""
    idle_for: float = 0.0
    """Seconds from then to the last scan."""
    refused: dict[str, float] = field(default_factory=dict)
    """Lanes that the database refused to claim from, and until when they are left alone."""
    due: float | None = None
    """When it may send, while it waits for that; minus infinity: it stands in the turns; None: it waits for nothing."""

    def lane(self, name: str) -> Lane:
        """The lane of this name, a new one if need be."""
        found = self.lanes.get(name)
        if found is None:
            found = self.lanes[name] = Lane.named(name)
        return found

    @property
    def can_send(self) -> bool:
        """Whether the device itself is well, its pace and its shard aside."""
        return self.state in CAN_SEND and self.device.paused_at is None and self.fault is None

    @property
    def fault(self) -> str | None:
        """Why its row is of no use, and the fix; None: it is fine."""
        if self.untold is None:
            return self.device.fault
        fix = f"write its settings anew: shardd device set {self.device.id} --settings JSON"
        return f"no worker can be told of it: {self.untold}; {fix}"

    @property
    def has_work(self) -> bool:
        """Whether there may be work in any lane."""
        return any(lane.has_work for lane in self.lanes.values())

    @property
    def has_choice(self) -> bool:
        """Whether more than one lane may have work."""
        return len(self.lanes) > 1 and sum(lane.has_work for lane in self.lanes.values()) > 1

    def forget_empty_lanes(self) -> None:
        """Nothing is known of a lane that has no work."""
        if len(self.lanes) > 1:
            self.lanes = {name: lane for name, lane in self.lanes.items() if lane.has_work or lane.in_flight}
        if self.finishes:
            self.finishes = {name: finish for name, finish in self.finishes.items() if finish > self.served}

    def trim(self, campaigns: Mapping[str, Campaign], now: float, ahead: float) -> None:
        """Forget the lanes that would be chosen last, down to `MOST_LANES`; the next scan finds what is in them.

        A campaign that has just had its share comes after those that have not, so that all of them have theirs in time.
        """
        kept = {name: lane for name, lane in self.lanes.items() if lane.in_flight or lane.asked}
        turns: dict[str, NextSend] = {}

        def rank(lane: Lane) -> tuple[bool, bool, int, float, Position]:
            far = self._turn_of(lane, campaigns, now, ahead, turns).at > now + FAR
            share = max(self.served, self.finishes.get(lane.campaign, 0.0))
            return not lane.has_work, far, -lane.priority, share, lane.head

        others = sorted((lane for name, lane in self.lanes.items() if name not in kept), key=rank)
        self.lanes = kept | {lane.name: lane for lane in others[: max(0, MOST_LANES - len(kept))]}

    def _turn_of(
        self, lane: Lane, campaigns: Mapping[str, Campaign], now: float, ahead: float, known: dict[str, NextSend]
    ) -> NextSend:
        """As `turn_of`; `known`: of this moment, by class, by which alone lanes differ whose campaigns run without a cap."""
        campaign = campaigns.get(lane.campaign) if lane.campaign else NO_CAMPAIGN
        if campaign is None or campaign.device_cap is not None or lane.name in self.refused:
            return self.turn_of(lane, campaigns, now, ahead)
        turn = known.get(lane.job_class)
        if turn is None:
            turn = known[lane.job_class] = self.turn_of(lane, campaigns, now, ahead)
        return turn

    def turn_of(self, lane: Lane, campaigns: Mapping[str, Campaign], now: float, ahead: float) -> NextSend:
        """When this lane may send; NEVER: not before somebody decides so. `ahead`: see `shardd.pacing.next_send`."""
        if (until := self.refused.get(lane.name)) is not None:
            if until > now:
                return NextSend(until, "an error of the database")
            del self.refused[lane.name]
        campaign = campaigns.get(lane.campaign) if lane.campaign else NO_CAMPAIGN
        if campaign is None:
            return NextSend(NEVER, "its campaign")
        turn = next_send(self.pace, lane.job_class, self.tally, now=now, ahead=ahead, in_flight=self.in_flight)
        if campaign.device_cap is not None:
            local = datetime.fromtimestamp(turn.at + ahead, self.pace.zone)
            if self._campaign_sent(lane.campaign, local.date()) >= campaign.device_cap:
                midnight = next_midnight(local, self.pace.zone).timestamp() - ahead
                turn = next_send(self.pace, lane.job_class, self.tally, now=midnight, ahead=ahead)
                return NextSend(turn.at, "its campaign's cap")
        return turn

    def left(self, lane: Lane, campaigns: Mapping[str, Campaign], moment: datetime) -> float:
        """How many more messages of this lane its limits leave in this hour of the device's clock; infinity: any number."""
        local = moment.astimezone(self.pace.zone)
        sent, hour_sent, days = self.tally.today(local)
        limit, _ = daily_limit(self.pace, lane.job_class, days)
        hourly, cap = self.pace.of(lane.job_class).hourly_limit, campaigns.get(lane.campaign, NO_CAMPAIGN).device_cap
        lefts = [NEVER]
        if limit:
            lefts.append(limit - sent - self.in_flight)
        if hourly:
            lefts.append(hourly - hour_sent - self.in_flight)
        if cap is not None:
            lefts.append(cap - self._campaign_sent(lane.campaign, local.date()))
        return max(0, min(lefts))

    def choose(self, campaigns: Mapping[str, Campaign], now: float, ahead: float) -> tuple[Lane | None, float]:
        """(the lane that may send now, now) or (None, when one may).

        Only lanes that may have work count; NEVER when none may send before somebody decides so.
        """
        if self.pace.free and len(self.lanes) == 1 and not self.refused:
            (only,) = self.lanes.values()
            if not only.campaign:  # as in a fleet without limits: nothing to choose, and nothing to wait for
                return (only, now) if only.has_work else (None, NEVER)
        best: Lane | None = None
        best_rank: tuple[int, float, Position] | None = None
        soonest = NEVER
        turns: dict[str, NextSend] = {}
        for lane in self.lanes.values():
            if not lane.has_work:
                continue
            turn = self._turn_of(lane, campaigns, now, ahead, turns)
            if turn.at > now:
                soonest = min(soonest, turn.at)
                continue
            rank = (-lane.priority, max(self.served, self.finishes.get(lane.campaign, 0.0)), lane.head)
            if best_rank is None or rank < best_rank:
                best, best_rank = lane, rank
        return (best, now) if best is not None else (None, soonest)

    def serve(self, lane: Lane, campaigns: Mapping[str, Campaign]) -> None:
        """A job of this lane was taken: its campaign has had a share."""
        self.in_flight += 1
        lane.in_flight += 1
        campaign = campaigns.get(lane.campaign, NO_CAMPAIGN)
        self.served = max(self.served, self.finishes.get(lane.campaign, 0.0))
        self.finishes[lane.campaign] = self.served + 1.0 / campaign.weight

    def count(self, campaign: str, moment: datetime, campaigns: Mapping[str, Campaign]) -> None:
        """A message left, or may have; `moment` is aware."""
        local = moment.astimezone(self.pace.zone)
        self.tally.count(local)
        if may_be_capped(campaign, campaigns):
            self.note_campaign(campaign, local.date(), self._campaign_counted(campaign, local.date()) + 1)

    def note_campaign(self, campaign: str, day: date, sent: int) -> None:
        """Somebody knows what a campaign sent on a day: the highest count stands."""
        known = self.campaign_days.get(campaign)
        if known is None or known.day < day:
            self.campaign_days[campaign] = CampaignDay(day, sent)
        elif known.day == day:
            known.sent = max(known.sent, sent)

    def _campaign_counted(self, campaign: str, day: date) -> int:
        known = self.campaign_days.get(campaign)
        return known.sent if known is not None and known.day == day else 0

    def _campaign_sent(self, campaign: str, day: date) -> int:
        """What it sent on this day, and what is in flight."""
        in_flight = sum(lane.in_flight for lane in self.lanes.values() if lane.campaign == campaign)
        return self._campaign_counted(campaign, day) + in_flight

    def learn_days(self, device: Device) -> None:
        """On how many days it sent: what is asked for grows with the config's warm-up, and a person may start it anew."""
        if device.day == self.tally.day:
            self.tally.days = device.days

    def take_over(self, device: Device, *, now: float, ahead: float) -> None:
        """What the database knows of its sends, which may be more than is known here."""
        tally = self.tally
        if device.last_at is not None:
            ended = min(now, device.last_at.timestamp() - ahead)
            if ended > tally.ended:
                tally.ended, tally.tokens = ended, 0.0
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
