"""A crowd at one thing delays no other, and who has the better rank comes first."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from shardd.dashboard.turns import CrowdedError, Turns


class Crowd:
    """Those who wait for turns, one at a time; `took` has the names of those who had one."""

    def __init__(self, most: int = 100) -> None:
        self.turns = Turns(1, most)
        self.took: list[str] = []
        self.refused: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, rank: int = 1) -> None:
        """The first letter of a name is the lane."""
        self.tasks[name] = asyncio.create_task(self._take(name, rank))
        await asyncio.sleep(0)

    async def _take(self, name: str, rank: int) -> None:
        try:
            async with self.turns.turn(name[0], rank):
                self.took.append(name)
                await asyncio.sleep(0)
        except CrowdedError:
            self.refused.append(name)

    async def end(self) -> None:
        for task in self.tasks.values():
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


async def test_lanes_take_turns_and_ranks_come_first(crowd: Crowd) -> None:
    async with crowd.turns.turn("x", 0):
        for name, rank in (("a0", 1), ("a1", 2), ("a2", 1), ("a3", 0), ("b0", 9), ("c0", 1), ("b1", 1)):
            await crowd.come(name, rank)
    await crowd.end()
    assert crowd.took == ["a3", "b1", "c0", "a0", "b0", "a2", "a1"]


async def test_the_last_of_the_longest_lane_makes_room() -> None:
    crowd = Crowd(most=3)
    async with crowd.turns.turn("x", 0):
        for name, rank in (("a0", 1), ("a1", 2), ("a2", 1), ("a3", 2), ("a4", 0), ("b0", 9), ("b1", 9), ("c0", 1)):
            await crowd.come(name, rank)
    await crowd.end()
    assert crowd.refused == ["a3", "a1", "a2", "b1", "a0"]
    assert crowd.took == ["a4", "b0", "c0"]


async def test_one_who_leaves_costs_no_turn(crowd: Crowd) -> None:
    async with crowd.turns.turn("x", 0):
        for name in ("a0", "a1", "b0"):
            await crowd.come(name)
        crowd.tasks["a0"].cancel()
    crowd.tasks["b0"].cancel()
    await crowd.end()
    assert crowd.took == ["a1"]
    async with asyncio.timeout(1), crowd.turns.turn("y", 1):
        pass


async def test_a_lane_has_no_more_than_its_part_and_what_is_left_is_for_others() -> None:
    turns, taken, ended = Turns(3, 100, most_of_one=2), list[str](), asyncio.Event()

    async def take(lane: str) -> None:
        async with turns.turn(lane, 0):
            taken.append(lane)
            await ended.wait()
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for lane in ("a", "a", "a", "a", "b", "b"):
            tasks.create_task(take(lane))
        for _ in range(10):
            await asyncio.sleep(0)
        assert taken == ["a", "a", "b"]
        ended.set()
    assert sorted(taken) == ["a", "a", "a", "a", "b", "b"]
    async with turns.turn("a", 0), turns.turn("a", 0), turns.turn("c", 0):
        pass


async def test_what_is_kept_is_for_a_lane_that_has_none() -> None:
    turns, taken, ended = Turns(4, 100, most_of_one=2, kept=1), list[str](), asyncio.Event()

    async def take(lane: str) -> None:
        async with turns.turn(lane, 0):
            taken.append(lane)
            await ended.wait()

    async with asyncio.TaskGroup() as tasks:
        for lane in ("a", "a", "b", "b"):
            tasks.create_task(take(lane))
        for _ in range(10):
            await asyncio.sleep(0)
        assert taken == ["a", "a", "b"]
        tasks.create_task(take("c"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert taken == ["a", "a", "b", "c"]
        ended.set()
    assert sorted(taken) == ["a", "a", "b", "b", "c"]
