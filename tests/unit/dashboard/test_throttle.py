"""Guessing is slowed, and nobody can lock out somebody else."""

from __future__ import annotations

import pytest

from shardd.dashboard.ration import Ration
from shardd.dashboard.throttle import FORGET, FREE, FREE_OF_NAME, LONGEST, LONGEST_OF_NAME, Throttle


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(clock)


def test_an_address_waits_longer_with_each_failure_up_to_a_limit(throttle: Throttle, clock: Clock) -> None:
    waits = []
    for _ in range(30):
        waits.append(throttle.wait("ada", "192.0.2.1"))
        clock.now += waits[-1]
        throttle.begin("ada", "192.0.2.1")
    assert waits[:FREE] == [0.0] * FREE
    assert waits == sorted(waits)
    assert waits[FREE] > 0
    assert waits[-1] == LONGEST


def test_another_address_may_try_at_once(throttle: Throttle) -> None:
    for number in range(1000):
        throttle.begin("ada", f"192.0.2.{number % 250}")
    assert throttle.wait("ada", "198.51.100.1") == 0.0


def test_many_addresses_that_guess_one_name_wait_for_each_other(throttle: Throttle) -> None:
    for number in range(FREE_OF_NAME + 20):
        throttle.begin("ada", f"198.51.100.{number}")
    assert 0 < throttle.wait("ada", "198.51.100.1") <= LONGEST_OF_NAME
    assert throttle.wait("bob", "198.51.100.1") == 0.0


def test_an_address_from_which_somebody_signed_in_does_not_wait_for_others(throttle: Throttle) -> None:
    throttle.begin("ada", "192.0.2.1")
    throttle.succeeded("ada", "192.0.2.1")
    for number in range(100):
        throttle.begin("ada", f"198.51.100.{number}")
    throttle.begin("ada", "192.0.2.1")
    assert throttle.wait("ada", "192.0.2.1") == 0.0


def test_signing_in_does_not_excuse_guesses_at_other_names(throttle: Throttle) -> None:
    for _ in range(20):
        throttle.begin("ada", "192.0.2.1")
        throttle.begin("eve", "192.0.2.1")
        throttle.succeeded("eve", "192.0.2.1")
    assert throttle.wait("ada", "192.0.2.1") > 0


def test_one_host_has_many_ipv6_addresses(throttle: Throttle) -> None:
    for number in range(20):
        throttle.begin("ada", f"2001:db8::{number:x}")
    assert throttle.wait("ada", "2001:db8::ffff") > 0
    assert throttle.wait("ada", "2001:db8:0:1::1") == 0.0


def test_failures_are_forgotten(throttle: Throttle, clock: Clock) -> None:
    for _ in range(20):
        throttle.begin("ada", "192.0.2.1")
    clock.now += FORGET
    assert throttle.wait("ada", "192.0.2.1") == 0.0


def test_what_is_over_the_ration_is_counted(clock: Clock) -> None:
    ration = Ration(2, clock)
    assert [ration.take() for _ in range(5)] == [0, 0, None, None, None]
    clock.now += 1800
    assert [ration.take(), ration.take()] == [3, None]
