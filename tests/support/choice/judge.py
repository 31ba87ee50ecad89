"""The model: which job may a device send now, given all jobs and the whole history? Written from the documentation.

Gaps are random between two bounds and bursts are counted elsewhere, so between the bounds, and within a moment of a change of the
hour, the judge cannot decide: `Maybe`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import Enum

from shardd.pacing import Pace
from tests.support.choice.book import Book, Job, Sender, Try, local

MOMENT = 1e-4
"""Seconds by which sums of floating-point times may differ."""


class Maybe(Enum):
    """Whether a job may be sent."""

    NO = 0
    UNKNOWN = 1
    YES = 2


class Judge:
    """Uses only the book."""

    def __init__(self, book: Book) -> None:
        self.book = book

    # ---- may this job be sent now?

    def may_send(self, device: str, job: Job, now: float) -> Maybe:
        """Whether this device may send this job now, as the first of its lane; `now` in POSIX seconds."""
        sender = self.book.senders[device]
        in_flight = self.book.in_flight(device)
        if not sender.alive or sender.shard not in self.book.up:
            return Maybe.NO
        if len(in_flight) >= (1 if sender.pace.has_gap else sender.room):
            return Maybe.NO
        if job.campaign and self.book.campaigns[job.campaign].state != "running":
            return Maybe.NO
        tries = [one for one in self.book.tries if one.device == device]
        answers = {self._at(sender, job, tries, moment, in_flight) for moment in (now - MOMENT, now + MOMENT)}
        return answers.pop() if len(answers) == 1 else Maybe.UNKNOWN

    def _at(self, sender: Sender, job: Job, tries: list[Try], now: float, in_flight: list[Job]) -> Maybe:
        own, clock = sender.pace.of(job.job_class), local(sender, now)
        if now < sender.rests_until or (own.quiet is not None and _is_quiet(str(own.quiet), clock)):
            return Maybe.NO
        left = [one for one in tries if one.left]
        day, hour = clock.date(), clock.hour
        today = sum(one.day == day for one in left) + len(in_flight)
        this_hour = sum(one.hour == hour and one.day == day for one in left) + len(in_flight)
        limit = own.daily_limit
        if limit and sender.pace.warm_up:
            days = len({one.day for one in left if one.day < day})
            limit = min(limit, *sender.pace.warm_up[days : days + 1], limit)
        if 0 < limit <= today or 0 < own.hourly_limit <= this_hour:
            return Maybe.NO
        if job.campaign and (cap := self.book.campaigns[job.campaign].cap) is not None:
            its = sum(one.day == day and one.campaign == job.campaign for one in left)
            if its + sum(other.campaign == job.campaign for other in in_flight) >= cap:
                return Maybe.NO
        return _after_gap(own, sender.pace.base, tries, now)

    # ---- which one?

    def firsts(self, device: str, now: float) -> dict[str, Job]:
        """The first job of each lane of a device that has not expired."""
        found: dict[str, Job] = {}
        for job in self.book.in_line(device):
            if job.is_late(now):
                continue
            if job.lane not in found or job.place < found[job.lane].place:
                found[job.lane] = job
        return found

    def shares(self, device: str) -> tuple[float, dict[str, float]]:
        """The virtual time of this device and of each of its campaigns, by weight.

        A campaign that was absent starts at the device's time: it does not catch up.
        """
        level, had = 0.0, dict[str, float]()
        for take in self.book.takes:
            if take.device == device:
                level = max(level, had.get(take.campaign, 0.0))
                had[take.campaign] = level + 1 / take.weight
        return level, had

    def rank(self, device: str, job: Job) -> tuple[int, float, tuple[int, int]]:
        """A sort key: highest priority, then the campaign with the smallest share by weight, then the oldest."""
        level, had = self.shares(device)
        return -job.priority, max(level, had.get(job.campaign, 0.0)), job.place

    def definite(self, device: str, now: float) -> Job | None:
        """The next job, of those that certainly may be sent now."""
        may = [job for job in self.firsts(device, now).values() if self.may_send(device, job, now) is Maybe.YES]
        return min(may, key=lambda job: self.rank(device, job), default=None)

    # ---- has a rule been broken?

    def check_order_group(self, job: Job) -> None:
        if job.order_group is not None:
            assert self.book.first_unsent(job.order_group) is job, "an order group was overtaken"

    def check_burst(self, sender: Sender) -> None:
        """No run of a class has more quick messages than its burst and what was regained meanwhile."""
        base = sender.pace.base
        if base.gap_max <= 0:
            return
        for job_class, own in sender.pace.classes.items():
            quick = [
                one.start
                for one in self.book.tries
                if one.device == sender.id and one.job_class == job_class and one.fast and one.left
            ]
            if own.burst and quick:
                last = quick[-1]
                for number, begin in enumerate(quick):
                    assert len(quick) - number <= own.burst + (last - begin) / base.gap_max + 1 + MOMENT


def _after_gap(own: Pace, base: Pace, tries: Iterable[Try], now: float) -> Maybe:
    # After a restart only the time of the last message is known; failed attempts are forgotten.
    last = max((one.end for one in tries if one.left or not one.before_restart), default=None)
    if last is None:
        return Maybe.YES
    gap = now - last
    at_least = min(own.gap_min, base.gap_min) if own.burst else own.gap_min
    enough = max(own.gap_max, base.gap_max) if own.burst else own.gap_max
    if gap < at_least:
        return Maybe.NO
    return Maybe.YES if gap >= enough else Maybe.UNKNOWN


def _is_quiet(hours: str, clock: datetime) -> bool:
    start, end = ((int(text[:2]), int(text[3:])) for text in hours.split("-"))
    time = (clock.hour, clock.minute)
    return start <= time < end if start < end else not end <= time < start
