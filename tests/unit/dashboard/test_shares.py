"""Nobody keeps the others out."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from shardd.dashboard.shares import Shares, TooManyError


def test_a_token_takes_its_share_and_the_last_places_are_for_others() -> None:
    shares, taken = Shares("wait", "ask later", most=8, most_of_one=5), ExitStack()

    def take(name: str) -> None:
        taken.enter_context(shares.one_more(name))

    def is_refused(name: str, words: str) -> None:
        with pytest.raises(TooManyError, match=words):
            take(name)

    for _ in range(5):
        take("a")
    is_refused("a", "5 requests of a wait already: ask later")
    take("b")
    is_refused("b", "6 requests wait already: ask later")
    take("c")
    take("d")
    is_refused("e", "8 requests wait already: ask later")
    taken.close()
    assert not shares
    take("a")
