"""A queue in memory that behaves like the statements of the database, on the data of the book."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date

from shardd.ipc import JobSpec
from shardd.queue.cycle import Cycle, Settlement
from shardd.queue.groups import PoolJob
from shardd.queue.records import Campaign, ClaimedJob, ClaimRequest, Device, Sends, WorkHint
from shardd.queue.settle import Claim
from shardd.states import JobState
from tests.support.choice.book import Book, Job, Sender
from tests.support.scheduler_by_hand import LONG_AGO, device


class MemoryQueue:
    """The interface of `Jobs`, `Groups`, `Campaigns` and `Devices`; each method is atomic."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.days: dict[tuple[str, date], Sends] = {}
        self._hour_sent: dict[tuple[str, date], int] = {}
        self.campaign_days: dict[tuple[str, str, date], int] = {}
        self.epochs = 0
        self.wall = 0.0

    # ---- who and how much

    async def take_epoch(self, shard: int) -> int:
        self.epochs += 1
        return self.epochs

    async def devices(self, warm_days: int) -> list[Device]:
        return [self._row(sender, warm_days) for sender in self.book.senders.values()]

    def _row(self, sender: Sender, warm_days: int) -> Device:
        days = sorted(day for name, day in self.days if name == sender.id)
        plain = device(sender.id, state=sender.state, paused_at=LONG_AGO if sender.paused else None)
        if not days:
            return plain
        last = self.days[sender.id, days[-1]]
        return device(
            sender.id, state=sender.state, paused_at=plain.paused_at, day=last.day, sent=last.sent, hour=last.hour,
            hour_sent=self._hour_sent[sender.id, days[-1]], last_at=last.last_at, days=min(len(days) - 1, warm_days),
        )  # fmt: skip

    async def write_device(self, sender: Sender) -> None:
        """The state or pause of a device has changed in the book."""

    async def running(self) -> dict[str, Campaign]:
        return {
            name: Campaign(campaign.weight, campaign.cap)
            for name, campaign in self.book.campaigns.items()
            if campaign.state == "running"
        }

    async def write_campaign(self, name: str) -> None:
        """A campaign has changed in the book."""

    async def sends(self) -> list[tuple[str, str, date, int]]:
        return [(campaign, name, day, sent) for (campaign, name, day), sent in self.campaign_days.items()]

    # ---- jobs

    def address(self, number: int) -> str:
        """One of a few recipients."""
        return f"6281000{number}"

    async def insert(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.order_group is not None:
                job.held = self.book.first_unsent(job.order_group) is not None
            if job.address in self.book.opted_out:
                job.ended = "opted_out"
            self.book.jobs[job.id] = job

    async def opt_out(self, address: str) -> None:
        self.book.opted_out.add(address)

    async def cycle(self, settlement: Settlement, asks: Sequence[ClaimRequest]) -> Cycle:
        settled, advanced = set(), []
        for finish in settlement.finishes:
            job = self.book.jobs[finish.claim.id]
            job.claim, job.ended, job.failures, job.settling = None, finish.state.value, finish.failures, False
            settled.add(job.id)
        for release in settlement.releases:
            job = self.book.jobs[release.claim.id]
            job.claim, job.failures, job.due_at, job.settling, job.returned = (
                None, release.failures, release.due_at, False, False,
            )  # fmt: skip
            settled.add(job.id)
        self._count(settlement.counts)
        for finish in settlement.finishes:
            if finish.state is JobState.SENT and finish.claim.order_group is not None:
                following = self.book.first_unsent(finish.claim.order_group)
                if following is not None and following.held and following.ended is None:
                    following.held = False
                    if following.due_at is not None and following.due_at <= self.wall:
                        following.due_at = None
                    if following.due_at is None:
                        advanced.append((following.device or "", following.lane, following.place))
        taken = [one for ask in asks for one in self._claim(ask)]
        taken.sort(key=lambda one: (one.claim.ord, one.claim.id))
        claimed = {one.claim.id for one in taken}
        return Cycle(settled, taken, [hint for hint in advanced if hint[2][1] not in claimed])

    def _claim(self, ask: ClaimRequest) -> list[ClaimedJob]:
        lane = self.claimable(ask)[: ask.room]
        for job in lane:
            job.attempt += 1
            job.claim = Claim(
                job.id, ask.epoch, job.attempt, 9, ask.device_id, job.failures, 5, "hold", job.place[0], job.lane,
                job.order_group, job.address,
            )  # fmt: skip
        return [self._taken(job, ask) for job in lane]

    def claimable(self, ask: ClaimRequest) -> list[Job]:
        """The jobs that a claim would find now, in their order."""
        campaign = self.book.campaigns.get(ask.lane.rpartition("/")[0])
        if campaign is not None and campaign.state != "running":
            return []
        lane = self.book.lane_of(ask.device_id, ask.lane)
        return [job for job in lane if job.place >= ask.low and job.claim is None and not job.is_late(self.wall)]

    def _taken(self, job: Job, ask: ClaimRequest) -> ClaimedJob:
        lane = self.book.lane_of(ask.device_id, ask.lane)
        behind = [other.place for other in lane if other.place > job.place and other.claim is None]
        claim = job.claim
        assert claim is not None
        return ClaimedJob(
            JobSpec(*claim.key, ask.device_id, "+628"),
            claim,
            job.address in self.book.opted_out,
            behind[0] if ask.peek and behind else None,
        )

    def _count(self, counts: Sequence[Sends]) -> None:
        for count in sorted(counts, key=lambda one: one.hour):
            if count.campaign:
                key = (count.campaign, count.device_id, count.day)
                self.campaign_days[key] = self.campaign_days.get(key, 0) + count.sent
                continue
            day = (count.device_id, count.day)
            known = self.days.get(day)
            if known is None:
                self.days[day], self._hour_sent[day] = count, count.sent
                continue
            if count.hour > known.hour:
                self._hour_sent[day] = count.sent
            elif count.hour == known.hour:
                self._hour_sent[day] += count.sent
            last_at = max(known.last_at, count.last_at)
            self.days[day] = Sends(*day, max(known.hour, count.hour), known.sent + count.sent, last_at)

    async def find_work(self) -> list[WorkHint]:
        lanes: dict[tuple[str, str], Job] = {}
        for job in self.book.jobs.values():
            if job.device is not None and job.stands_in_line and job.claim is None:
                known = lanes.get((job.device, job.lane))
                if known is None or job.place < known.place:
                    lanes[job.device, job.lane] = job
        return [(name, lane, job.place) for (name, lane), job in sorted(lanes.items())]

    async def promote_due(self) -> list[WorkHint]:
        due = [job for job in self.book.live() if job.due_at is not None and job.due_at <= self.wall and not job.held]
        for job in due:
            job.due_at = None
        return [(job.device, job.lane, job.place) for job in due if job.device is not None]

    async def expire(self) -> list[Job]:
        late = [job for job in self.book.live() if job.claim is None and job.is_late(self.wall)]
        for job in late:
            job.ended = "expired"
        return late

    # ---- groups, as `shardd.supervisor.scheduling.groups.GroupAssigner` asks for them

    async def members(self) -> dict[str, list[str]]:
        return self.book.members

    async def pools(self, after: tuple[str, str], most: int) -> list[tuple[str, str]]:
        waiting = {
            (job.group, job.lane) for job in self.book.jobs.values() if job.device is None and job.stands_in_line
        }
        return sorted((group, lane) for group, lane in waiting if group is not None and (group, lane) > after)[:most]

    async def share_out(
        self, group: str, lane: str, most: int, choose: Callable[[Sequence[PoolJob]], Mapping[int, str]]
    ) -> list[WorkHint]:
        pool = self.book.pool(group, lane)[:most]
        given = choose([PoolJob(job.id, job.address, self.book.contacts.get((group, job.address))) for job in pool])
        for job in pool:
            if job.id in given:
                job.device = self.book.contacts[group, job.address] = given[job.id]
        return [(given[job.id], lane, job.place) for job in pool if job.id in given]

    async def take_back(self, device_ids: Sequence[str], most: int) -> int:
        stranded = [
            job
            for job in self.book.jobs.values()
            if job.group and job.device in device_ids and job.stands_in_line and job.claim is None
        ]
        for job in stranded:
            job.device = None
        return len(stranded)
