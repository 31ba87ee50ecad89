"""By how much the clocks of a host and of the database differ, however slowly that answers."""

from __future__ import annotations

import pytest

from shardd.supervisor.cluster.wall_clock import FIX, TOLERATED, WallClock

NOW = 1_800_000_000.0
SLOW = 20.0


def told(ahead: float, slow: float = 0.0) -> list[str]:
    """Of a clock that is so far ahead, when an answer took so long, half of it each way."""
    clock = WallClock("alpha", lambda: NOW + slow / 2)
    clock.look(NOW - slow / 2, NOW - ahead)
    return [problem.text for problem in clock.problems()]


@pytest.mark.parametrize(("ahead", "words"), [(40.0, "40s ahead of"), (-125.0, "2m 5s behind")])
def test_a_difference_is_told_with_its_fix(ahead: float, words: str) -> None:
    (text,) = told(ahead)
    assert text.startswith(f"the clock of node alpha is {words} the database's: ")
    assert text.endswith(FIX)


def test_an_answer_that_took_long_is_no_difference() -> None:
    for ahead in (0.0, TOLERATED, -TOLERATED):
        assert told(ahead) == []
        assert told(ahead, SLOW) == []
    assert told(TOLERATED + SLOW / 2 + 1, SLOW) != []


def test_it_is_over_when_the_clock_is_right_again() -> None:
    clock = WallClock("alpha", lambda: NOW)
    clock.look(NOW, NOW - 40)
    clock.look(NOW, NOW)
    assert list(clock.problems()) == []
