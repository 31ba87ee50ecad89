"""Delays between attempts, and the breaker that stops them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardd import backoff
from shardd.backoff import Breaker, ceiling, full_jitter, half_jitter

seconds = st.floats(0.001, 1e6)


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    assert [ceiling(tries, 0.5, 10) for tries in range(1, 8)] == [0.5, 1, 2, 4, 8, 10, 10]


@given(st.integers(1, 10**9), seconds, seconds)
def test_no_wait_passes_its_bounds(tries: int, first: float, cap: float) -> None:
    top = ceiling(tries, first, cap)
    assert 0 < top <= cap
    assert 0 <= full_jitter(tries, first, cap) <= top
    assert top / 2 <= half_jitter(tries, first, cap) <= top


def test_what_failed_together_does_not_come_back_together() -> None:
    backoff._RNG.seed(1)
    waits = [full_jitter(6, 0.5, 60) for _ in range(1000)]
    tenths = [sum(n * 1.6 <= wait < (n + 1) * 1.6 for wait in waits) for n in range(10)]
    assert sum(tenths) == 1000
    assert min(tenths) > 50


def breaker() -> Breaker:
    return Breaker(crashes=3, within=10, probe_every=60)


def test_the_breaker_opens_at_the_last_of_its_crashes() -> None:
    watch = breaker()
    assert [watch.crashed(now) for now in (100, 104, 108)] == [False, False, True]
    assert watch.next_probe() == 168


def test_crashes_that_are_far_apart_do_not_open_it() -> None:
    watch = breaker()
    assert [watch.crashed(now) for now in (0, 10, 20, 30, 40)] == [False] * 5
    assert watch.next_probe() is None


def test_a_failed_probe_keeps_it_open_however_late_it_came() -> None:
    watch = breaker()
    for now in (0, 1, 2):
        watch.crashed(now)
    assert watch.crashed(62)
    assert watch.next_probe() == 122


def test_health_closes_it_and_forgets_the_crashes() -> None:
    watch = breaker()
    for now in (0, 1, 2):
        watch.crashed(now)
    watch.healthy()
    assert watch.next_probe() is None
    assert [watch.crashed(now) for now in (3, 4, 5)] == [False, False, True]


@given(st.lists(st.floats(0, 30), min_size=1, max_size=20), st.integers(1, 5))
def test_it_opens_exactly_when_so_many_crashes_fall_into_the_time(gaps: list[float], crashes: int) -> None:
    watch = Breaker(crashes=crashes, within=10, probe_every=60)
    times: list[float] = []
    opened = False
    for gap in gaps:
        times.append((times[-1] if times else 0.0) + gap)
        opened = opened or sum(time > times[-1] - 10 for time in times) >= crashes
        assert watch.crashed(times[-1]) == opened
