"""Histories from numbers: a step is a word and a number, from which everything else about the step is derived."""

from __future__ import annotations

import math
import random
from collections.abc import Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from shardd import backoff, pacing
from shardd.pacing import CLASSES, DevicePace, Pace, QuietHours
from shardd.states import CAN_SEND, DeviceState, Verdict
from tests.support.choice.book import Book, Campaign, Job, Sender
from tests.support.choice.judge import MOMENT
from tests.support.choice.queue import MemoryQueue
from tests.support.choice.world import REST, World

Item = TypeVar("Item")
Step = tuple[str, int]

BEGINS: Final = [
    datetime(2026, 3, 28, 20, 30, tzinfo=UTC),  # Berlin skips an hour that night
    datetime(2026, 10, 24, 21, 0, tzinfo=UTC),  # and repeats one
    datetime(2026, 4, 4, 12, 45, tzinfo=UTC),  # Lord Howe: half an hour
    datetime(2026, 7, 1, 15, 59, tzinfo=UTC),
]
ZONES: Final = [ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "Asia/Jakarta", "Australia/Lord_Howe")]
QUIET: Final = [None, None, QuietHours.read("21:00-08:00"), QuietHours.read("12:00-13:30")]
RUN_AT: Final = 1_700_000_000_000_000
VERDICTS: Final = [Verdict.SENT] * 8 + list(Verdict)


class Dice:
    """Choices derived from one number."""

    def __init__(self, number: int) -> None:
        self._random = random.Random(number)

    def pick(self, items: Sequence[Item]) -> Item:
        return self._random.choice(items)

    def chance(self, one_in: int) -> bool:
        return self.pick([False] * (one_in - 1) + [True])


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing external, though it may yield."""
    try:
        while work.send(None) is None:
            pass
    except StopIteration:
        return
    raise AssertionError("it waits for somebody")


def make_pace(dice: Dice, *, spread: bool) -> DevicePace:
    """The limits of a device. `spread`: its gaps are random between two bounds."""
    gap = dice.pick([0.0, 0.0, 5.0, 60.0])
    base = Pace(gap, gap * 1.8 if spread else gap, dice.pick([0, 0, 2, 5]), dice.pick([0, 0, 3, 8]), dice.pick(QUIET))
    classes = {}
    if dice.chance(2):
        classes["reply"] = Pace(min(gap, 1.0), min(gap, 2.0 if spread else 1.0), burst=dice.pick([0, 2]))
    if dice.chance(2):
        classes["marketing"] = Pace(gap, base.gap_max, base.hourly_limit, dice.pick([2, 4]), dice.pick(QUIET))
    return DevicePace(base, classes, dice.pick(ZONES), dice.pick([(), (), (1, 2, 4)]))


def make_book(number: int, *, spread: bool = False, groups: bool = False) -> Book:
    """Devices, campaigns and groups."""
    dice = Dice(number)
    names = [f"d{index}" for index in range(dice.pick([1, 2, 3]) + groups)]
    senders = {
        name: Sender(name, index % 2, dice.pick([1, 3]), make_pace(dice, spread=spread))
        for index, name in enumerate(names)
    }
    campaigns = {
        name: Campaign(dice.pick([1.0, 1.0, 2.0, 5.0]), dice.pick([None, None, 1, 3]))
        for name in ("spring", "fall", "winter")[: dice.pick([1, 2, 3])]
    }
    members = {"g": names, "h": names[1:]} if groups else {}
    return Book(senders, campaigns, members, up={0, 1})


class History:
    """Executes the steps."""

    def __init__(
        self, book: Book, queue: MemoryQueue, number: int, *, lossy: bool = False, timeless: bool = False
    ) -> None:
        """`lossy`: some hints are lost; `timeless`: no job is scheduled or expires."""
        pacing._RNG.seed(number)
        backoff._RNG.seed(number)
        self.book, self.lossy, self.timeless = book, lossy, timeless
        begin = Dice(number).pick(BEGINS).timestamp()
        self.queue, self.world = queue, World(book, queue, begin)
        queue.wall = self.world.wall

    async def run(self, steps: Iterable[Step]) -> None:
        await self.world.start()
        for word, number in steps:
            await getattr(self, word)(Dice(number))
            self.world.check_census()
        await self.finale()

    async def nothing(self, dice: Dice) -> None:
        """The step that others shrink to."""

    # ---- producers

    async def insert(self, dice: Dice) -> None:
        """One or several jobs of one kind."""
        campaign = dice.pick(["", *[name for name, one in self.book.campaigns.items() if one.state != "cancelled"]])
        group = dice.pick([None, *self.book.members]) if self.book.members else None
        device = None if group is not None else dice.pick(list(self.book.senders))
        priority = dice.pick([0, 0, 0, 0, 3, -2])
        job_class = dice.pick(CLASSES)
        order_group = dice.pick([None, None, None, None, None, "one", "two"])
        lasts = None if self.timeless else dice.pick([None, None, None, 30.0, 5000.0])
        waits = None if self.timeless else dice.pick([None, None, None, 40.0])
        count, age = dice.pick([1, 2, 3, 6]), dice.pick([0, 0, 1, 2, -1])
        wall = self.world.wall
        jobs = []
        for _ in range(count):
            number = self.world.next_id()
            jobs.append(
                Job(
                    number, device, group, campaign, job_class, priority, RUN_AT + 10 * (age + number),
                    self.queue.address(number // 2 % 7), order_group,
                    expires_at=None if lasts is None else wall + lasts + (waits or 0.0),
                    due_at=None if waits is None else wall + waits,
                )
            )  # fmt: skip
        await self.world.insert(jobs, heard=not (self.lossy and dice.chance(3)))

    async def opt_out(self, dice: Dice) -> None:
        await self.world.queue.opt_out(self.queue.address(dice.pick(range(7))))

    # ---- operators

    async def campaign(self, dice: Dice) -> None:
        """Pause, resume, cancel, weight or cap one; the router learns of it at once or later."""
        name = dice.pick(list(self.book.campaigns))
        campaign = self.book.campaigns[name]
        what = dice.pick(["toggle", "toggle", "toggle", "weight", "cap", "cancel"])
        if campaign.state == "cancelled":
            return
        if what == "toggle":
            campaign.state = "paused" if campaign.state == "running" else "running"
        elif what == "cancel" and dice.chance(3):
            campaign.state = "cancelled"
        elif what == "weight":
            campaign.weight = dice.pick([0.5, 1.0, 3.0])
        elif campaign.cap is not None:
            campaign.cap = dice.pick([1, 2, 4])
        await self.world.queue.write_campaign(name)
        self.world.referee.told = False
        if dice.chance(2):
            await self.world.look_at_campaigns()

    async def tell(self, dice: Dice) -> None:
        await self.world.look_at_campaigns()

    async def device(self, dice: Dice) -> None:
        """Pause, resume, break or repair one."""
        sender = self.book.senders[dice.pick(list(self.book.senders))]
        if dice.chance(2):
            sender.paused = not sender.paused
        else:
            well = sender.state in CAN_SEND
            sender.state = dice.pick([DeviceState.BANNED, DeviceState.RESTRICTED]) if well else DeviceState.READY
            if not well:
                sender.rests_until = 0.0
        await self.world.queue.write_device(sender)
        await self.world.look()

    async def shard(self, dice: Dice) -> None:
        await self._turn_shard(dice.pick([0, 1]))

    async def _turn_shard(self, shard: int) -> None:
        world = self.world
        if shard in self.book.up:
            self.book.up.discard(shard)
            world.scheduler.shard_down(shard)
        else:
            self.book.up.add(shard)
            world.scheduler.shard_up(shard, await world.queue.take_epoch(shard), world.now)

    async def limits(self, dice: Dice) -> None:
        """Change the limits of one."""
        sender = self.book.senders[dice.pick(list(self.book.senders))]
        pace = sender.pace
        if pace.base.hourly_limit and pace.base.daily_limit:
            base = Pace(pace.base.gap_min, pace.base.gap_max, dice.pick([1, 4]), dice.pick([2, 6]), dice.pick(QUIET))
            sender.pace = DevicePace(base, pace.classes, pace.zone, pace.warm_up)
            self.world.scheduler.limits_changed(self.world.now)

    # ---- the router

    async def turn(self, dice: Dice) -> None:
        """Request claims and get the result."""
        if self.world.flight is None:
            self.world.ask(dice.pick([1, 2, 100, 100]))
        await self.world.answer()

    async def ask(self, dice: Dice) -> None:
        """Request claims; the result arrives later or never."""
        if self.world.flight is None:
            self.world.ask(dice.pick([1, 2, 100, 100]))
        elif self.world.cycle is None and dice.chance(2):
            await self.world.claim()
        elif self.world.cycle is None and dice.chance(3):
            await self.world.fail()
        else:
            await self.world.answer()

    async def end(self, dice: Dice) -> None:
        """One job in flight ends."""
        hands = sorted(self.world.hands)
        if hands:
            await self._end(dice.pick(hands), dice.pick(VERDICTS), dice)

    async def _end(self, job_id: int, verdict: Verdict, dice: Dice) -> None:
        more: dict[str, Any] = {}
        if verdict is Verdict.UNAVAILABLE:
            more = dice.pick(
                [
                    {"retry_after": REST},
                    {"device_state": "logged_out"},
                    {"device_state": "restricted", "retry_after": 9.0},
                ]
            )
        await self.world.end(job_id, verdict, **more)

    async def send(self, dice: Dice) -> None:
        """Everything in flight is sent, and the next cycle runs: the usual case."""
        world = self.world
        for job_id in sorted(world.hands):
            await world.end(job_id, Verdict.SENT)
        if world.flight is None:
            world.ask(100)
        await world.answer()
        await self.until_turn(dice)

    async def scan(self, dice: Dice) -> None:
        if self.world.flight is None:
            await self.world.scan()

    async def promote(self, dice: Dice) -> None:
        await self.world.promote()

    async def expire(self, dice: Dice) -> None:
        await self.world.expire()

    async def share_out(self, dice: Dice) -> None:
        if self.world.flight is None and self.world.referee.told:
            await self.world.share_out()

    async def restart(self, dice: Dice) -> None:
        await self.world.restart(dice.pick([Verdict.RETURNED, Verdict.IN_DOUBT, Verdict.SENT]))

    # ---- time

    async def wait(self, dice: Dice) -> None:
        seconds = dice.pick([0.3, 1.0, 4.0, 17.0, 300.0, 1800.0, 6 * 3600.0, 26 * 3600.0])
        self.world.check_nobody_is_late(seconds, dice.pick([0.1, 0.5, 1.0]))
        self.world.pass_time(seconds)

    async def until_turn(self, dice: Dice) -> None:
        seconds = self.world.scheduler.seconds_until_next(self.world.now)
        if seconds:
            self.world.check_nobody_is_late(seconds, dice.pick([0.1, 0.5, 1.0]))
            self.world.pass_time(seconds + 3 * MOMENT)  # so that the judge is certain

    # ---- the end

    async def finale(self) -> None:
        """With everything up and healthy, every job ends."""
        world = self.world
        await self._mend()
        for _ in range(40 + 8 * world.ids):
            await world.expire()
            await world.promote()
            if self.book.members:
                await world.share_out()
            for job_id in sorted(world.hands):
                await world.end(job_id, Verdict.SENT)
            world.ask(100)
            await world.answer()
            if not self.left():
                return
            if not world.hands:
                # A job of a group is not considered before it has a device.
                turn = world.scheduler.seconds_until_next(world.now)
                waits = any(job.due_at is not None and not job.held for job in self.book.live())
                world.pass_time(min(3600.0 if turn is None else turn, 41.0 if waits else math.inf) + 3 * MOMENT)
        raise AssertionError(f"jobs that nobody sends: {self.left()}")

    async def _mend(self) -> None:
        world, book = self.world, self.book
        if world.flight is not None:
            await world.answer()
        for name, campaign in book.campaigns.items():
            if campaign.state == "paused":
                campaign.state = "running"
                await world.queue.write_campaign(name)
        for sender in book.senders.values():
            if sender.state not in CAN_SEND:
                sender.rests_until = 0.0
            sender.paused, sender.state = False, DeviceState.READY
            await world.queue.write_device(sender)
        await world.look()
        await world.look_at_campaigns()
        for shard in {0, 1} - book.up:
            await self._turn_shard(shard)
        await world.scan()

    def left(self) -> list[Job]:
        """Jobs that should end by themselves: not cancelled, and not behind one that was not sent."""
        left = []
        for job in self.book.live():
            if job.campaign and self.book.campaigns[job.campaign].state == "cancelled":
                continue
            first = None if job.order_group is None else self.book.first_unsent(job.order_group)
            if first is None or first.id == job.id or (first.ended is None and first in left):
                left.append(job)
        return left
