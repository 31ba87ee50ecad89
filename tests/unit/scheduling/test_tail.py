"""Which new jobs a poll looks at: those after the newest one seen, and for a while those shortly before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardd.supervisor.scheduling.work_poller import OVERLAP, OVERLAP_MOST, Tail


def test_ids_of_the_last_second_are_looked_at_again() -> None:
    tail = Tail()
    tail.note(10, 0.0)
    tail.note(12, 0.5)
    assert tail.start(0.6) == 0
    assert tail.start(OVERLAP) == 10
    assert tail.start(0.5 + OVERLAP) == 12


def test_an_older_answer_changes_nothing() -> None:
    tail = Tail()
    tail.note(10, 0.0)
    tail.note(7, 0.1)
    assert tail.start(9.0) == 10


def test_a_burst_is_not_looked_at_again_as_a_whole() -> None:
    tail = Tail()
    tail.note(1_000_000, 0.0)
    assert tail.start(0.1) == 1_000_000 - OVERLAP_MOST


@given(st.lists(st.tuples(st.floats(0.0, 0.4), st.integers(0, 300)), min_size=1, max_size=40))
def test_what_became_newest_within_the_overlap_is_always_looked_at_again(steps: list[tuple[float, int]]) -> None:
    tail, now, newest, noted = Tail(), 0.0, 0, []
    for pause, more in steps:
        now += pause
        newest += more
        tail.note(newest, now)
        noted.append((now, newest))
    before = max((seen for at, seen in noted if at <= now - OVERLAP), default=0)
    assert tail.start(now) == max(before, newest - OVERLAP_MOST)
