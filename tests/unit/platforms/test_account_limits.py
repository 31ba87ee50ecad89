"""The rate and the backoffs of an account, with a simulated clock."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shardd.errors import ErrorClass
from shardd.transports.platforms.account_limits import DOUBT_CAP, DOUBT_FIRST, AccountLimits


@given(
    rate=st.floats(0.1, 100),
    steps=st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3)), max_size=60),
)
def test_an_account_never_sends_faster_than_its_rate(rate: float, steps: list[tuple[str, float]]) -> None:
    limits, now = AccountLimits(rate), 1000.0
    leaves: dict[str, list[float]] = {"a": [], "b": []}
    for account, passes in steps:
        now += passes
        wait = limits.wait_of(account, now)
        turn = limits.take(account, now)
        assert turn == wait
        leaves[account].append(now + turn)
    for times in leaves.values():
        assert all(later - earlier >= 1 / rate - 1e-6 for earlier, later in pairwise(times))


def test_without_a_rate_nobody_waits() -> None:
    limits = AccountLimits(0)
    assert [limits.take("a", 1.0) for _ in range(3)] == [0, 0, 0]


def test_the_longer_backoff_counts_and_ends_by_itself() -> None:
    limits = AccountLimits(0)
    limits.back_off("a", 60, "slow down", ErrorClass.RATE_LIMIT, 100)
    limits.back_off("a", 5, "slower", ErrorClass.SERVER, 110)
    backoff = limits.backoff_of("a", 130)
    assert backoff is not None
    assert (backoff.until, backoff.why, backoff.error_class) == (160, "slow down", ErrorClass.RATE_LIMIT)
    assert limits.backoff_of("a", 160) is None
    assert limits.backoff_of("b", 130) is None


def test_doubt_after_doubt_makes_longer_backoffs_until_an_answer_is_clear() -> None:
    limits, now, backoffs = AccountLimits(0), 0.0, []
    for _ in range(9):
        limits.in_doubt("a", "502", now)
        backoff = limits.backoff_of("a", now)
        assert backoff is not None
        backoffs.append(backoff.until - now)
        now = backoff.until
    assert backoffs[:3] == [DOUBT_FIRST, 2 * DOUBT_FIRST, 4 * DOUBT_FIRST]
    assert backoffs[-1] == DOUBT_CAP
    limits.answered("a")
    limits.in_doubt("a", "502", now)
    backoff = limits.backoff_of("a", now)
    assert backoff is not None
    assert backoff.until - now == DOUBT_FIRST


def test_a_failing_platform_may_demand_a_longer_backoff() -> None:
    limits = AccountLimits(0)
    limits.in_doubt("a", "503", 0.0, 90.0)
    backoff = limits.backoff_of("a", 0.0)
    assert backoff is not None
    assert backoff.until == 90
