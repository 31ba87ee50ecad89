"""Which devices can send now: the router's memory of every device, and the order in which their turns come.

A device stands in queue for a claim when its shard runs, its state allows it, it has room in flight and one of its lanes may send
(see `DeviceQueue`). Turns are taken round robin, so a device with a million jobs waits for its turn like one with
a single job. What is known about work is only a hint (a notification, a poll, a scan): a hint too many costs one empty claim, one
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
from shardd.pacing import CLASSES, DevicePace, NextSend
from shardd.queue.records import Campaign, ClaimedJob, ClaimRequest, Device, Position, StateChange
from shardd.queue.settle import Claim
from shardd.states import CAN_SEND, MAY_HAVE_LEFT, DeviceState, Verdict
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.scheduling.device_queue import TRIM_AT, DeviceQueue, Lane
from shardd.supervisor.scheduling.ready_queue import READY, ReadyQueue

TROUBLE_FIRST, TROUBLE_CAP = 5.0, 600.0
"""Seconds before a device that could not be reached is tried again, after the first and after many failures."""
IDLE: Final = 15.0
"""Seconds for which a device that could send gets nothing before that is a problem: thousands may come before it."""
OF_ACCOUNT: Final = "a backoff of its account"
NOTHING_LEFT: Final = frozenset({Verdict.RETURNED, Verdict.EXPIRED, Verdict.OPTED_OUT})
"""After these no gap begins: the device was not used."""


@dataclass(slots=True)
class Changes:
    """What a fresh look at the devices means for a shard's worker."""

    changed: list[DeviceSpec] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


class Scheduler:
    """All devices of this node's database, by id; only those of running shards get turns."""

    def __init__(
        self,
        *,
        shard_of: Callable[[str], int],
        pace_of: Callable[[Device], DevicePace],
        in_flight_of: Callable[[str], int],
        account_of: Callable[[Device], str | None] = lambda _: None,
    ) -> None:
        """`shard_of` a device id, `pace_of` a device, `in_flight_of` a transport's name.

        `account_of` a device: whose rate limit it shares.
        """
        self._shard_of = shard_of
        self._pace_of = pace_of
        self._in_flight_of = in_flight_of
        self._account_of = account_of
        self.by_id: dict[str, DeviceQueue] = {}
        self.campaigns: Mapping[str, Campaign] = {}
        self._epochs: dict[int, int] = {}
        self._ready = ReadyQueue()
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
            queue = self.by_id.get(device.id)
            is_new = queue is None
            state = unwritten[device.id].state if device.id in unwritten else device.state
            if queue is None:
                queue = self.by_id[device.id] = self._new_queue(device, state)
                changes.setdefault(queue.shard, Changes()).changed.append(device.spec)
            elif queue.device != device:
                if respecified := queue.device.spec != device.spec:
                    queue.untold = None
                    changes.setdefault(queue.shard, Changes()).changed.append(device.spec)
                self._set_up(queue, device)
                if respecified or (state in CAN_SEND and queue.state not in CAN_SEND):
                    # What a person changed may have been the cause: it is tried at once.
                    queue.troubles, queue.trouble_ends = 0, now
            if is_new or queue.shard not in self._epochs:
                # Another process sent for it, or another node does: what the database says is all that is known.
                queue.take_over(device, now=now, ahead=self._ahead)
            queue.learn_days(device)
            queue.state = state
            self._offer(queue, now)
        for device_id in self.by_id.keys() - seen:
            queue = self.by_id.pop(device_id)
            changes.setdefault(queue.shard, Changes()).removed.append(device_id)
        return changes

    def set_campaigns(self, campaigns: Mapping[str, Campaign], now: float) -> None:
        """The campaigns that run."""
        if campaigns == self.campaigns:
            return
        self.campaigns = campaigns
        for queue in self.by_id.values():
            if any(lane.campaign for lane in queue.lanes.values()):
                self._offer(queue, now)

    def state_changed(self, change: StateChange) -> None:
        """A device turned out to be in another state."""
        queue = self.by_id.get(change.device_id)
        if queue is not None:
            queue.state = change.state

    def untold(self, device: DeviceSpec, why: str) -> None:
        """A device that no worker can be told of: it cannot send before its row is another one."""
        queue = self.by_id.get(device.id)
        if queue is not None and queue.device.spec == device:
            queue.untold = why

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        if faulty := [queue for queue in self.by_id.values() if queue.fault is not None]:
            devices = "1 device has a row" if len(faulty) == 1 else f"{len(faulty):,} devices have rows"
            yield Problem(
                ProblemKind.DEVICE, f"{devices} with which it cannot send; {faulty[0].device.id}: {faulty[0].fault}"
            )
        if idle := [queue for queue in self.by_id.values() if queue.idle_since is not None and queue.idle_for >= IDLE]:
            first = max(idle, key=lambda queue: queue.idle_for)
            devices = "1 device" if len(idle) == 1 else f"{len(idle):,} devices"
            yield Problem(
                ProblemKind.DEVICE,
                f"{devices} could send jobs at once and got none; {first.device.id}: for {first.idle_for:.0f} s. Somebody's "
                "transaction may keep their rows locked (pg_stat_activity, pg_locks); if not, it is a defect of shardd: please "
                "report it, with the log",
            )

    def scanned(self, found: Collection[str], now: float) -> None:
        """A scan is over, which found jobs of these devices and has hinted at them: watch for devices that do nothing."""
        for queue in self.by_id.values():
            if queue.device.id not in found or now < queue.served_at + IDLE or not self._could_send(queue, now):
                queue.idle_since = None
            elif queue.idle_since is None:
                queue.idle_since, queue.idle_for = now, 0.0
            else:
                queue.idle_for = now - queue.idle_since

    def _could_send(self, queue: DeviceQueue, now: float) -> bool:
        # A device that waits for a later time was looked at when it was hinted at.
        if (queue.due is not None and queue.due > now) or not self._can_send(queue) or self.rest_of(queue) > now:
            return False
        return self._choose(queue, now)[0] is not None

    def repace(self, now: float) -> None:
        """The config's limits have changed."""
        for queue in self.by_id.values():
            self._set_up(queue, queue.device)
            self._offer(queue, now)

    def shard_up(self, shard: int, epoch: int, now: float) -> None:
        """A shard's worker takes jobs."""
        self._epochs[shard] = epoch
        for queue in self.of_shard(shard):
            self._offer(queue, now)

    def shard_down(self, shard: int) -> None:
        """A shard's worker takes no more jobs."""
        self._epochs.pop(shard, None)

    def of_shard(self, shard: int) -> list[DeviceQueue]:
        """The scheduler of a shard."""
        return [queue for queue in self.by_id.values() if queue.shard == shard]

    def is_up(self, queue: DeviceQueue) -> bool:
        """Whether its shard takes jobs."""
        return queue.shard in self._epochs

    def hint(self, device_id: str, lane: str, position: Position, now: float) -> None:
        """There may be work for this device, at this position of this lane or after it."""
        queue = self.by_id.get(device_id)
        if queue is None:
            return
        queue.lane(lane).hint(position)
        if len(queue.lanes) >= TRIM_AT:
            queue.trim(self.campaigns, now, self._ahead)
        self._offer(queue, now)

    # ---- turns

    def next_requests(self, most: int, now: float) -> list[ClaimRequest]:
        """The lanes whose turn it is, for up to `most` jobs; one of each device."""
        self._ready.come(now)
        requests: list[ClaimRequest] = []
        room = most
        while room > 0 and (queue := self._ready.take()) is not None:
            if not self._can_send(queue):
                continue
            lane, at = (None, self.rest_of(queue)) if self.rest_of(queue) > now else self._choose(queue, now)
            if lane is None:
                self._ready.wait(queue, at)
                continue
            lane.fresh, lane.asked = None, True
            take = min(room, self._free(queue))
            # What stands behind matters only to the choice among lanes.
            peek = take == 1 and queue.has_choice
            requests.append(ClaimRequest(queue.device.id, lane.name, self._epochs[queue.shard], lane.low, take, peek))
            room -= take
        return requests

    def claimed(self, requests: Iterable[ClaimRequest], taken: Iterable[ClaimedJob], now: float) -> None:
        """What the requests brought."""
        got: dict[tuple[str, str], list[ClaimedJob]] = {}
        for job in taken:
            got.setdefault((job.claim.device_id, job.claim.lane), []).append(job)
            queue = self.by_id.get(job.claim.device_id)
            if queue is not None:
                queue.serve(queue.lane(job.claim.lane), self.campaigns)
                queue.served_at, queue.idle_since = now, None
        for request in requests:
            queue = self.by_id.get(request.device_id)
            if queue is None:
                continue
            jobs = got.get((request.device_id, request.lane), [])
            then = jobs[-1].next if jobs else None
            more = then is not None if request.peek else len(jobs) >= request.room
            lane = queue.lane(request.lane)
            lane.asked = False
            lane.answered([(job.claim.ord, job.claim.id) for job in jobs], more=more, then=then)
            queue.forget_empty_lanes()
            self._offer(queue, now)

    def unrequested(self, requests: Iterable[ClaimRequest], now: float) -> None:
        """The claim failed: nothing is known about these lanes."""
        for request in requests:
            queue = self.by_id.get(request.device_id)
            if queue is not None:
                lane = queue.lane(request.lane)
                lane.has_work, lane.asked = True, False
                self._offer(queue, now)

    def refused(self, request: ClaimRequest, until: float) -> None:
        """The database refuses to claim from this lane: it is left alone until a moment, whatever is said of its work."""
        queue = self.by_id.get(request.device_id)
        if queue is not None:
            queue.refused[request.lane] = until

    def regained(self, claim: Claim) -> None:
        """A claim that the database knows and nobody here: it is in flight."""
        queue = self.by_id.get(claim.device_id)
        if queue is not None:
            queue.in_flight += 1
            queue.lane(claim.lane).in_flight += 1

    def ended(self, claim: Claim, outcome: Outcome, now: float, *, back: bool) -> None:
        """A claim ended; `back`: its job returns to the queue at once."""
        queue = self.by_id.get(claim.device_id)
        if queue is None:
            return
        lane = queue.lane(claim.lane)
        queue.in_flight, lane.in_flight = max(0, queue.in_flight - 1), max(0, lane.in_flight - 1)
        verdict = Verdict(outcome.verdict)
        if verdict in MAY_HAVE_LEFT and (queue.pace.limited or lane.campaign):
            queue.count(lane.campaign, datetime.fromtimestamp(now + self._ahead, UTC), self.campaigns)
        if verdict is Verdict.UNAVAILABLE:
            self._trouble(queue, lane.job_class, outcome, now)
        elif verdict not in NOTHING_LEFT:
            queue.troubles = 0
            if queue.pace.free:
                queue.tally.ended = now
            else:
                queue.tally.end(now, queue.pace, lane.job_class)
        if back:
            lane.hint((claim.ord, claim.id))
        self._offer(queue, now)

    def seconds_until_next(self, now: float) -> float | None:
        """Seconds until somebody's turn; None when nobody waits for one."""
        return self._ready.seconds(now)

    def outlook(self, queue: DeviceQueue, now: float) -> dict[str, NextSend]:
        """By class, when a job may be sent and what it waits for, the device's state aside."""
        rest = self.rest_of(queue)
        turns = {}
        for job_class in CLASSES:
            turn = queue.turn_of(Lane.named(f"/{job_class}"), self.campaigns, now, self._ahead)
            turns[job_class] = NextSend(rest, queue.trouble or OF_ACCOUNT) if rest > turn.at else turn
        return turns

    def backing_off_after(self, queue: DeviceQueue, now: float) -> str | None:
        """The error after which the device, or its account, is not used for a while; None: it is not backing off."""
        return (queue.trouble or OF_ACCOUNT) if self.rest_of(queue) > now else None

    def resting(self, now: float) -> list[tuple[DeviceQueue, str]]:
        """Devices that could send what they have, were they not backing off, and the error."""
        found = ((queue, self.backing_off_after(queue, now)) for queue in self.by_id.values())
        return [(queue, error) for queue, error in found if error is not None and self._can_send(queue)]

    def held_back(self, now: float) -> list[str]:
        """Devices that are backing off, or that may send nothing for longer than any gap: at a limit, or in quiet hours."""
        return [device_id for device_id, queue in self.by_id.items() if self._is_held_back(queue, now)]

    def _is_held_back(self, queue: DeviceQueue, now: float) -> bool:
        if self.rest_of(queue) > now:
            return True
        if queue.pace.free or queue.due == READY or queue.in_flight:
            return False
        soon = now + queue.pace.longest_gap
        if self.is_up(queue):
            return queue.due is not None and queue.due > soon
        # Another node's, or one whose shard is down: which lanes have work is not known here.
        turns = (queue.turn_of(Lane.named(f"/{each}"), self.campaigns, now, self._ahead) for each in CLASSES)
        return all(turn.at > soon for turn in turns)

    def turn_at(self, queue: DeviceQueue, lane: str, now: float) -> float:
        """When a job of this lane might be sent, the device's state aside."""
        turn = queue.turn_of(Lane.named(lane), self.campaigns, now, self._ahead)
        return max(turn.at, self.rest_of(queue))

    def left_of(self, queue: DeviceQueue, lane: str, now: float) -> float:
        """How many more jobs of this lane its limits leave in this hour."""
        known = queue.lanes.get(lane) or Lane.named(lane)
        return queue.left(known, self.campaigns, datetime.fromtimestamp(now + self._ahead, UTC))

    # ----

    def _new_queue(self, device: Device, state: DeviceState) -> DeviceQueue:
        queue = DeviceQueue(device, self._shard_of(device.id), self._pace_of(device), 1, state)
        self._set_up(queue, device)
        return queue

    def _set_up(self, queue: DeviceQueue, device: Device) -> None:
        """Take over the device's row; its limits hold at once, also for the gap that is running."""
        queue.device = device
        queue.pace, queue.room, queue.account = (
            self._pace_of(device),
            self._in_flight_of(device.transport),
            self._account_of(device),
        )

    def rest_of(self, queue: DeviceQueue) -> float:
        """Until when the device, or the account that it belongs to, is not used."""
        return max(queue.trouble_ends, self._rests.get(queue.account, 0.0)) if queue.account else queue.trouble_ends

    def _trouble(self, queue: DeviceQueue, job_class: str, outcome: Outcome, now: float) -> None:
        if outcome.device_state is not None:
            queue.state = DeviceState(outcome.device_state)
            queue.tally.end(now, queue.pace, job_class)
            return
        queue.troubles += 1
        wait = outcome.retry_after
        queue.trouble_ends = now + (full_jitter(queue.troubles, TROUBLE_FIRST, TROUBLE_CAP) if wait is None else wait)
        queue.trouble = outcome.error
        if outcome.whole_account and queue.account is not None:
            self._rests[queue.account] = max(self._rests.get(queue.account, 0.0), queue.trouble_ends)

    def _can_send(self, queue: DeviceQueue) -> bool:
        return (
            queue.has_work
            and self._free(queue) > 0
            and queue.can_send
            and queue.shard in self._epochs
            and self.by_id.get(queue.device.id) is queue
        )

    @staticmethod
    def _free(queue: DeviceQueue) -> int:
        """How many more jobs the device may have in flight: with limits one at a time, since the next may be one too many."""
        if queue.room == 1 or queue.pace.has_gap:
            return 1 - queue.in_flight
        if queue.pace.limited or any(lane.campaign for lane in queue.lanes.values()):
            return min(1, queue.room - queue.in_flight)
        return queue.room - queue.in_flight

    def _choose(self, queue: DeviceQueue, now: float) -> tuple[Lane | None, float]:
        return queue.choose(self.campaigns, now, self._ahead)

    def _offer(self, queue: DeviceQueue, now: float) -> None:
        """Give a device that can send its position in the turns, or note when it can."""
        if queue.due == READY or not self._can_send(queue):
            return
        rest = self.rest_of(queue)
        at = rest if rest > now else self._choose(queue, now)[1]
        if at > now:
            self._ready.wait(queue, at)
        else:
            self._ready.add(queue)
