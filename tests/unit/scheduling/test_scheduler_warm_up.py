"""A warm-up that is configured, restarted or ended while the router is running."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from shardd.pacing import DevicePace
from shardd.queue.records import Device
from shardd.supervisor.scheduling.scheduler import Scheduler
from tests.support.scheduler_by_hand import LANE, WALL, asked, device, look, pace_of, ready

TODAY = datetime.fromtimestamp(WALL, UTC).date()
SEASONED = device("a", daily_limit=100, day=TODAY, sent=5)


def scheduler_of(which: Device, steps: list[int]) -> Scheduler:
    """One device whose warm-up has these steps, which a test may change like a reload."""

    def pace(one: Device) -> DevicePace:
        return replace(pace_of(one), warm_up=() if one.warm else tuple(steps))

    return ready(which, pace_of=pace)


def may_send(scheduler: Scheduler) -> bool:
    scheduler.hint("a", LANE, (1, 1), 0.0)
    return asked(scheduler) == ["a"]


def test_a_warm_up_that_is_configured_later_knows_the_days_before() -> None:
    steps: list[int] = []
    scheduler = scheduler_of(SEASONED, steps)
    steps += [1, 2]
    scheduler.limits_changed(0.0)
    look(scheduler, replace(SEASONED, days=2))
    assert may_send(scheduler)


def test_a_new_device_is_held_by_its_step_and_by_no_later_one() -> None:
    assert not may_send(scheduler_of(SEASONED, [5, 6]))
    assert may_send(scheduler_of(replace(SEASONED, days=1), [5, 6]))


def test_a_device_that_is_called_cold_begins_with_the_days_that_it_has() -> None:
    scheduler = scheduler_of(replace(SEASONED, warm=True, days=2), [5, 6])
    look(scheduler, replace(SEASONED, warm=False, days=0))
    assert not may_send(scheduler)
    look(scheduler, replace(SEASONED, warm=True, days=2))
    assert may_send(scheduler)
