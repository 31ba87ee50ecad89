"""Which devices may send now: the devices of a node, and the order in which they are claimed for.

A device is claimed for when its shard runs, its state allows it, it has room in flight and one of its lanes may send (see
`DeviceQueue`). Devices are served round robin, so one with a million jobs waits like one with a single job. What is known about
work is only a hint: one too many costs an empty claim, one too few is made up for by the next scan.

No I/O and no clock of its own: times are seconds of the caller's monotonic clock.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from shardd.ipc import Clients, Devices, DeviceSpec, Outcome
from shardd.pacing import DevicePace
from shardd.queue.records import Campaign, ClaimedJob, ClaimRequest, Device, Position, Send, StateChange
from shardd.queue.settle import Claim
from shardd.states import CAN_SEND, DEVICE_TRANSITIONS, MAY_HAVE_LEFT, DeviceState, Verdict
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.scheduling.census import Census
from shardd.supervisor.scheduling.device_queue import TRIM_AT, DeviceQueue, Refusal, SharedState
from shardd.supervisor.scheduling.openings import Openings
from shardd.supervisor.scheduling.ready_queue import READY, ReadyQueue

IDLE: Final = 15.0
"""Seconds for which a device that could send gets nothing before that is a problem: thousands may precede it."""
UNUSED: Final = frozenset({Verdict.RETURNED, Verdict.EXPIRED, Verdict.OPTED_OUT})
"""Verdicts after which no gap begins: the device was not used."""
NO_SHARD: Final = -1
"""Shard of a device that does not exist any more."""
FOREVER: Final = 1e9
"""Seconds that stand for a wait without a known end: PostgreSQL has no infinite interval before version 17."""


class Scheduler:
    """All devices of the database; only those of running shards are claimed for."""

    def __init__(
        self,
        *,
        shard_of: Callable[[str], int],
        pace_of: Callable[[Device], DevicePace],
        in_flight_of: Callable[[str], int],
        account_of: Callable[[Device], str | None],
    ) -> None:
        """`shard_of` a device id, `pace_of` a device, `in_flight_of` a transport's name.

        `account_of` a device: the account whose rate limit it shares.
        """
        self._shard_of = shard_of
        self._pace_of = pace_of
        self._in_flight_of = in_flight_of
        self._account_of = account_of
        self._shared = SharedState()
        self._epochs: dict[int, int] = {}
        """By running shard."""
        self._openings: defaultdict[int, Openings] = defaultdict(Openings)
        """By shard."""
        self._ready = ReadyQueue()
        self._restated: set[str] = set()
        self.queues: dict[str, DeviceQueue] = {}
        """By device id."""
        self.census = Census()

    # ---- devices, campaigns and shards

    def set_devices(
        self, devices: Iterable[Device], now: float, *, wall: float, unwritten: Mapping[str, StateChange]
    ) -> dict[int, Devices]:
        """Take over all devices as the database has them; see `change_devices`."""
        rows = list(devices)
        gone = self.queues.keys() - {device.id for device in rows}
        return self.change_devices(rows, gone, now, wall=wall, unwritten=unwritten)

    def change_devices(
        self,
        devices: Iterable[Device],
        gone: Iterable[str],
        now: float,
        *,
        wall: float,
        unwritten: Mapping[str, StateChange],
    ) -> dict[int, Devices]:
        """Take over some devices as the database has them; returns what the worker of each shard must learn.

        `gone`: those that were removed. `unwritten`: states that are known here and not in the database yet. `wall`: this moment
        in POSIX seconds.
        """
        self._shared.clock_offset = wall - now
        changes: dict[int, Devices] = {}
        for device in devices:
            queue = self.queues.get(device.id)
            is_new = queue is None
            state = unwritten[device.id].state if device.id in unwritten else device.state
            if queue is None:
                queue = DeviceQueue(device, self._shard_of(device.id), state, self._shared)
                self.queues[device.id] = queue
                self._apply_row(queue, device)
                changes.setdefault(queue.shard, Devices()).changed.append(device.spec)
            elif queue.device != device:
                if respecified := queue.device.spec != device.spec:
                    queue.undeliverable = None
                    changes.setdefault(queue.shard, Devices()).changed.append(device.spec)
                self._apply_row(queue, device)
                if respecified or (state in CAN_SEND and queue.state not in CAN_SEND):
                    queue.end_backoff(now)
            if is_new or queue.shard not in self._epochs or (state in CAN_SEND and queue.state not in CAN_SEND):
                # Another process sent for it, another node, or the region that it came from: only the database has the counts.
                queue.merge_counts(device, now)
            if device.day == queue.tally.day:
                # The count grows with the config's warm-up, and a warm-up can be restarted.
                queue.tally.days = device.days
            queue.state = state
            self.census.note(queue)
            self._offer(queue, now)
        for device_id in gone:
            if (queue := self.queues.pop(device_id, None)) is not None:
                self.census.forget(device_id)
                self._openings[queue.shard].forget(device_id)
                changes.setdefault(queue.shard, Devices()).removed.append(device_id)
        return changes

    def _apply_row(self, queue: DeviceQueue, device: Device) -> None:
        """Use a new row of the device; its limits apply at once, also to a gap that is running."""
        queue.device = device
        if device.backoff_until is not None:
            queue.wait_until(device.backoff_until.timestamp() - self._shared.clock_offset, device.backoff_reason)
            self.census.watch(queue)
        queue.pace = self._pace_of(device)
        queue.room = self._in_flight_of(device.transport)
        queue.account = self._account_of(device)

    @property
    def campaigns(self) -> Mapping[str, Campaign]:
        """The running campaigns, by id."""
        return self._shared.campaigns

    def set_campaigns(self, campaigns: Mapping[str, Campaign], now: float) -> None:
        """The running campaigns."""
        if campaigns == self._shared.campaigns:
            return
        self._shared.campaigns = campaigns
        for queue in self.queues.values():
            if any(lane.campaign for lane in queue.lanes.values()):
                self._offer(queue, now)

    def state_changed(self, change: StateChange) -> bool:
        """A worker found a device in another state; False: a report cannot cause that transition, and is ignored."""
        if (queue := self.queues.get(change.device_id)) is not None:
            if change.state is not queue.state and change.state not in DEVICE_TRANSITIONS[queue.state]:
                return False
            queue.state = change.state
            self.census.note(queue)
        return True

    def take_restated(self) -> set[str]:
        """Devices whose state an outcome changed since the last call: it may be only their worker's, so their rows are read."""
        restated, self._restated = self._restated, set()
        return restated

    def back_off(self, device_id: str, until: float, error: str, *, whole_account: bool) -> list[str]:
        """A platform reported why a device cannot send until a moment; returns the ids of the devices that wait."""
        queue = self.queues.get(device_id)
        if queue is None:
            return []
        together = [queue]
        if whole_account and queue.account is not None:
            together = [other for other in self.queues.values() if other.account == queue.account]
        for one in together:
            one.wait_until(until, error)
            self.census.watch(one)
        return [one.device.id for one in together]

    def undeliverable(self, device: DeviceSpec, why: str) -> None:
        """A device's row cannot be sent to its worker: the device cannot send before its row changes."""
        queue = self.queues.get(device.id)
        if queue is not None and queue.device.spec == device:
            queue.undeliverable = why
            self.census.note(queue)

    def limits_changed(self, now: float) -> None:
        """The config's limits have changed."""
        for queue in self.queues.values():
            self._apply_row(queue, queue.device)
            self._offer(queue, now)

    def shard_up(self, shard: int, epoch: int, now: float) -> None:
        """A shard's worker takes jobs."""
        self._epochs[shard] = epoch
        for queue in self.of_shard(shard):
            self._offer(queue, now)

    def shard_down(self, shard: int) -> None:
        """A shard's worker takes no more jobs."""
        self._epochs.pop(shard, None)

    def clients_changed(self, shard: int, report: Clients, now: float) -> None:
        """A shard's worker opened or closed clients, or can open more or fewer at a time."""
        openings = self._openings[shard]
        if report.anew:
            openings.reset()
        for queue in openings.report(report.opened, report.closed, report.openings):
            self._offer(queue, now)
        self._offer_held(openings, now)

    def of_shard(self, shard: int) -> list[DeviceQueue]:
        """The devices of a shard."""
        return [queue for queue in self.queues.values() if queue.shard == shard]

    def shard_of(self, device_id: str) -> int:
        """The shard of a device, or NO_SHARD."""
        queue = self.queues.get(device_id)
        return NO_SHARD if queue is None else queue.shard

    @property
    def up(self) -> frozenset[int]:
        """The shards that take jobs."""
        return frozenset(self._epochs)

    def is_up(self, queue: DeviceQueue) -> bool:
        """Whether its shard takes jobs."""
        return queue.shard in self._epochs

    # ---- work

    def hint(self, device_id: str, lane: str, position: Position, now: float) -> None:
        """There may be work for this device, at this position of this lane or after it."""
        queue = self.queues.get(device_id)
        if queue is None:
            return
        queue.lane(lane).hint(position)
        if len(queue.lanes) >= TRIM_AT:
            queue.trim(now)
        self._offer(queue, now)

    def seconds_until_next(self, now: float) -> float | None:
        """Seconds until something can be claimed; None: nothing waits."""
        return self._ready.seconds_until_next(now)

    def next_requests(self, most: int, now: float) -> list[ClaimRequest]:
        """What to claim now, up to `most` jobs: one lane of each device."""
        requests: list[ClaimRequest] = []
        room = most
        while room > 0 and (queue := self._ready.take(now)) is not None:
            if not self._is_waiting(queue):
                self._end_opening(queue, now)
                continue
            lane, at = queue.choose(now)
            if lane is None:
                self._ready.add(queue, at)
                self._end_opening(queue, now)
                continue
            if not self._openings[queue.shard].admit(queue):
                continue
            lane.hinted, lane.claiming, queue.claiming = None, True, True
            take = min(room, queue.free_room)
            # The next job matters only to the choice between lanes.
            peek = take == 1 and queue.has_choice
            requests.append(ClaimRequest(queue.device.id, lane.name, self._epochs[queue.shard], lane.low, take, peek))
            room -= take
        return requests

    def claimed(self, requests: Iterable[ClaimRequest], jobs: Iterable[ClaimedJob], now: float) -> None:
        """These requests were answered with these claimed jobs."""
        got: dict[tuple[str, str], list[ClaimedJob]] = {}
        for job in jobs:
            got.setdefault((job.claim.device_id, job.claim.lane), []).append(job)
            if (queue := self.queues.get(job.claim.device_id)) is not None:
                queue.claimed(job.claim.lane, now)
        for request in requests:
            queue = self.queues.get(request.device_id)
            if queue is None:
                continue
            queue.claiming = False
            found = got.get((request.device_id, request.lane), [])
            then = found[-1].next if found else None
            more = then is not None if request.peek else len(found) >= request.room
            queue.lane(request.lane).answered([(job.claim.ord, job.claim.id) for job in found], more=more, then=then)
            if (refusal := queue.refused.get(request.lane)) is not None and refusal.until <= now:
                del queue.refused[request.lane]
            queue.forget_empty_lanes()
            self._end_opening(queue, now)
            self._offer(queue, now)

    def claim_failed(self, requests: Iterable[ClaimRequest], now: float) -> None:
        """The database did not answer these requests: their lanes may still have work."""
        for request in requests:
            if (queue := self.queues.get(request.device_id)) is not None:
                lane = queue.lane(request.lane)
                lane.has_work, lane.claiming, queue.claiming = True, False, False
                self._end_opening(queue, now)
                self._offer(queue, now)

    def claim_refused(self, request: ClaimRequest, until: float, error: str) -> None:
        """The database refuses to claim from this lane: it is left alone until a moment, whatever is hinted."""
        if (queue := self.queues.get(request.device_id)) is not None:
            queue.refused[request.lane] = Refusal(until, error)
            self.census.watch(queue)

    def found_in_flight(self, claim: Claim) -> None:
        """A claim that only the database knew of."""
        if (queue := self.queues.get(claim.device_id)) is not None:
            queue.in_flight += 1
            queue.lane(claim.lane).in_flight += 1

    def ended(self, claim: Claim, outcome: Outcome, now: float, *, back: bool) -> None:
        """A claim ended; `back`: its job returns to the queue at once."""
        queue = self.queues.get(claim.device_id)
        if queue is None:
            return
        lane = queue.lane(claim.lane)
        queue.in_flight, lane.in_flight = max(0, queue.in_flight - 1), max(0, lane.in_flight - 1)
        verdict = Verdict(outcome.verdict)
        if verdict in MAY_HAVE_LEFT and (queue.pace.limited or lane.campaign):
            queue.count(lane.campaign, now)
        if verdict is Verdict.UNAVAILABLE and outcome.device_state is not None:
            queue.state = DeviceState(outcome.device_state)
            self.census.note(queue)
            self._restated.add(claim.device_id)
            queue.tally.end(now, queue.pace, lane.job_class)
        elif verdict is Verdict.UNAVAILABLE:
            queue.back_off(outcome, now)
            self.census.watch(queue)
        elif verdict not in UNUSED:
            queue.failures = 0
            if queue.pace.free:
                queue.tally.ended = now
            else:
                queue.tally.end(now, queue.pace, lane.job_class)
        if back:
            lane.hint((claim.ord, claim.id))
        self._end_opening(queue, now)
        self._offer(queue, now)

    def sends_again_in(self, device_id: str) -> float | None:
        """The longest gap after which this device may send again; None: it has none, or is not known to have more work."""
        queue = self.queues.get(device_id)
        return queue.pace.longest_gap or None if queue is not None and queue.has_work else None

    def send_to_count(self, claim: Claim, outcome: Outcome) -> Send | None:
        """What the database must count of a claim that ended, for the limits or a campaign's cap; None: nothing."""
        queue = self.queues.get(claim.device_id)
        if outcome.verdict not in MAY_HAVE_LEFT or queue is None:
            return None
        capped = self._shared.may_be_capped(claim.campaign)
        if not capped and not queue.pace.limited:
            return None
        return Send(claim.device_id, outcome.at, queue.pace.zone, claim.campaign if capped else "")

    def _is_waiting(self, queue: DeviceQueue) -> bool:
        """Whether it would be claimed for, its pace and backoff permitting."""
        return (
            queue.has_work
            and not queue.claiming
            and queue.free_room > 0
            and queue.can_send
            and queue.shard in self._epochs
            and self.queues.get(queue.device.id) is queue
        )

    def _end_opening(self, queue: DeviceQueue, now: float) -> None:
        """Its client is open, or it does not open one now: if nothing of it is in flight, another device may."""
        if queue.in_flight == 0:
            openings = self._openings[queue.shard]
            openings.end(queue.device.id)
            self._offer_held(openings, now)

    def _offer_held(self, openings: Openings, now: float) -> None:
        while (queue := openings.next()) is not None:
            self._offer(queue, now)
            if queue.due != READY:
                openings.end(queue.device.id)

    def _offer(self, queue: DeviceQueue, now: float) -> None:
        """Add a device that waits to the ready queue, with the time at which it may send."""
        if queue.due != READY and self._is_waiting(queue):
            at = queue.choose(now)[1]
            self._ready.add(queue, at if at > now else READY)

    # ---- what others want to know

    def scanned(self, found: Collection[str], now: float) -> None:
        """A scan found jobs of these devices and has hinted at them: look for devices that could send and do not."""
        for queue in self.census.watched:
            if queue.device.id not in found:
                queue.idle_since = None
        self.census.prune(now)
        for queue in filter(None, map(self.queues.get, found)):
            if now < queue.served_at + IDLE or not self._could_send(queue, now):
                queue.idle_since = None
            elif queue.idle_since is None:
                queue.idle_since, queue.idle_for = now, 0.0
                self.census.watch(queue)
            else:
                queue.idle_for = now - queue.idle_since
        for openings in self._openings.values():
            openings.look(now)

    def waits_to_open(self, queue: DeviceQueue) -> int | None:
        """If a device waits because its worker can open no more clients at a time: how many do; otherwise None."""
        openings = self._openings.get(queue.shard)
        return openings.held if openings is not None and openings.holds(queue) else None

    def _could_send(self, queue: DeviceQueue, now: float) -> bool:
        # A device that waits for a later time was examined when it was hinted at.
        if (queue.due is not None and queue.due > now) or self.waits_to_open(queue) is not None:
            return False
        return self._is_waiting(queue) and queue.choose(now)[0] is not None

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        queues = self.census.watched
        if faulty := [queue for queue in queues if queue.fault is not None]:
            devices = "1 device has a row" if len(faulty) == 1 else f"{len(faulty):,} devices have rows"
            yield Problem(
                ProblemKind.DEVICE, f"{devices} with which it cannot send; {faulty[0].device.id}: {faulty[0].fault}"
            )
        if idle := [queue for queue in queues if queue.idle_since is not None and queue.idle_for >= IDLE]:
            first = min(idle, key=lambda queue: (-queue.idle_for, queue.device.id))
            devices = "1 device" if len(idle) == 1 else f"{len(idle):,} devices"
            yield Problem(
                ProblemKind.DEVICE,
                f"{devices} could send jobs at once and got none; {first.device.id}: for {first.idle_for:.0f} s. Another "
                "transaction may hold locks on their rows (pg_stat_activity, pg_locks); otherwise it is a defect of shardd: "
                "please report it, with the log",
            )
        if (
            still := max(self._openings.values(), key=lambda each: each.still_for, default=None)
        ) and still.still_for >= IDLE:
            yield Problem(
                ProblemKind.DEVICE,
                f"{still.held:,} devices of a shard wait for a client, and their worker has opened none for "
                f"{still.still_for:.0f} s: all that it may open are in use, or connecting",
            )
        refused = [(queue.device.id, lane, each.error) for queue in queues for lane, each in queue.refused.items()]
        if refused:
            device, lane, error = refused[0]
            more = f" and {len(refused) - 1:,} more lanes" if len(refused) > 1 else ""
            yield Problem(
                ProblemKind.REFUSED,
                f"the database refuses to claim the jobs of {device}, {lane.lstrip('/')} ({error}){more}: the jobs wait, and the "
                "claim is retried",
            )

    def backing_off(self, now: float) -> list[tuple[DeviceQueue, str]]:
        """Devices that could send what they have if they were not backing off, with the error."""
        limited = any(until > now for until in self._shared.rate_limited_until.values())
        candidates = self.queues.values() if limited else self.census.watched
        found = ((queue, queue.backing_off_after(now)) for queue in candidates)
        return [(queue, error) for queue, error in found if error is not None and self._is_waiting(queue)]

    def held_up(self, down: Mapping[int, str]) -> dict[str, str]:
        """The devices of these shards, with what is said of theirs."""
        return {device_id: down[queue.shard] for device_id, queue in self.queues.items() if queue.shard in down}

    def opens(self, now: float) -> dict[str, float]:
        """In how many seconds each device may send again, by id; negative: since when it may.

        Devices that neither wait nor have a gap are left out. A gap counts as its longest; single lanes may wait longer.
        """
        found = ((device_id, self._opens_at(queue, now)) for device_id, queue in self.queues.items())
        return {device_id: min(at - now, FOREVER) for device_id, at in found if at is not None}

    def _opens_at(self, queue: DeviceQueue, now: float) -> float | None:
        if queue.backoff_until > now:
            return queue.backoff_until
        if queue.pace.free:
            return None
        gap = queue.tally.ended + queue.pace.longest_gap if queue.pace.has_gap else -math.inf
        if self.is_up(queue):
            # With a time of its own it waits, also for a limit or quiet hours; otherwise it may send, or is sending.
            at = gap if queue.due is None or queue.due == READY else max(gap, queue.due)
        else:
            # Another node's, or one whose shard is down: which lanes have work is unknown here.
            soonest = min(each.at for each in queue.next_by_class(now).values())
            at = soonest if soonest > now + queue.pace.longest_gap else gap
        return None if at == -math.inf else at
