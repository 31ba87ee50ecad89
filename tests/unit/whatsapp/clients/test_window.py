"""The window of devices that connect at once, with simulated workers: how long each takes, and how far away WhatsApp is."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from shardd.transports.whatsapp.clients.window import (
    ERA,
    HANGING,
    KNOWN,
    LAST,
    LEAST_PATIENCE,
    START,
    ConnectWindow,
)

MOST = 64


def simulate(
    window: ConnectWindow, work: Callable[[], float], distance: float, logins: int, began: float = 0.0
) -> tuple[float, list[int]]:
    """Devices that all want to connect: one at a time costs `work` seconds, then waits `distance` seconds for WhatsApp.

    Returns when the last has connected, and how many were connecting at each end of one.
    """
    now, worker_free, connecting = began, began, 0
    events: list[tuple[float, int, float]] = []  # when; 0: dials, 1: is connected; from when
    sizes: list[int] = []
    for _ in range(logins):
        while connecting >= window.size:
            now, what, since = heapq.heappop(events)
            if what == 0:
                window.dialled(now - since, now, full=connecting >= window.size)
                heapq.heappush(events, (now + distance, 1, since))
            else:
                window.accepted(distance)
                sizes.append(connecting)
                connecting -= 1
        worker_free = max(worker_free, now) + work()
        connecting += 1
        heapq.heappush(events, (worker_free, 0, now))
    return worker_free + distance, sizes


@pytest.mark.parametrize(
    ("distance", "least", "most"),
    [(0.0, 8, 8), (0.2, 9, 18), (1.0, 40, 55)],
    ids=["near", "far", "very far"],
)
def test_as_many_connect_as_keep_the_worker_busy(distance: float, least: int, most: int) -> None:
    """25 ms of work each, which varies by a half: one device in flight for each 25 ms of distance, and a few that queue."""
    random_ = random.Random(1)
    window = ConnectWindow(MOST)
    took, sizes = simulate(window, lambda: 0.025 * random_.uniform(0.75, 1.25), distance, 2000)
    usual = sorted(sizes[1000:])
    assert least <= usual[len(usual) // 2] <= most
    assert took < 1.1 * 2000 * 0.025, "the worker had nothing to do"


def test_a_worker_that_becomes_slow_connects_fewer_at_once() -> None:
    window = ConnectWindow(MOST)
    end, _ = simulate(window, lambda: 0.02, 1.0, 1000)
    before = window.size
    simulate(window, lambda: 0.1, 1.0, 1000, began=end)
    assert window.size < before / 2


def test_a_worker_that_stays_slow_is_measured_by_what_it_is_now() -> None:
    window = ConnectWindow(MOST)
    for second in range(100):
        window.dialled(0.001, float(second), full=True)
    for second in range(100, int(100 + 10 * ERA)):
        window.dialled(0.1, float(second), full=True)
    assert window.size == MOST


def test_only_a_window_that_is_full_grows() -> None:
    window = ConnectWindow(MOST)
    for second in range(100):
        window.dialled(0.02, float(second), full=False)
    assert window.size == START


def test_it_never_exceeds_its_most_and_is_never_zero() -> None:
    for most in (1, 3, 8):
        window, random_ = ConnectWindow(most), random.Random(most)
        for second in range(2000):
            window.dialled(random_.expovariate(10.0), float(second), full=True)
            window.refused(unanswered=random_.random() < 0.5)
            assert 1 <= window.size <= most


def test_it_halves_while_most_logins_fail_and_grows_again() -> None:
    window = ConnectWindow(MOST)
    simulate(window, lambda: 0.02, 1.0, 1000)
    before = window.size
    for _ in range(LAST):
        window.refused(unanswered=True)
    assert window.size == before // 2
    for _ in range(10 * LAST):
        window.refused(unanswered=True)
    assert window.size == 1
    simulate(window, lambda: 0.02, 1.0, 1000, began=1000.0)
    assert window.size > 20


def test_some_failures_change_nothing() -> None:
    window = ConnectWindow(MOST)
    simulate(window, lambda: 0.02, 1.0, 1000)
    before = window.size
    for login in range(100):
        window.refused(unanswered=login % 2 == 0)
    assert window.size == before


def test_it_does_not_grow_while_most_logins_fail() -> None:
    window = ConnectWindow(MOST)
    for second in range(10 * LAST):
        window.dialled(0.02, float(second), full=True)
        window.refused(unanswered=True)
    assert window.size == 1


def test_a_login_hangs_when_it_takes_several_times_as_long_as_usual() -> None:
    window = ConnectWindow(MOST)
    assert window.patience == LEAST_PATIENCE
    window.accepted(0.1)
    assert window.patience == LEAST_PATIENCE
    for _ in range(KNOWN):
        window.accepted(1.0)
    assert window.patience == HANGING
    for _ in range(KNOWN // 2):
        window.accepted(60.0)
    assert window.patience == HANGING, "a few far devices made the others wait"


def test_none_hangs_on_a_machine_on_which_all_logins_are_slow() -> None:
    window = ConnectWindow(MOST)
    for _ in range(KNOWN):
        window.accepted(10.0)
    assert window.patience == 10.0 * HANGING
