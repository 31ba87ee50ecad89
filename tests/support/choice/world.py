"""Simulates devices, producers, operators and time around the real scheduler and group assigner, checked by a referee.

Steps are sequential; between a claim request and its result other steps may happen, as in production.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from shardd.ipc import Outcome
from shardd.queue.cycle import Cycle, Settlement
from shardd.queue.records import ClaimRequest, Position, Send, WorkHint, count_sends
from shardd.queue.settle import Claim, Finish, JobBackoff, Release, settle
from shardd.states import MAY_HAVE_LEFT, DeviceState, Verdict
from shardd.supervisor.scheduling.groups import FIRST_POOL, GroupAssigner
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.services import Step
from tests.support.choice.book import LEFT, NOT_TRIED, Book, Job, Take, Try, local
from tests.support.choice.judge import MOMENT
from tests.support.choice.queue import MemoryQueue
from tests.support.choice.referee import Referee

REST = 20.0
"""Seconds for which an unreachable device is not used."""
WARM_DAYS = 5


Entry = tuple[Claim, Outcome, Finish | Release]


@dataclass
class Hand:
    """A claim in flight since a moment in POSIX seconds."""

    claim: Claim
    start: float


class World:
    """One history."""

    def __init__(self, book: Book, queue: MemoryQueue, wall: float) -> None:
        self.book, self.queue, self.referee = book, queue, Referee(book)
        self.now = 1000.0
        self.ahead = wall - self.now
        self.ids = 0
        self.hands: dict[int, Hand] = {}
        self.pending: list[Entry] = []
        self.batch: list[Entry] = []
        """The entries that the current cycle settles."""
        self.flight: list[ClaimRequest] | None = None
        self.cycle: Cycle | None = None
        """The result of the current cycle, once the database has committed it."""
        self.weights: dict[str, float] = {}
        """The campaigns that the scheduler knows."""

    # ---- time and restarts

    @property
    def wall(self) -> float:
        return self.now + self.ahead

    def pass_time(self, seconds: float) -> None:
        before = self.wall
        self.now += seconds
        self.queue.wall = self.wall
        for job in self.book.live():
            if job.device is not None and job.is_late(self.wall) and not job.is_late(before):
                self.referee.lost(job.device, job.lane)

    async def start(self) -> None:
        """A restarted supervisor."""
        self.scheduler = Scheduler(
            shard_of=lambda name: self.book.senders[name].shard,
            pace_of=lambda device: self.book.senders[device.id].pace,
            in_flight_of=lambda transport: int(transport.rpartition("-")[2]),
            account_of=lambda _: None,
        )
        self.group_assigner = GroupAssigner(
            cast("Any", self.queue), self.scheduler, self._hint_all, Step("sharing out"),
            may_assign=lambda: True, every=lambda: 1.0,
        )  # fmt: skip
        self.referee.vague, self.referee.blind = {}, set()
        self.book.takes.clear()
        await self.look()
        await self.look_at_campaigns()
        for shard in sorted(self.book.up):
            self.scheduler.shard_up(shard, await self.queue.take_epoch(shard), self.now)
        await self.scan()

    async def restart(self, lost: Verdict) -> None:
        """Settle what was in flight from the journals, before anything else; the monotonic clock restarts."""
        if self.flight is not None:
            await self.answer()
        for job_id in list(self.hands):
            await self.end(job_id, lost)
        await self.write()
        self.book.tries[:] = [replace(one, before_restart=True) for one in self.book.tries]
        for sender in self.book.senders.values():
            sender.rests_until = 0.0
        self.ahead, self.now = self.wall - 5000.0, 5000.0
        await self.start()

    # ---- input of the scheduler

    async def look(self) -> None:
        devices = [
            replace(row, transport=f"room-{self.book.senders[row.id].room}")
            for row in await self.queue.devices(WARM_DAYS)
        ]
        self.scheduler.set_devices(devices, self.now, wall=self.wall, unwritten={})

    async def look_at_campaigns(self) -> None:
        """Pass the campaigns on, as `CampaignSync` does."""
        running = await self.queue.running()
        for campaign, name, day, sent in await self.queue.sends():
            self.scheduler.queues[name].note_campaign_sends(campaign, day, sent)
        self.weights |= {name: campaign.weight for name, campaign in running.items()}
        resumed = running.keys() - self.scheduler.campaigns.keys()
        self.scheduler.set_campaigns(running, self.now)
        self.referee.told = True
        if resumed:
            await self.scan()

    async def scan(self) -> None:
        if self.flight is None:
            await self.write()
        self._hint_all(await self.queue.find_work())
        self.referee.blind.clear()

    async def expire(self) -> None:
        """Remove expired jobs from their lanes."""
        for job in await self.queue.expire():
            if job.device is not None:
                self.referee.lost(job.device, job.lane)

    async def promote(self) -> None:
        self._hint_all(await self.queue.promote_due())

    def _hint_all(self, hints: Sequence[WorkHint]) -> None:
        for name, lane, place in hints:
            self.hint(name, lane, place)

    def hint(self, name: str, lane: str, place: Position) -> None:
        if self.flight is not None:
            self.referee.hinted.add((name, lane, place))
        self.scheduler.hint(name, lane, place, self.now)
        if self.book.jobs[place[1]].is_late(self.wall):
            self.referee.lost(name, lane)

    async def insert(self, jobs: list[Job], *, heard: bool = True) -> None:
        """A producer's INSERT; `heard`: the scheduler gets a hint."""
        await self.queue.insert(jobs)
        for job in jobs:
            if job.device is None or not job.stands_in_line:
                continue
            if heard:
                self.hint(job.device, job.lane, job.place)
            else:
                self.referee.blind.add(job.device)

    def next_id(self) -> int:
        self.ids += 1
        return self.ids

    # ---- the cycle

    def ask(self, most: int) -> None:
        due = self.referee.due(self.wall)
        if due:
            assert self.scheduler.seconds_until_next(self.now) == 0.0, "somebody may send, and nobody's turn is now"
        self.flight = self.scheduler.next_requests(most, self.now)
        self.batch, self.pending = self.pending, []
        self.referee.see_asks(self.flight, most, due, self.wall)

    async def claim(self) -> None:
        """The database executes the cycle; its result is not known yet."""
        requests = self.flight or []
        batch, self.batch = self.batch, []
        found = {ask.device_id: bool(self.queue.claimable(ask)) for ask in requests}
        self.cycle = cycle = await self.queue.cycle(self._settlement(batch), requests)
        assert {claim.id for claim, _, _ in batch} == cycle.settled
        hinted = {hint for hint in cycle.advanced if hint[0]}
        self.referee.hinted |= hinted
        for job in cycle.claimed:
            claim = job.claim
            self.book.takes.append(Take(claim.device_id, claim.campaign, self.weights.get(claim.campaign, 1.0)))
            self.referee.see_taken(job, self.wall)
        self.referee.hinted -= hinted
        for ask in requests:
            taken = any((job.claim.device_id, job.claim.lane) == (ask.device_id, ask.lane) for job in cycle.claimed)
            assert taken or not found[ask.device_id], "a claim that found nothing"
            self.referee.see_claim(ask)

    async def answer(self) -> None:
        """The cycle's result arrives."""
        if self.cycle is None:
            await self.claim()
        cycle, self.cycle = self.cycle, None
        assert cycle is not None
        requests, self.flight = self.flight or [], None
        self.scheduler.claimed(requests, cycle.claimed, self.now)
        for job in cycle.claimed:
            self.hands[job.claim.id] = Hand(job.claim, self.wall)
        for ask in requests:
            taken = [job for job in cycle.claimed if (job.claim.device_id, job.claim.lane) == (ask.device_id, ask.lane)]
            self.referee.see_answer(ask, taken, self.wall)
        self._hint_all(cycle.advanced)
        for job in cycle.claimed:
            if job.opted_out:
                await self.end(job.claim.id, Verdict.OPTED_OUT)

    async def fail(self) -> None:
        """The database failed and changed nothing."""
        requests, self.flight = self.flight or [], None
        self.pending, self.batch = self.batch + self.pending, []
        self.scheduler.claim_failed(requests, self.now)

    async def end(self, job_id: int, verdict: Verdict, **more: Any) -> None:
        """An outcome from a worker."""
        hand = self.hands.pop(job_id)
        claim, sender = hand.claim, self.book.senders[hand.claim.device_id]
        outcome = Outcome(*claim.key, verdict.value, at=self.wall, **more)
        if verdict is Verdict.UNAVAILABLE:
            if outcome.device_state is not None:
                sender.state = DeviceState(outcome.device_state)
                await self.queue.write_device(sender)
            else:
                sender.rests_until = self.wall + (outcome.retry_after or 0.0)
        if verdict not in NOT_TRIED and (verdict is not Verdict.UNAVAILABLE or outcome.device_state is not None):
            self._note_try(hand, left=verdict in LEFT)
        decision = settle(claim, outcome, JobBackoff(5, 600), self.wall)
        self.pending.append((claim, outcome, decision))
        self.scheduler.ended(claim, outcome, self.now, back=isinstance(decision, Release) and decision.due_at is None)
        job = self.book.jobs[claim.id]
        job.settling = True
        if isinstance(decision, Release) and decision.due_at is None:
            job.returned = True
            self.referee.hinted.add((claim.device_id, claim.lane, job.place))

    def _note_try(self, hand: Hand, *, left: bool) -> None:
        claim = hand.claim
        job_class = claim.lane.rpartition("/")[2]
        before = [one.end for one in self.book.tries if one.device == claim.device_id and one.end <= hand.start]
        sender = self.book.senders[claim.device_id]
        base, clock = sender.pace.base, local(sender, self.wall)
        fast = bool(before) and hand.start - max(before) < base.gap_min - MOMENT
        self.book.tries.append(
            Try(
                device=claim.device_id,
                campaign=claim.campaign,
                job_class=job_class,
                start=hand.start,
                end=self.wall,
                day=clock.date(),
                hour=clock.hour,
                left=left,
                fast=fast,
            )
        )
        self.referee.judge.check_burst(sender)

    def _settlement(self, batch: list[Entry]) -> Settlement:
        """The settlement as the router writes it."""
        sends = []
        for claim, outcome, _ in batch:
            pace = self.book.senders[claim.device_id].pace
            campaign = self.scheduler.campaigns.get(claim.campaign)
            capped = bool(claim.campaign) and (campaign is None or campaign.device_cap is not None)
            if outcome.verdict in MAY_HAVE_LEFT and (capped or pace.limited):
                sends.append(Send(claim.device_id, outcome.at, pace.zone, claim.campaign if capped else ""))
        settlement = Settlement(counts=count_sends(sends))
        for _, _, decision in batch:
            if isinstance(decision, Finish):
                settlement.finishes.append(decision)
            else:
                settlement.releases.append(decision)
        return settlement

    async def write(self) -> None:
        """Settle without claiming."""
        self.flight = []
        self.batch, self.pending = self.pending, []
        await self.answer()

    # ---- groups

    async def share_out(self) -> None:
        """One cycle of the group assigner, and its check."""
        await self.write()
        before = {job.id: job.device for job in self.book.live()}
        known = dict(self.book.contacts)
        pools = {(group, lane): self.book.pool(group, lane) for group, lane in await self.queue.pools(FIRST_POOL, 1000)}
        # As if its cached group members and full devices had expired.
        self.group_assigner._members_read_at = -math.inf
        self.group_assigner._full.clear()
        await self.group_assigner._round(self.now)
        given = [job for job in self.book.live() if job.group and job.device is not None and before[job.id] is None]
        self.referee.see_shared_out(given, known, pools, self.wall)
        for job_id, name in before.items():
            if name is not None and self.book.jobs[job_id].device != name:
                self.referee.lost(name, self.book.jobs[job_id].lane)

    # ---- checks of time

    def check_census(self) -> None:
        """What is counted as it changes is what there is."""
        queues, census = self.scheduler.queues.values(), self.scheduler.census
        assert census.by_state() == Counter(queue.shown_state for queue in queues)
        assert census.by_state({1}) == Counter(queue.shown_state for queue in queues if queue.shard == 1)
        every, able = census.by_shard()
        assert every == Counter(queue.shard for queue in queues)
        assert able == Counter(queue.shard for queue in queues if queue.can_send)
        assert census.transports == {queue.device.transport for queue in queues}
        told = [queue for queue in queues if queue.fault or queue.refused or queue.own_backoff_until > self.now]
        assert all(queue in census.watched for queue in told)

    def check_nobody_is_late(self, seconds: float, part: float) -> None:
        """Before the scheduler's next wake-up, no device may certainly send."""
        if self.flight is not None:
            return
        turn = self.scheduler.seconds_until_next(self.now)
        until = seconds if turn is None else min(seconds, turn - 2 * MOMENT)
        if until > 0:
            late = self.referee.due(self.wall + until * part)
            assert not late, f"{late} may send before the turn that they wait for"
