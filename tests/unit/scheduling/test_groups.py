"""Which device of a group gets which job, and how far in advance."""

from __future__ import annotations

from datetime import UTC, datetime

from shardd.pacing import DevicePace, Pace
from shardd.queue.groups import PoolJob
from shardd.supervisor.scheduling.groups import AHEAD, choose_devices
from tests.support.choice.book import Book, Job, Sender
from tests.support.choice.history import RUN_AT, at_once
from tests.support.choice.queue import MemoryQueue
from tests.support.choice.world import World

NOON = 1_767_268_800.0  # 2026-01-01 12:00 UTC


def given(jobs: list[PoolJob], rooms: dict[str, int], dead: set[str] | None = None) -> list[str | None]:
    found = choose_devices(jobs, rooms, lambda name: name not in (dead or set()))
    return [found.get(job.id) for job in jobs]


def strangers(count: int) -> list[PoolJob]:
    return [PoolJob(number, f"a{number}", None) for number in range(count)]


def test_new_recipients_go_where_most_room_is() -> None:
    assert given(strangers(4), {"a": 1, "b": 3}) == ["b", "b", "b", "a"]


def test_what_has_no_room_waits_in_its_place() -> None:
    jobs = [*strangers(3), PoolJob(9, "friend", "a")]
    assert given(jobs, {"a": 1, "b": 1}) == ["b", "a", None, None]
    assert given(jobs, {}) == [None] * 4


def test_a_recipient_keeps_the_device_that_it_knows() -> None:
    jobs = [PoolJob(1, "x", "a"), PoolJob(2, "y", "b"), PoolJob(3, "x", "a")]
    assert given(jobs, {"b": 9}) == ["a", "b", "a"]


def test_who_knows_a_device_that_cannot_send_gets_another_one() -> None:
    jobs = [PoolJob(1, "x", "a"), PoolJob(2, "x", "a"), PoolJob(3, "y", None)]
    assert given(jobs, {"b": 1, "c": 1}, {"a"}) == ["c", "c", "b"]


def test_two_jobs_for_a_new_recipient_go_to_one_device() -> None:
    assert given([PoolJob(1, "x", None), PoolJob(2, "x", None), PoolJob(3, "y", None)], {"a": 2, "b": 1}) == [
        "a", "a", "b",
    ]  # fmt: skip


def shared_out(paces: dict[str, DevicePace], sent: dict[str, int], count: int) -> list[str | None]:
    """Who gets so many jobs for new recipients, when devices have sent some today."""
    book = Book({name: Sender(name, 0, 1, pace) for name, pace in paces.items()}, members={"g": list(paces)}, up={0})
    world = World(book, MemoryQueue(book), NOON)
    jobs = [Job(number, None, "g", "", "marketing", 0, RUN_AT + number, f"62{number:08}") for number in range(count)]

    async def turn() -> None:
        await world.start()
        for name, messages in sent.items():
            tally = world.scheduler.queues[name].tally
            tally.day, tally.sent = datetime.fromtimestamp(NOON, UTC).date(), messages
        await world.insert(jobs)
        await world.group_assigner._round(world.now)

    at_once(turn())
    return [job.device for job in jobs]


def test_a_device_that_is_far_from_its_next_turn_is_given_nothing() -> None:
    limited, gap = DevicePace(Pace(daily_limit=5)), DevicePace(Pace(5, 5))
    assert shared_out({"a": limited}, {"a": 5}, 1) == [None]
    assert shared_out({"a": limited, "b": gap}, {"a": 5}, 2) == ["b", "b"]


def test_a_device_with_a_gap_is_given_little_ahead_of_time() -> None:
    assert shared_out({"a": DevicePace(Pace(5, 5))}, {}, 9) == ["a"] * AHEAD + [None] * (9 - AHEAD)


def test_nobody_is_given_more_than_its_limits_leave() -> None:
    assert shared_out({"a": DevicePace(Pace(daily_limit=5))}, {"a": 2}, 9) == ["a"] * 3 + [None] * 6
