"""Checks every request, every claim and every cycle of the group assigner.

The referee tracks what the scheduler cannot know, and does not require it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from shardd.queue.records import ClaimedJob, ClaimRequest, Position
from shardd.states import DeviceState
from tests.support.choice.book import Book, Job
from tests.support.choice.judge import Judge, Maybe


class Referee:
    """The referee of one history."""

    def __init__(self, book: Book) -> None:
        self.book, self.judge = book, Judge(book)
        self.vague: dict[tuple[str, str], Position | None] = {}
        """Lanes whose first job the scheduler cannot know, with the position that it assumes (None: of a removed job)."""
        self.blind: set[str] = set()
        """Devices with a lost hint."""
        self.told = True
        """Whether the scheduler knows the current campaigns."""
        self.hinted: set[tuple[str, str, Position]] = set()
        """Since the last request."""

    def due(self, wall: float) -> set[str]:
        """The devices that certainly may send now, as far as the scheduler can know."""
        if not self.told:
            return set()
        return {name for name in self.book.senders if name not in self.blind and self.judge.definite(name, wall)}

    # ---- a request

    def see_asks(self, requests: Sequence[ClaimRequest], most: int, due: set[str], wall: float) -> None:
        self.hinted = set()
        assert sum(ask.room for ask in requests) <= most
        assert len({ask.device_id for ask in requests}) == len(requests), "two turns at once"
        if most > 10 * len(self.book.senders):
            missing = due - {ask.device_id for ask in requests}
            assert not missing, f"no turn for {missing}"
        for ask in requests:
            self._see_choice(ask, wall)

    def _see_choice(self, ask: ClaimRequest, wall: float) -> None:
        name = ask.device_id
        free = self.book.senders[name].room - len(self.book.in_flight(name))
        assert ask.room == 1 or 1 <= ask.room <= free
        vague = (name, ask.lane) in self.vague
        firsts = self.judge.firsts(name, wall)
        assert ask.peek or ask.room > 1 or len(firsts) < 2 or name in self.blind, (
            "lanes compete, and nobody looks behind"
        )
        first = firsts.get(ask.lane)
        if first is None:
            # Only the claim notices that a waiting job has expired.
            late = any(job.lane == ask.lane and job.is_late(wall) for job in self.book.in_line(name))
            assert late or vague or name in self.blind, "a turn for a lane that has nothing"
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
            # Jobs that were added after the scheduler's assumption were hinted.
            place = min(place, first.place)
            mine = replace(first, priority=-(place[0] >> 52), run_at=place[0] % (1 << 52), id=place[1])
            assert self.judge.rank(name, mine) <= self.judge.rank(name, best), "another lane's turn"

    # ---- its result

    def see_taken(self, taken: ClaimedJob, wall: float) -> None:
        claim = taken.claim
        job = self.book.jobs[claim.id]
        sender = self.book.senders[claim.device_id]
        assert job.claim == claim
        assert taken.opted_out == (job.address in self.book.opted_out), "an opt-out that is not seen"
        assert not job.campaign or self.book.campaigns[job.campaign].state == "running", "a campaign that does not run"
        assert not job.is_late(wall), "too late"
        for other in self.book.lane_of(claim.device_id, claim.lane):
            # Jobs that were added during the claim may have been missed by it.
            if other.place < job.place and (claim.device_id, claim.lane, other.place) not in self.hinted:
                assert claim.device_id in self.blind or other.is_late(wall), "the order of the lane"
        self.judge.check_order_group(job)
        assert len(self.book.in_flight(sender.id)) <= (1 if sender.pace.has_gap else sender.room)

    def see_claim(self, ask: ClaimRequest) -> None:
        campaign = self.book.campaigns.get(ask.lane.rpartition("/")[0])
        if campaign is not None and campaign.state != "running":
            # If it runs again before the next check, only a scan finds its jobs.
            self.blind.add(ask.device_id)

    def see_answer(self, ask: ClaimRequest, taken: Sequence[ClaimedJob], wall: float) -> None:
        """After a result the scheduler knows the start of a lane, unless it did not ask, or had a hint of the claimed job."""
        key = (ask.device_id, ask.lane)
        self.vague.pop(key, None)
        if any(job.is_late(wall) for job in self.book.lane_of(*key)):
            self.vague[key] = None
            return
        places = [(job.claim.ord, job.claim.id) for job in taken]
        heard = min((place for *lane, place in self.hinted if tuple(lane) == key), default=None)
        if heard in places:
            self.vague[key] = heard
        elif places and not ask.peek:
            self.vague[key] = places[-1]

    def lost(self, device: str, lane: str) -> None:
        """A job left this lane other than by a claim."""
        self.vague[device, lane] = None

    # ---- groups

    def see_shared_out(
        self,
        given: Iterable[Job],
        known: dict[tuple[str, str], str],
        pools: dict[tuple[str, str], list[Job]],
        wall: float,
    ) -> None:
        """`given`: jobs that got a device; `known`: earlier devices of recipients; `pools`: jobs that were waiting for one."""
        met = dict(known)
        for job in sorted(given, key=lambda one: one.lane):
            self._see_given(job, met)
        for name in {name for names in self.book.members.values() for name in names}:
            if not self.book.senders[name].alive:
                left = [job for job in self.book.in_line(name) if job.group is not None]
                assert not left, "a device that cannot send keeps jobs of its group"
        for (group, lane), pool in pools.items():
            got = [job.device is not None for job in pool]
            assert got == sorted(got, reverse=True), "a younger job was given before an older one"
            if pool and pool[0].device is None:
                self._see_idle(group, lane, pool[0], wall)

    def _see_given(self, job: Job, met: dict[tuple[str, str], str]) -> None:
        assert job.group is not None
        assert job.device is not None
        sender = self.book.senders[job.device]
        friend = met.get((job.group, job.address))
        met[job.group, job.address] = job.device
        assert sender.alive
        assert job.device in self.book.members[job.group]
        if friend is not None and self.book.senders[friend].alive and friend in self.book.members[job.group]:
            assert job.device == friend, "a recipient meets a stranger"
        elif friend != job.device:
            assert sender.state is DeviceState.READY, "a new contact for a restricted device"

    def _see_idle(self, group: str, lane: str, job: Job, wall: float) -> None:
        """If the first job of the pool got no device, no device of the group could send it now."""
        for name in self.book.members[group]:
            sender = self.book.senders[name]
            idle = sender.state is DeviceState.READY and not any(each.lane == lane for each in self.book.in_line(name))
            if idle and not self.book.in_flight(name) and (name, lane) not in self.vague and self.told:
                assert self.judge.may_send(name, job, wall) is not Maybe.YES, "an idle device gets no work"
