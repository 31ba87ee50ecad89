"""Which job starts in a worker: suspects run alone, every job starts eventually, and none waits for a suspect twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.ipc import JobSpec
from shardd.worker.start_gate import StartGate


class World:
    """Jobs that begin and end, and what must hold at every moment."""

    def __init__(self, *, careful: bool) -> None:
        self.careful = careful
        self.turns = StartGate(self._begin, later=self._later, careful=careful)
        self.postponed: list[Callable[[], None]] | None = None
        self.under_way: dict[int, JobSpec] = {}
        self.exclusive: int | None = None
        self.begun: list[int] = []
        self.offered: list[int] = []

    def offer(self, deaths: int) -> int:
        number = len(self.offered)
        self.offered.append(number)
        self.turns.offer(JobSpec(number, 1, 1, 9, "a", "+628", worker_deaths=deaths))
        return number

    def end(self, number: int) -> None:
        job = self.under_way.pop(number)
        if self.exclusive == number:
            self.exclusive = None
        self.turns.ended(job.key)

    def offer_together(self, *deaths: int) -> list[int]:
        self.postponed = []
        numbers = [self.offer(of) for of in deaths]
        steps, self.postponed = self.postponed, None
        for step in steps:
            step()
        return numbers

    def _later(self, step: Callable[[], None]) -> None:
        if self.postponed is None:
            step()
        else:
            self.postponed.append(step)

    def end_all(self) -> None:
        while self.under_way:
            self.end(next(iter(self.under_way)))

    @property
    def waiting(self) -> list[int]:
        return [claim[0] for claim in self.turns.waiting]

    def _begin(self, job: JobSpec, alone: bool) -> None:
        assert self.exclusive is None, "somebody has an exclusive turn"
        assert alone or not (job.alone or self.careful)
        if alone:
            assert not self.under_way
            self.exclusive = job.id
        self.under_way[job.id] = job
        self.begun.append(job.id)


steps = st.lists(
    st.tuples(st.sampled_from(["offer", "offer", "end"]), st.integers(0, 3), st.integers(0, 50)), max_size=60
)


@given(steps, st.booleans())
def test_each_begins_once_and_suspects_by_themselves(taken: list[tuple[str, int, int]], careful: bool) -> None:
    world = World(careful=careful)
    for step, deaths, which in taken:
        if step == "offer":
            world.offer(deaths)
        elif world.under_way:
            world.end(list(world.under_way)[which % len(world.under_way)])
        assert sorted(world.waiting + world.begun) == world.offered
        assert world.under_way or not world.waiting, "nobody is under way, and yet somebody waits"
    world.end_all()
    assert sorted(world.begun) == world.offered


def test_without_a_suspect_nobody_waits() -> None:
    world = World(careful=False)
    for deaths in (0, 1, 0, 1):
        world.offer(deaths)
    assert world.begun == [0, 1, 2, 3]


def test_a_suspect_waits_for_those_under_way_and_those_behind_wait_for_it() -> None:
    world = World(careful=False)
    first, suspect, behind = world.offer(0), world.offer(2), world.offer(0)
    assert world.waiting == [behind, suspect]
    world.end(first)
    assert list(world.under_way) == [suspect]
    world.end(suspect)
    assert list(world.under_way) == [behind]


def test_after_a_suspect_those_that_wait_go_before_the_next() -> None:
    world = World(careful=False)
    suspects = [world.offer(2) for _ in range(3)]
    others = [world.offer(0) for _ in range(3)]
    world.end(suspects[0])
    assert list(world.under_way) == others
    late = world.offer(0)
    assert late in world.waiting, "or the other suspects would never have their turn"
    for number in others:
        world.end(number)
    assert list(world.under_way) == [suspects[1]]


def test_a_careful_worker_takes_one_after_the_other_and_the_suspects_last() -> None:
    world = World(careful=True)
    order = [world.offer(deaths) for deaths in (0, 2, 1, 0, 0)]
    world.end_all()
    assert world.begun == [order[0], order[3], order[4], order[1], order[2]]


def test_a_worker_that_has_proven_itself_is_careful_no_more() -> None:
    world = World(careful=True)
    first, suspect, *others = [world.offer(deaths) for deaths in (0, 2, 0, 1, 0)]
    world.careful = False
    world.turns.relax()
    assert list(world.under_way) == [first], "it was promised to be alone"
    world.end(first)
    assert sorted(world.under_way) == others, "one death is no reason to be alone"
    for number in others:
        world.end(number)
    assert list(world.under_way) == [suspect]


@pytest.mark.parametrize("careful", [False, True])
def test_of_those_that_come_together_the_suspects_go_last(*, careful: bool) -> None:
    world = World(careful=careful)
    first, second, third, fourth = world.offer_together(2, 0, 3, 0)
    assert world.begun == ([second] if careful else [second, fourth])
    world.end_all()
    assert world.begun == [second, fourth, first, third]


def test_who_waits_when_it_closes_is_told_and_never_begins() -> None:
    world = World(careful=False)
    first, suspect, behind = world.offer(0), world.offer(2), world.offer(0)
    assert [job.id for job in world.turns.close()] == [behind, suspect]
    world.end(first)
    assert world.begun == [first]
