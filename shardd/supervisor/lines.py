"""Which devices can send now: the router's memory of every device, and the order in which their turns come.

A device stands in line for a claim when its shard runs, its state allows it, it has room in hand and one of its lanes may send
(see `shardd.supervisor.line`). Turns are taken round robin, so a device with a million jobs waits for its turn like one with a
single job. What is known about work is only a hint (a notification, a poll, a scan): a hint too many costs one empty claim, one
too few is made good by the next scan.

No I/O and no clock of its own: times are seconds of the caller's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from shardd.backoff import full_jitter
from shardd.ipc import DeviceSpec, Outcome
from shardd.pacing import CLASSES, DevicePace, Turn
from shardd.queue.campaigns import Campaign
from shardd.queue.cycle import Ask, Place, Taken
from shardd.queue.devices import Device, StateChange
from shardd.queue.settle import Claim
from shardd.states import CAN_SEND, MAY_HAVE_LEFT, DeviceState, Verdict
from shardd.supervisor.line import TRIM_AT, Lane, Line
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.turns import IN_TURNS, Turns

TROUBLE_FIRST, TROUBLE_CAP = 5.0, 600.0
"""Seconds before a device that could not be reached is tried again, after the first and after many failures."""
IDLE: Final = 15.0
"""Seconds for which a device that could send gets nothing before that is a problem: thousands may come before it."""
NOTHING_LEFT: Final = frozenset({Verdict.RETURNED, Verdict.EXPIRED, Verdict.OPTED_OUT})
"""After these no gap begins: the device was not used."""


@dataclass(slots=True)
class Changes:
    """What a fresh look at the devices means for a shard's worker."""

    changed: list[DeviceSpec] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


class Lines:
    """All devices of this node's database, by id; only those of running shards get turns."""

    def __init__(
        self,
        *,
        shard_of: Callable[[str], int],
        pace_of: Callable[[Device], DevicePace],
        room_of: Callable[[str], int],
        account_of: Callable[[Device], str | None] = lambda _: None,
    ) -> None:
        """`shard_of` a device id, `pace_of` a device, `room_of` a transport's name.

        `account_of` a device: whose rate limit it shares.
        """
        self._shard_of = shard_of
        self._pace_of = pace_of
        self._room_of = room_of
        self._account_of = account_of
        self.by_id: dict[str, Line] = {}
        self.campaigns: Mapping[str, Campaign] = {}
        self._epochs: dict[int, int] = {}
        self._turns = Turns()
        self._rests: dict[str, float] = {}
        self._ahead = 0.0

    # ---- what the world says

    def look(
        self, devices: Iterable[Device], now: float, *, wall: float, unwritten: Mapping[str, StateChange]
    ) -> dict[int, Changes]:
        """Take over the devices as the database has them; `unwritten` are states that are known here and not there yet.

        `wall`: this moment in POSIX seconds, in which the database says when a device sent last.
        """
        self._ahead = wall - now
        changes: dict[int, Changes] = {}
        seen = set()
        for device in devices:
            seen.add(device.id)
            line = self.by_id.get(device.id)
            is_new = line is None
            state = unwritten[device.id].state if device.id in unwritten else device.state
            if line is None:
                line = self.by_id[device.id] = self._new_line(device, state)
                changes.setdefault(line.shard, Changes()).changed.append(device.spec)
            elif line.device != device:
                if line.device.spec != device.spec:
                    line.untold = None
                    changes.setdefault(line.shard, Changes()).changed.append(device.spec)
                self._set_up(line, device)
                if state in CAN_SEND and line.state not in CAN_SEND:
                    line.troubles, line.trouble_ends = 0, now
            if is_new or line.shard not in self._epochs:
                # Another process sent for it, or another node does: what the database says is all that is known.
                line.take_over(device, now=now, ahead=self._ahead)
            line.learn_days(device)
            line.state = state
            self._offer(line, now)
        for device_id in self.by_id.keys() - seen:
            line = self.by_id.pop(device_id)
            changes.setdefault(line.shard, Changes()).removed.append(device_id)
        return changes

    def set_campaigns(self, campaigns: Mapping[str, Campaign], now: float) -> None:
        """The campaigns that run."""
        if campaigns == self.campaigns:
            return
        self.campaigns = campaigns
        for line in self.by_id.values():
            if any(lane.campaign for lane in line.lanes.values()):
                self._offer(line, now)

    def state_changed(self, change: StateChange) -> None:
        """A device turned out to be in another state."""
        line = self.by_id.get(change.device_id)
        if line is not None:
            line.state = change.state

    def untold(self, device: DeviceSpec, why: str) -> None:
        """A device that no worker can be told of: it cannot send before its row is another one."""
        line = self.by_id.get(device.id)
        if line is not None and line.device.spec == device:
            line.untold = why

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        if faulty := [line for line in self.by_id.values() if line.fault is not None]:
            devices = "1 device has a row" if len(faulty) == 1 else f"{len(faulty):,} devices have rows"
            yield Problem(
                ProblemKind.DEVICE, f"{devices} with which it cannot send; {faulty[0].device.id}: {faulty[0].fault}"
            )
        if idle := [line for line in self.by_id.values() if line.idle_since is not None and line.idle_for >= IDLE]:
            first = max(idle, key=lambda line: line.idle_for)
            devices = "1 device" if len(idle) == 1 else f"{len(idle):,} devices"
            yield Problem(
                ProblemKind.DEVICE,
                f"{devices} could send jobs at once and got none; {first.device.id}: for {first.idle_for:.0f} s. Somebody's "
                "transaction may keep their rows locked (pg_stat_activity, pg_locks); if not, it is a defect of shardd: please "
                "report it, with the log",
            )

    def scanned(self, found: Collection[str], now: float) -> None:
        """A scan is over, which found jobs of these devices and has hinted at them: watch for devices that do nothing."""
        for line in self.by_id.values():
            if line.device.id not in found or now < line.served_at + IDLE or not self._could_send(line, now):
                line.idle_since = None
            elif line.idle_since is None:
                line.idle_since, line.idle_for = now, 0.0
            else:
                line.idle_for = now - line.idle_since

    def _could_send(self, line: Line, now: float) -> bool:
        # A device that waits for a later time was looked at when it was hinted at.
        if (line.due is not None and line.due > now) or not self._can_send(line) or self.rest_of(line) > now:
            return False
        return self._choose(line, now)[0] is not None

    def repace(self, now: float) -> None:
        """The config's limits have changed."""
        for line in self.by_id.values():
            self._set_up(line, line.device)
            self._offer(line, now)

    def shard_up(self, shard: int, epoch: int, now: float) -> None:
        """A shard's worker takes jobs."""
        self._epochs[shard] = epoch
        for line in self.of_shard(shard):
            self._offer(line, now)

    def shard_down(self, shard: int) -> None:
        """A shard's worker takes no more jobs."""
        self._epochs.pop(shard, None)

    def of_shard(self, shard: int) -> list[Line]:
        """The lines of a shard."""
        return [line for line in self.by_id.values() if line.shard == shard]

    def is_up(self, line: Line) -> bool:
        """Whether its shard takes jobs."""
        return line.shard in self._epochs

    def hint(self, device_id: str, lane: str, place: Place, now: float) -> None:
        """There may be work for this device, at this place of this lane or after it."""
        line = self.by_id.get(device_id)
        if line is None:
            return
        line.lane(lane).hint(place)
        if len(line.lanes) >= TRIM_AT:
            line.trim(self.campaigns, now, self._ahead)
        self._offer(line, now)

    # ---- turns

    def asks(self, most: int, now: float) -> list[Ask]:
        """The lanes whose turn it is, for up to `most` jobs; one of each device."""
        self._turns.come(now)
        asks: list[Ask] = []
        room = most
        while room > 0 and (line := self._turns.take()) is not None:
            if not self._can_send(line):
                continue
            lane, at = (None, self.rest_of(line)) if self.rest_of(line) > now else self._choose(line, now)
            if lane is None:
                self._turns.wait(line, at)
                continue
            lane.fresh, lane.asked = None, True
            take = min(room, self._free(line))
            # What stands behind matters only to the choice among lanes.
            peek = take == 1 and line.has_choice
            asks.append(Ask(line.device.id, lane.name, self._epochs[line.shard], lane.low, take, peek))
            room -= take
        return asks

    def claimed(self, asks: Iterable[Ask], taken: Iterable[Taken], now: float) -> None:
        """What the asks brought."""
        got: dict[tuple[str, str], list[Taken]] = {}
        for job in taken:
            got.setdefault((job.claim.device_id, job.claim.lane), []).append(job)
            line = self.by_id.get(job.claim.device_id)
            if line is not None:
                line.serve(line.lane(job.claim.lane), self.campaigns)
                line.served_at, line.idle_since = now, None
        for ask in asks:
            line = self.by_id.get(ask.device_id)
            if line is None:
                continue
            jobs = got.get((ask.device_id, ask.lane), [])
            then = jobs[-1].next if jobs else None
            more = then is not None if ask.peek else len(jobs) >= ask.room
            lane = line.lane(ask.lane)
            lane.asked = False
            lane.answered([(job.claim.ord, job.claim.id) for job in jobs], more=more, then=then)
            line.forget_empty_lanes()
            self._offer(line, now)

    def unasked(self, asks: Iterable[Ask], now: float) -> None:
        """The claim failed: nothing is known about these lanes."""
        for ask in asks:
            line = self.by_id.get(ask.device_id)
            if line is not None:
                lane = line.lane(ask.lane)
                lane.has_work, lane.asked = True, False
                self._offer(line, now)

    def refused(self, ask: Ask, until: float) -> None:
        """The database refuses to claim from this lane: it is left alone until a moment, whatever is said of its work."""
        line = self.by_id.get(ask.device_id)
        if line is not None:
            line.refused[ask.lane] = until

    def regained(self, claim: Claim) -> None:
        """A claim that the database knows and nobody here: it is in hand."""
        line = self.by_id.get(claim.device_id)
        if line is not None:
            line.in_hand += 1
            line.lane(claim.lane).in_hand += 1

    def ended(self, claim: Claim, outcome: Outcome, now: float, *, back: bool) -> None:
        """A claim ended; `back`: its job returns to the line at once."""
        line = self.by_id.get(claim.device_id)
        if line is None:
            return
        lane = line.lane(claim.lane)
        line.in_hand, lane.in_hand = max(0, line.in_hand - 1), max(0, lane.in_hand - 1)
        verdict = Verdict(outcome.verdict)
        if verdict in MAY_HAVE_LEFT and (line.pace.limited or lane.campaign):
            line.count(lane.campaign, datetime.fromtimestamp(now + self._ahead, UTC), self.campaigns)
        if verdict is Verdict.UNAVAILABLE:
            self._trouble(line, lane.job_class, outcome, now)
        elif verdict not in NOTHING_LEFT:
            line.troubles = 0
            if line.pace.free:
                line.tally.ended = now
            else:
                line.tally.end(now, line.pace, lane.job_class)
        if back:
            lane.hint((claim.ord, claim.id))
        self._offer(line, now)

    def next_turn(self, now: float) -> float | None:
        """Seconds until somebody's turn; None when nobody waits for one."""
        return self._turns.seconds(now)

    def outlook(self, device_id: str, now: float) -> dict[str, Turn] | None:
        """By class, when a job may be sent and what it waits for, the device's state aside; None: no such device."""
        line = self.by_id.get(device_id)
        if line is None:
            return None
        rest = self.rest_of(line)
        turns = {}
        for job_class in CLASSES:
            turn = line.turn_of(Lane.named(f"/{job_class}"), self.campaigns, now, self._ahead)
            turns[job_class] = Turn(rest, line.trouble or "a rest of its account") if rest > turn.at else turn
        return turns

    def resting(self, now: float) -> list[tuple[Line, str]]:
        """Devices that could send what they have, were there not a trouble, and the trouble."""
        return [
            (line, line.trouble or "a rest of its account")
            for line in self.by_id.values()
            if self.rest_of(line) > now and self._can_send(line)
        ]

    def turn_at(self, line: Line, lane: str, now: float) -> float:
        """When a job of this lane might be sent, the device's state aside."""
        turn = line.turn_of(Lane.named(lane), self.campaigns, now, self._ahead)
        return max(turn.at, self.rest_of(line))

    def left_of(self, line: Line, lane: str, now: float) -> float:
        """How many more jobs of this lane its limits leave in this hour."""
        known = line.lanes.get(lane) or Lane.named(lane)
        return line.left(known, self.campaigns, datetime.fromtimestamp(now + self._ahead, UTC))

    # ----

    def _new_line(self, device: Device, state: DeviceState) -> Line:
        line = Line(device, self._shard_of(device.id), self._pace_of(device), 1, state)
        self._set_up(line, device)
        return line

    def _set_up(self, line: Line, device: Device) -> None:
        """Take over the device's row; its limits hold at once, also for the gap that is running."""
        line.device = device
        line.pace, line.room, line.account = (
            self._pace_of(device),
            self._room_of(device.transport),
            self._account_of(device),
        )

    def rest_of(self, line: Line) -> float:
        """Until when the device, or the account that it belongs to, is not used."""
        return max(line.trouble_ends, self._rests.get(line.account, 0.0)) if line.account else line.trouble_ends

    def _trouble(self, line: Line, job_class: str, outcome: Outcome, now: float) -> None:
        if outcome.device_state is not None:
            line.state = DeviceState(outcome.device_state)
            line.tally.end(now, line.pace, job_class)
            return
        line.troubles += 1
        wait = outcome.retry_after
        line.trouble_ends = now + (full_jitter(line.troubles, TROUBLE_FIRST, TROUBLE_CAP) if wait is None else wait)
        line.trouble = outcome.error
        if outcome.whole_account and line.account is not None:
            self._rests[line.account] = max(self._rests.get(line.account, 0.0), line.trouble_ends)

    def _can_send(self, line: Line) -> bool:
        return (
            line.has_work
            and self._free(line) > 0
            and line.can_send
            and line.shard in self._epochs
            and self.by_id.get(line.device.id) is line
        )

    @staticmethod
    def _free(line: Line) -> int:
        """How many more jobs the device may have in hand: with limits one at a time, since the next may be one too many."""
        if line.room == 1 or line.pace.has_gap:
            return 1 - line.in_hand
        if line.pace.limited or any(lane.campaign for lane in line.lanes.values()):
            return min(1, line.room - line.in_hand)
        return line.room - line.in_hand

    def _choose(self, line: Line, now: float) -> tuple[Lane | None, float]:
        return line.choose(self.campaigns, now, self._ahead)

    def _offer(self, line: Line, now: float) -> None:
        """Give a device that can send its place in the turns, or note when it can."""
        if line.due == IN_TURNS or not self._can_send(line):
            return
        rest = self.rest_of(line)
        at = rest if rest > now else self._choose(line, now)[1]
        if at > now:
            self._turns.wait(line, at)
        else:
            self._turns.add(line)
