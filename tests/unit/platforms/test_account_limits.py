"""The rate and the rests of an account, by a clock of the test's own."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shardd.errors import ErrorClass
from shardd.transports.platforms.account_limits import TROUBLE_CAP, TROUBLE_FIRST, AccountLimits


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


def test_the_longer_rest_counts_and_ends_by_itself() -> None:
    limits = AccountLimits(0)
    limits.rest("a", 60, "slow down", ErrorClass.RATE_LIMIT, 100)
    limits.rest("a", 5, "slower", ErrorClass.SERVER, 110)
    rest = limits.rest_of("a", 130)
    assert rest is not None
    assert (rest.seconds, rest.why, rest.error_class) == (30, "slow down", ErrorClass.RATE_LIMIT)
    assert limits.rest_of("a", 160) is None
    assert limits.rest_of("b", 130) is None


def test_doubt_after_doubt_makes_longer_rests_until_an_answer_is_clear() -> None:
    limits, now, rests = AccountLimits(0), 0.0, []
    for _ in range(9):
        limits.troubled("a", "502", now)
        rest = limits.rest_of("a", now)
        assert rest is not None
        rests.append(rest.seconds)
        now += rest.seconds
    assert rests[:3] == [TROUBLE_FIRST, 2 * TROUBLE_FIRST, 4 * TROUBLE_FIRST]
    assert rests[-1] == TROUBLE_CAP
    limits.answered("a")
    limits.troubled("a", "502", now)
    rest = limits.rest_of("a", now)
    assert rest is not None
    assert rest.seconds == TROUBLE_FIRST


def test_a_platform_in_trouble_may_ask_for_a_longer_rest() -> None:
    limits = AccountLimits(0)
    limits.troubled("a", "503", 0.0, 90.0)
    rest = limits.rest_of("a", 0.0)
    assert rest is not None
    assert rest.seconds == 90
