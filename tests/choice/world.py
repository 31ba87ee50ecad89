"""Devices, producers, operators and time around the real lines and the real work of groups; the judge looks over their shoulders.

One thing happens after the other; between an ask and its answer others may happen, as they do while a claim is under way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from shardd.ipc import Outcome
from shardd.queue.cycle import Ask, Place, Send, Settlement, Taken, count_sends
from shardd.queue.jobs import Hint
from shardd.queue.settle import Claim, Finish, JobBackoff, Release, settle
from shardd.states import MAY_HAVE_LEFT, DeviceState, Verdict
from shardd.supervisor.groups import GroupWork
from shardd.supervisor.lines import NOTHING_LEFT, Lines
from tests.choice.book import Book, Job, Take, Try, local
from tests.choice.judge import MOMENT, Judge, Maybe
from tests.choice.queue import MemoryQueue

REST = 20.0
"""Seconds that a device out of reach is let alone."""
WARM_DAYS = 5


Entry = tuple[Claim, Outcome, Finish | Release]


@dataclass
class Hand:
    """A claim in somebody's hand, since a moment in POSIX seconds."""

    claim: Claim
    start: float


class World:
    """One history."""

    def __init__(self, book: Book, queue: MemoryQueue, wall: float) -> None:
        self.book, self.queue, self.judge = book, queue, Judge(book)
        self.now = 1000.0
        self.ahead = wall - self.now
        self.ids = 0
        self.hands: dict[int, Hand] = {}
        self.pending: list[Entry] = []
        self.batch: list[Entry] = []
        """What the present flight settles."""
        self.flight: list[Ask] | None = None
        self.hinted: set[tuple[str, str, Place]] = set()
        """During the flight."""
        self.vague: dict[tuple[str, str], Place | None] = {}
        """Lanes whose first job the lines cannot know: they believe that it stands here (None: where one stood that is gone)."""
        self.blind: set[str] = set()
        """Devices of which a hint was lost."""
        self.weights: dict[str, float] = {}
        """Of campaigns, as the lines know them."""
        self.told = True
        """Whether the lines know the campaigns as they are."""

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
                self.vague[job.device, job.lane] = None

    async def start(self) -> None:
        """A supervisor without a memory."""
        self.lines = Lines(
            shard_of=lambda name: self.book.senders[name].shard,
            pace_of=lambda device: self.book.senders[device.id].pace,
            room_of=lambda transport: int(transport.rpartition("-")[2]),
        )
        self.group_work = GroupWork(cast("Any", self.queue), self.lines, self._hint_all, every=1.0)
        self.vague, self.blind = {}, set()
        self.book.takes.clear()
        await self.look()
        await self.look_at_campaigns()
        for shard in sorted(self.book.up):
            self.lines.shard_up(shard, await self.queue.take_epoch(shard), self.now)
        await self.scan()

    async def restart(self, lost: Verdict) -> None:
        """The journals tell what became of what was in hand, and it is written before anything else; the clock begins anew."""
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

    # ---- what the lines are told

    async def look(self) -> None:
        devices = [
            replace(row, transport=f"room-{self.book.senders[row.id].room}")
            for row in await self.queue.devices(WARM_DAYS)
        ]
        self.lines.look(devices, self.now, wall=self.wall, unwritten={})

    async def look_at_campaigns(self) -> None:
        """As `CampaignWatch` does."""
        running = await self.queue.running()
        for campaign, name, day, sent in await self.queue.sends():
            self.lines.by_id[name].note_campaign(campaign, day, sent)
        self.weights |= {name: campaign.weight for name, campaign in running.items()}
        resumed = running.keys() - self.lines.campaigns.keys()
        self.lines.set_campaigns(running, self.now)
        self.told = True
        if resumed:
            await self.scan()

    async def scan(self) -> None:
        if self.flight is None:
            await self.write()
        self._hint_all(await self.queue.find_work())
        self.blind.clear()

    async def expire(self) -> None:
        """What is too late leaves its lane."""
        for job in await self.queue.expire():
            if job.device is not None:
                self.vague[job.device, job.lane] = None

    async def promote(self) -> None:
        self._hint_all(await self.queue.promote_due())

    def _hint_all(self, hints: Sequence[Hint]) -> None:
        for name, lane, place in hints:
            self.hint(name, lane, place)

    def hint(self, name: str, lane: str, place: Place) -> None:
        if self.flight is not None:
            self.hinted.add((name, lane, place))
        self.lines.hint(name, lane, place, self.now)
        if self.book.jobs[place[1]].is_late(self.wall):
            self.vague[name, lane] = None

    async def insert(self, jobs: list[Job], *, heard: bool = True) -> None:
        """A producer's statement; `heard`: the lines hear of it."""
        await self.queue.insert(jobs)
        for job in jobs:
            if job.device is None or not job.stands_in_line:
                continue
            if heard:
                self.hint(job.device, job.lane, job.place)
            else:
                self.blind.add(job.device)

    def next_id(self) -> int:
        self.ids += 1
        return self.ids

    # ---- the wheel

    def ask(self, most: int) -> None:
        due = {name for name in self.book.senders if self.judge.definite(name, self.wall)}
        if due - self.blind and self.told:
            assert self.lines.next_turn(self.now) == 0.0, "somebody may send, and nobody's turn is now"
        self.flight = self.lines.asks(most, self.now)
        self.batch, self.pending = self.pending, []
        self.hinted = set()
        assert sum(ask.room for ask in self.flight) <= most
        assert len({ask.device_id for ask in self.flight}) == len(self.flight), "two turns at once"
        if most > 10 * len(self.book.senders) and self.told:
            missing = due - self.blind - {ask.device_id for ask in self.flight}
            assert not missing, f"no turn for {missing}"
        for ask in self.flight:
            self._check_choice(ask)

    def _check_choice(self, ask: Ask) -> None:
        name, wall = ask.device_id, self.wall
        free = self.book.senders[name].room - len(self.book.in_hand(name))
        assert ask.room == 1 or 1 <= ask.room <= free
        vague = (name, ask.lane) in self.vague
        first = self.judge.firsts(name, wall).get(ask.lane)
        if first is None:
            assert vague or name in self.blind, "a turn for a lane that has nothing"
            return
        may = self.judge.may_send(name, first if self.told else replace(first, campaign=""), wall)
        assert may is not Maybe.NO, "a lane that may not send"
        if name in self.blind or not self.told:
            return
        assert ask.low <= first.place, "the first job of the lane is passed by"
        best = self.judge.definite(name, wall)
        if best is None or best.lane == ask.lane:
            return
        place = self.vague[name, ask.lane] if vague else first.place
        if place is not None:
            # What came since the lines believed that the lane begins there was hinted at.
            place = min(place, first.place)
            mine = replace(first, priority=-(place[0] >> 52), run_at=place[0] % (1 << 52), id=place[1])
            assert self.judge.rank(name, mine) <= self.judge.rank(name, best), "another lane's turn"

    async def answer(self) -> None:
        """The claim comes back, and what was to be settled is."""
        asks, self.flight = self.flight or [], None
        batch, self.batch = self.batch, []
        found = {ask.device_id: bool(self.queue.claimable(ask)) for ask in asks}
        cycle = await self.queue.cycle(self._settlement(batch), asks)
        assert {claim.id for claim, _, _ in batch} == cycle.settled
        self.lines.claimed(asks, cycle.taken, self.now)
        self._hint_all(cycle.advanced)
        self.hinted |= set(cycle.advanced)
        for job in cycle.taken:
            self._check_taken(job)
        for ask in asks:
            taken = [job for job in cycle.taken if (job.claim.device_id, job.claim.lane) == (ask.device_id, ask.lane)]
            assert taken or not found[ask.device_id], "a claim that found nothing"
            campaign = self.book.campaigns.get(ask.lane.rpartition("/")[0])
            if campaign is not None and campaign.state != "running":
                # Should it run again before anybody looks, then only a scan finds its jobs.
                self.blind.add(ask.device_id)
            self._note_vague(ask, taken)
        for job in cycle.taken:
            if job.opted_out:
                await self.end(job.claim.id, Verdict.OPTED_OUT)

    def _check_taken(self, taken: Taken) -> None:
        claim = taken.claim
        job = self.book.jobs[claim.id]
        sender = self.book.senders[claim.device_id]
        self.hands[claim.id] = Hand(claim, self.wall)
        weight = self.weights.get(job.campaign, 1.0)
        self.book.takes.append(Take(claim.device_id, job.campaign, weight))
        assert job.claim == claim
        assert taken.opted_out == (job.address in self.book.opted_out), "an opt-out that is not seen"
        assert not job.campaign or self.book.campaigns[job.campaign].state == "running", "a campaign that does not run"
        assert not job.is_late(self.wall), "too late"
        for other in self.book.lane_of(claim.device_id, claim.lane):
            # What came while the claim was under way may have missed it.
            if other.place < job.place and (claim.device_id, claim.lane, other.place) not in self.hinted:
                assert claim.device_id in self.blind or other.is_late(self.wall), "the order of the lane"
        self.judge.check_order_group(job)
        assert len(self.book.in_hand(sender.id)) <= (1 if sender.pace.has_gap else sender.room)

    def _note_vague(self, ask: Ask, taken: Sequence[Taken]) -> None:
        """After an answer the lines know where a lane begins, unless they did not ask."""
        key = (ask.device_id, ask.lane)
        self.vague.pop(key, None)
        if any(job.is_late(self.wall) for job in self.book.lane_of(*key)):
            self.vague[key] = None
            return
        places = [(job.claim.ord, job.claim.id) for job in taken]
        if places and (
            not ask.peek or (taken[-1].next is None and any((*key, place) in self.hinted for place in places))
        ):
            self.vague[key] = places[-1]

    async def fail(self) -> None:
        """The database did not answer, and did nothing."""
        asks, self.flight = self.flight or [], None
        self.pending, self.batch = self.batch + self.pending, []
        self.lines.unasked(asks, self.now)

    async def end(self, job_id: int, verdict: Verdict, **more: Any) -> None:
        """A worker's word."""
        hand = self.hands.pop(job_id)
        claim, sender = hand.claim, self.book.senders[hand.claim.device_id]
        outcome = Outcome(claim.id, claim.epoch, claim.attempt, verdict.value, at=self.wall, **more)
        if verdict is Verdict.UNAVAILABLE:
            if outcome.device_state is not None:
                sender.state = DeviceState(outcome.device_state)
                await self.queue.write_device(sender)
            else:
                sender.rests_until = self.wall + (outcome.retry_after or 0.0)
        if verdict not in NOTHING_LEFT and (verdict is not Verdict.UNAVAILABLE or outcome.device_state is not None):
            self._note_try(hand, left=verdict in MAY_HAVE_LEFT)
        decision = settle(claim, outcome, JobBackoff(5, 600), self.wall)
        self.pending.append((claim, outcome, decision))
        self.lines.ended(claim, outcome, self.now, back=isinstance(decision, Release) and decision.due_at is None)
        job = self.book.jobs[claim.id]
        job.settling = True
        if isinstance(decision, Release) and decision.due_at is None:
            job.returned = True
            self.hinted.add((claim.device_id, claim.lane, job.place))

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
        self.judge.check_burst(sender)

    def _settlement(self, batch: list[Entry]) -> Settlement:
        """As the router writes it."""
        sends = []
        for claim, outcome, _ in batch:
            pace = self.book.senders[claim.device_id].pace
            campaign = self.lines.campaigns.get(claim.campaign)
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
        """Settle, and claim nothing."""
        self.flight = []
        self.batch, self.pending = self.pending, []
        await self.answer()

    # ---- groups

    async def share_out(self) -> None:
        """One turn of the groups' work, and what must be true after it."""
        await self.write()
        before = {job.id: job.device for job in self.book.live()}
        known = dict(self.book.contacts)
        pools = {(group, lane): self.book.pool(group, lane) for group, lane in await self.queue.pools()}
        self.group_work._looked = -math.inf
        await self.group_work._turn(self.now)
        for job in self.book.live():
            if job.group is not None and job.device is not None and before[job.id] is None:
                self._check_given(job, known)
        members = {name for names in self.book.members.values() for name in names}
        for name in members:
            if not self.book.senders[name].alive:
                left = [job for job in self.book.in_line(name) if job.group is not None]
                assert not left, "a device that cannot send keeps jobs of its group"
                self._forget_lanes(name)
        for (group, lane), pool in pools.items():
            given = [job.device is not None for job in pool]
            assert given == sorted(given, reverse=True), "a younger job was given before an older one"
            if pool and pool[0].device is None:
                self._check_nobody_waits(group, lane, pool[0])

    def _check_given(self, job: Job, known: dict[tuple[str, str], str]) -> None:
        assert job.group is not None
        assert job.device is not None
        sender = self.book.senders[job.device]
        assert sender.alive
        assert job.device in self.book.members[job.group]
        friend = known.get((job.group, job.address))
        if friend is not None and self.book.senders[friend].alive and friend in self.book.members[job.group]:
            assert job.device == friend, "a recipient meets a stranger"
        elif friend != job.device:
            assert sender.state is DeviceState.READY, "a new contact for a restricted device"

    def _check_nobody_waits(self, group: str, lane: str, job: Job) -> None:
        """The first job of the pool was given to nobody: then no device of the group could send it now."""
        for name in self.book.members[group]:
            sender = self.book.senders[name]
            idle = sender.state is DeviceState.READY and not any(each.lane == lane for each in self.book.in_line(name))
            if idle and not self.book.in_hand(name) and (name, lane) not in self.vague and self.told:
                assert self.judge.may_send(name, job, self.wall) is not Maybe.YES, "an idle device gets no work"

    def _forget_lanes(self, name: str) -> None:
        """Jobs have left its lanes by another door."""
        for lane in self.lines.by_id[name].lanes:
            self.vague[name, lane] = None

    # ---- what must be true of time

    def check_nobody_is_late(self, seconds: float, part: float) -> None:
        """Until the next turn of which the lines know, nobody may surely send."""
        if self.flight is not None or not self.told:
            return
        turn = self.lines.next_turn(self.now)
        until = seconds if turn is None else min(seconds, turn - 2 * MOMENT)
        if until <= 0:
            return
        moment = self.wall + until * part
        late = [name for name in self.book.senders if name not in self.blind and self.judge.definite(name, moment)]
        assert not late, f"{late} may send before the turn that they wait for"
