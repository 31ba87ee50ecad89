"""The sweep as a model: a fleet, an interval, and a clock that the test moves."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from shardd.ipc import Visited
from shardd.queue.records import Device
from shardd.states import DeviceState
from shardd.supervisor.scheduling.device_queue import DeviceQueue, SharedState
from shardd.supervisor.scheduling.visits import CATCH_UP, EARLIEST, RETRY, VisitPlan, due_of, look_every
from shardd.transports.whatsapp.clients.visits import PRESENCE_SHARE
from tests.support.scheduler_by_hand import device as any_device

EVERY = 21_600.0
"""Seconds: six hours."""
DAY = 86_400.0
LOOK = look_every(EVERY)
BEGIN = 1_800_000_000.0


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def device(name: str, **row: Any) -> Device:
    """A paired one that was online at the beginning."""
    paired = {"transport": "whatsapp", "session": f"{name}:1@s.whatsapp.net", "online_at": moment(BEGIN)}
    return any_device(name, **{**paired, **row})


def queue_of(one: Device) -> DeviceQueue:
    return DeviceQueue(one, 0, one.state, SharedState())


class Sweep:
    """Answers each visit at once, and remembers when each device was online."""

    def __init__(self, queues: list[DeviceQueue], *, begin: float = BEGIN) -> None:
        self.queues = queues
        self.plan = VisitPlan(begin)
        self.now = begin
        self.visits: list[tuple[float, str]] = []
        self.online = {queue.device.id: begin for queue in queues}
        self.presence: dict[str, float] = {}
        self.longest = 0.0
        self.longest_presence = 0.0

    def send(self, device_id: str) -> None:
        """A login for a send."""
        self._online(device_id)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += LOOK
            for queue, _ in self.plan.next(self.queues, EVERY, self.now):
                self.plan.asked(queue.device.id, self.now)
                self.visits.append((self.now, queue.device.id))
                self._online(queue.device.id)

    def _online(self, device_id: str) -> None:
        self.longest = max(self.longest, self.now - self.online[device_id])
        self.online[device_id] = self.now
        silence = self.now - self.presence.get(device_id, -math.inf)
        if shows := silence > PRESENCE_SHARE * EVERY:
            self.longest_presence = max(self.longest_presence, silence if math.isfinite(silence) else 0.0)
            self.presence[device_id] = self.now
        self.plan.reported(Visited(device_id=device_id, online=True, at=self.now, presence=shows))


def test_every_device_is_visited_in_time_and_none_much_more_often_than_that() -> None:
    sweep = Sweep([queue_of(device(f"d{number}")) for number in range(60)])
    sweep.run(2 * DAY)
    assert sweep.longest <= EVERY
    per_device = 2 * DAY / EVERY
    assert per_device * 60 <= len(sweep.visits) <= per_device * 60 / EARLIEST
    # They were online together at first, and are spread out by now.
    last_hour = [at for at, _ in sweep.visits if at > sweep.now - EVERY]
    busiest = max(sum(start <= at < start + EVERY / 12 for at in last_hour) for start in last_hour)
    assert busiest < 60 / 3


def test_a_login_for_a_send_counts_as_a_visit() -> None:
    sweep = Sweep([queue_of(device("idle")), queue_of(device("busy"))])
    for _ in range(20):
        sweep.run(EVERY * (PRESENCE_SHARE + 0.01))
        sweep.send("busy")
    assert {device_id for _, device_id in sweep.visits} == {"idle"}
    assert sweep.longest <= EVERY


def test_after_a_long_stop_they_are_visited_one_after_the_other() -> None:
    sweep = Sweep([queue_of(device(f"d{number}")) for number in range(600)], begin=BEGIN + 10 * DAY)
    sweep.run(EVERY * CATCH_UP / 2)
    assert 0.4 * 600 <= len(sweep.visits) <= 0.7 * 600
    sweep.run(EVERY * CATCH_UP)
    assert len({device_id for _, device_id in sweep.visits}) == 600


@pytest.mark.parametrize("wall", [3600.0, 10.0, -3600.0])
def test_neither_a_pause_nor_a_step_of_the_clock_makes_all_visits_due_at_once(wall: float) -> None:
    fleet = [queue_of(device(f"d{number}", online_at=moment(BEGIN - 10 * DAY))) for number in range(3000)]
    plan = VisitPlan(BEGIN)
    a_look = look_every(EVERY) / (EVERY * CATCH_UP / 3000)
    assert 1 < len(plan.next(fleet, EVERY, BEGIN)) <= a_look + 1
    assert 1 < len(plan.next(fleet, EVERY, BEGIN + wall)) <= a_look + 1


def test_one_that_was_just_paired_comes_first() -> None:
    fleet = [queue_of(device(f"d{number}", online_at=moment(BEGIN - DAY))) for number in range(60)]
    again = device("again", online_at=moment(BEGIN - 2 * DAY), state_since=moment(BEGIN - DAY))
    fleet += [queue_of(device("new", online_at=None)), queue_of(again)]
    sweep = Sweep(fleet)
    sweep.run(LOOK * 2)
    assert {device_id for _, device_id in sweep.visits[:2]} == {"new", "again"}


def test_only_devices_that_can_log_in_are_visited() -> None:
    old = {"online_at": moment(BEGIN - 10 * DAY)}
    fleet = [
        queue_of(device("paused", paused_at=moment(BEGIN - DAY), **old)),
        queue_of(device("restricted", state=DeviceState.RESTRICTED, **old)),
        queue_of(device("sandbox", transport="sandbox", session=None, **old)),
        *(queue_of(device(state, state=state, **old)) for state in DeviceState if state not in ("ready", "restricted")),
    ]
    sweep = Sweep(fleet)
    sweep.run(EVERY / 2)
    assert {device_id for _, device_id in sweep.visits} == {"paused", "restricted"}


def test_one_that_fails_is_tried_again_later_and_reported() -> None:
    (queue,) = fleet = [queue_of(device("d", online_at=moment(BEGIN - 10 * DAY)))]
    plan, now, tries = VisitPlan(BEGIN), BEGIN, 0
    while now < BEGIN + EVERY:
        now += LOOK
        for found, _ in plan.next(fleet, EVERY, now):
            tries += 1
            plan.asked(found.device.id, now)
            plan.reported(Visited(device_id="d", online=False, at=now, note="its proxy is gone"))
    assert tries == pytest.approx(1 / RETRY, abs=2)
    ((late, last),) = plan.overdue(fleet, EVERY, now)
    assert (late, last.error) == (queue, "its proxy is gone")
    # What is known in memory is written to the row; a later supervisor goes on from there.
    failed = replace(queue.device, visit_failed_at=moment(now), visit_note="its proxy is gone")
    again = [queue_of(failed)]
    assert VisitPlan(now).next(again, EVERY, now + LOOK) == []
    plan.reported(Visited(device_id="d", online=True, at=now))
    assert plan.overdue(fleet, EVERY, now) == []


def test_a_visit_that_no_worker_answers_is_requested_again() -> None:
    fleet = [queue_of(device("d", online_at=moment(BEGIN - 10 * DAY)))]
    plan, now, tries = VisitPlan(BEGIN), BEGIN, 0
    while now < BEGIN + 1000:
        now += LOOK
        for found, _ in plan.next(fleet, EVERY, now):
            tries += 1
            plan.asked(found.device.id, now)
    assert 3 <= tries <= 4
    # Without its worker nothing is requested; with the next worker it is, at once.
    assert plan.next([], EVERY, now + LOOK) == []
    assert len(plan.next(fleet, EVERY, now + 2 * LOOK)) == 1


def test_devices_that_are_sent_to_at_random_are_in_time_too() -> None:
    draw = random.Random(7)
    sweep = Sweep([queue_of(device(f"d{number}")) for number in range(50)])
    for _ in range(200):
        sweep.run(EVERY / 50)
        sweep.send(f"d{draw.randrange(25)}")
    assert sweep.longest <= EVERY
    assert sweep.longest_presence <= EVERY


def test_a_device_that_just_showed_its_presence_when_it_sends_shows_it_again_in_time() -> None:
    sweep = Sweep([queue_of(device("d"))])
    sweep.send("d")
    for _ in range(10):
        # A login that is too early to show it, and puts off the next visit.
        sweep.run((PRESENCE_SHARE - 0.01) * EVERY)
        sweep.send("d")
        sweep.run(EVERY / 2)
    assert sweep.longest_presence <= EVERY


def test_a_presence_that_cannot_be_shown_is_not_tried_at_once_again() -> None:
    plan, shown = VisitPlan(BEGIN), moment(BEGIN - 2 * DAY)
    fleet = [queue_of(device("d", online_at=moment(BEGIN - DAY), presence_at=shown))]
    assert len(plan.next(fleet, EVERY, BEGIN)) == 1
    plan.reported(Visited(device_id="d", online=True, at=BEGIN, note="no presence was shown"))
    assert plan.next(fleet, EVERY, BEGIN + EVERY / 2) == []
    noted = [queue_of(device("d", online_at=moment(BEGIN), presence_at=shown, visit_note="no presence was shown"))]
    assert VisitPlan(BEGIN).next(noted, EVERY, BEGIN + EVERY / 2) == []
    assert len(plan.next(fleet, EVERY, BEGIN + EVERY)) == 1


def test_the_last_chance_to_be_in_time_is_known() -> None:
    fleet = [queue_of(device("d"))]

    def chance(now: float) -> list[bool]:
        return [last for _, last in VisitPlan(BEGIN).next(fleet, EVERY, BEGIN + now)]

    assert chance(0.7 * EVERY) == []
    assert chance((1 - RETRY) * EVERY - 1.0) == [False]
    assert chance((1 - RETRY) * EVERY + 1.0) == [True]


def test_a_device_that_was_online_and_did_not_hear_all_is_visited_again_soon() -> None:
    plan = VisitPlan(BEGIN)
    queue = queue_of(device("d"))
    plan.reported(Visited(device_id="d", online=True, at=BEGIN + 10))  # a login for a send
    plan.reported(Visited(device_id="d", online=False, at=BEGIN + 20, note="its connection broke"))
    due = due_of(queue.device, plan.last(queue.device), EVERY)
    assert due.next == BEGIN + 20 + EVERY * RETRY
    plan.reported(Visited(device_id="d", online=True, at=BEGIN + 30))
    assert due_of(queue.device, plan.last(queue.device), EVERY).next >= BEGIN + EVERY * EARLIEST
