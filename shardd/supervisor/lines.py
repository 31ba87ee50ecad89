"""Which devices can send now: the router's memory of every device, and the order in which their turns come.

A device stands in line for a claim when its shard runs, its state and its day allow it, its gap has passed, it has room
in hand and there may be work for it. Turns are taken round robin, so a device with a million jobs waits for its turn
like one with a single job. What is known about work is only a hint (a notification, a poll, a scan): a hint too many
costs one empty claim, one too few is made good by the next scan.

No I/O and no clock of its own: times are seconds of the caller's monotonic clock.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from shardd.backoff import full_jitter
from shardd.ipc import DeviceSpec, JobSpec, Outcome
from shardd.pacing import Pace
from shardd.queue.cycle import Ask, Place
from shardd.queue.devices import Device, StateChange
from shardd.queue.settle import Claim
from shardd.states import CAN_SEND, MAY_HAVE_LEFT, DeviceState, Verdict

TROUBLE_FIRST, TROUBLE_CAP = 5.0, 600.0
"""Seconds before a device that could not be reached is tried again, after the first and after many failures."""
FIRST_PLACE: Place = (-(2**63), 0)
IN_TURNS = -math.inf


@dataclass(slots=True, eq=False)
class Line:
    """One device and its place in the turns."""

    device: Device
    shard: int
    pace: Pace
    room: int
    state: DeviceState
    in_hand: int = 0
    gap_ends: float = 0.0
    trouble_ends: float = 0.0
    sent_today: int = 0
    has_work: bool = False
    fresh: bool = False
    """A hint came since the last ask: an empty answer to that ask proves nothing."""
    low: Place = FIRST_PLACE
    troubles: int = 0
    """Times in a row that the device could not be reached."""
    due: float | None = None
    """When its gap ends, while it waits for that; IN_TURNS; None: it does not stand in line."""

    @property
    def not_before(self) -> float:
        """When it may send next."""
        return max(self.gap_ends, self.trouble_ends)


@dataclass(slots=True)
class Changes:
    """What a fresh look at the devices means for a shard's worker."""

    changed: list[DeviceSpec] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


class Lines:
    """All devices of this node's database, by id; only those of running shards get turns."""

    def __init__(
        self, *, shard_of: Callable[[str], int], pace_of: Callable[[Device], Pace], room_of: Callable[[str], int]
    ) -> None:
        """`shard_of` a device id, `pace_of` a device, `room_of` a transport's name."""
        self._shard_of = shard_of
        self._pace_of = pace_of
        self._room_of = room_of
        self.by_id: dict[str, Line] = {}
        self._epochs: dict[int, int] = {}
        self._turns: deque[Line] = deque()
        self._gaps: list[tuple[float, int, Line]] = []
        self._ties = itertools.count()

    # ---- what the world says

    def look(
        self, devices: Iterable[Device], now: float, *, wall: float, unwritten: Mapping[str, StateChange]
    ) -> dict[int, Changes]:
        """Take over the devices as the database has them; `unwritten` are states that are known here and not there yet.

        `wall`: this moment in POSIX seconds, in which the database says when a device sent last.
        """
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
                    changes.setdefault(line.shard, Changes()).changed.append(device.spec)
                self._repace(line, device, now)
                if state in CAN_SEND and line.state not in CAN_SEND:
                    line.troubles, line.trouble_ends = 0, now
                line.device = device
            if is_new or line.shard not in self._epochs:
                # Another process sent for it, or another node does: what the database says is all that is known.
                line.gap_ends = max(line.gap_ends, now + self._rest_of_gap(line, wall))
            line.sent_today = max(line.sent_today, device.sent_today)
            line.state = state
            self._offer(line, now)
        for device_id in self.by_id.keys() - seen:
            line = self.by_id.pop(device_id)
            changes.setdefault(line.shard, Changes()).removed.append(device_id)
        return changes

    def state_changed(self, change: StateChange) -> None:
        """A device turned out to be in another state."""
        line = self.by_id.get(change.device_id)
        if line is not None:
            line.state = change.state

    def new_day(self, now: float) -> None:
        """Midnight: daily limits begin anew."""
        for line in self.by_id.values():
            line.sent_today = 0
            self._offer(line, now)

    def repace(self, now: float) -> None:
        """The config's limits have changed."""
        for line in self.by_id.values():
            self._repace(line, line.device, now)
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

    def hint(self, device_id: str, place: Place, now: float) -> None:
        """There may be work for this device, at this place of its line or after it."""
        line = self.by_id.get(device_id)
        if line is None:
            return
        line.low = min(line.low, place)
        line.has_work = line.fresh = True
        self._offer(line, now)

    # ---- turns

    def asks(self, most: int, now: float) -> list[Ask]:
        """The devices whose turn it is, for up to `most` jobs."""
        self._end_gaps(now)
        asks: list[Ask] = []
        room = most
        while room > 0 and self._turns:
            line = self._turns.popleft()
            line.due = None
            if not self._can_send(line):
                continue
            if line.not_before > now:
                self._offer(line, now)
                continue
            line.fresh = False
            take = min(room, self._free(line))
            asks.append(Ask(line.device.id, self._epochs[line.shard], line.low, take))
            room -= take
        return asks

    def claimed(self, asks: Iterable[Ask], jobs: Iterable[tuple[JobSpec, Claim]], now: float) -> None:
        """What the asks brought."""
        got: dict[str, int] = {}
        for _, claim in jobs:
            got[claim.device_id] = got.get(claim.device_id, 0) + 1
            line = self.by_id.get(claim.device_id)
            if line is not None:
                line.in_hand += 1
                if not line.fresh:
                    line.low = max(line.low, (claim.ord, claim.id))
        for ask in asks:
            line = self.by_id.get(ask.device_id)
            if line is not None:
                line.has_work = line.fresh or got.get(ask.device_id, 0) >= ask.room
                self._offer(line, now)

    def unasked(self, asks: Iterable[Ask], now: float) -> None:
        """The claim failed: nothing is known about these devices."""
        for ask in asks:
            line = self.by_id.get(ask.device_id)
            if line is not None:
                line.has_work = True
                self._offer(line, now)

    def ended(self, claim: Claim, outcome: Outcome, now: float, *, back: bool) -> None:
        """A claim ended; `back`: its job returns to the line at once."""
        line = self.by_id.get(claim.device_id)
        if line is None:
            return
        line.in_hand = max(0, line.in_hand - 1)
        verdict = Verdict(outcome.verdict)
        if verdict in MAY_HAVE_LEFT:
            line.sent_today += 1
        if verdict is Verdict.UNAVAILABLE:
            self._trouble(line, outcome, now)
        elif verdict is not Verdict.RETURNED:
            line.troubles = 0
            line.gap_ends = now + line.pace.gap()
        if back:
            line.low = min(line.low, (claim.ord, claim.id))
            line.has_work = line.fresh = True
        self._offer(line, now)

    def next_turn(self, now: float) -> float | None:
        """Seconds until somebody's turn; None when nobody waits for one."""
        if self._turns:
            return 0.0
        return max(0.0, self._gaps[0][0] - now) if self._gaps else None

    # ----

    def _new_line(self, device: Device, state: DeviceState) -> Line:
        return Line(
            device=device,
            shard=self._shard_of(device.id),
            pace=self._pace_of(device),
            room=self._room_of(device.transport),
            state=state,
        )

    def _repace(self, line: Line, device: Device, now: float) -> None:
        """Take over the limits; a gap that is running ends no later than the longest one that is allowed now."""
        line.pace, line.room = self._pace_of(device), self._room_of(device.transport)
        line.gap_ends = min(line.gap_ends, now + line.pace.gap_max)

    @staticmethod
    def _rest_of_gap(line: Line, wall: float) -> float:
        """Seconds that are left of the gap after what another process sent."""
        if line.device.last_at is None:
            return 0.0
        gap = line.pace.gap()
        return min(gap, max(0.0, line.device.last_at.timestamp() + gap - wall))

    def _trouble(self, line: Line, outcome: Outcome, now: float) -> None:
        if outcome.device_state is not None:
            line.state = DeviceState(outcome.device_state)
            line.gap_ends = now + line.pace.gap()
            return
        line.troubles += 1
        wait = outcome.retry_after
        line.trouble_ends = now + (full_jitter(line.troubles, TROUBLE_FIRST, TROUBLE_CAP) if wait is None else wait)

    def _can_send(self, line: Line) -> bool:
        return (
            line.has_work
            and self._free(line) > 0
            and line.state in CAN_SEND
            and line.device.paused_at is None
            and line.shard in self._epochs
            and self.by_id.get(line.device.id) is line
        )

    @staticmethod
    def _free(line: Line) -> int:
        """How many more jobs the device may have in hand."""
        # A gap is the time between two messages, so with a gap there is one at a time.
        room = 1 if line.pace.gap_max > 0 else line.room
        if line.pace.daily_limit > 0:
            room = min(room, line.pace.daily_limit - line.sent_today)
        return room - line.in_hand

    def _offer(self, line: Line, now: float) -> None:
        if not self._can_send(line) or (line.due is not None and line.due <= line.not_before):
            return
        if line.not_before > now:
            line.due = line.not_before
            heapq.heappush(self._gaps, (line.due, next(self._ties), line))
        else:
            line.due = IN_TURNS
            self._turns.append(line)

    def _end_gaps(self, now: float) -> None:
        while self._gaps and self._gaps[0][0] <= now:
            due, _, line = heapq.heappop(self._gaps)
            # Another due time means that its turn came otherwise: the gap was shortened.
            if line.due == due:
                line.due = IN_TURNS
                self._turns.append(line)
