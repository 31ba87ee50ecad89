"""The router's choice against a simple model, in thousands of random histories.

They are the same every time, so that a build fails for what was changed and not by chance; `SHARDD_HUNT=1` looks for new ones.
"""

from __future__ import annotations

import itertools
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardd.queue.records import Campaign, Position
from tests.support.choice.history import Dice, History, Step, at_once, make_book
from tests.support.choice.queue import MemoryQueue
from tests.support.scheduler_by_hand import LANE, device, place, ready, serve

numbers = st.integers(0, 10**9)


def steps_of(**weights: int) -> st.SearchStrategy[list[Step]]:
    """Steps by word, each as often as its weight says."""
    words = ["nothing", *(word for word, weight in weights.items() for _ in range(weight))]
    return st.lists(st.tuples(st.sampled_from(words), numbers), min_size=30, max_size=50)


def histories(examples: int) -> settings:
    return settings(
        max_examples=examples, derandomize=not os.environ.get("SHARDD_HUNT"), database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip


def play(scene: int, steps: list[Step], *, spread: bool = False, groups: bool = False, lossy: bool = False) -> None:
    book = make_book(scene, spread=spread, groups=groups)
    at_once(History(book, MemoryQueue(book), scene, lossy=lossy).run(steps))


@histories(500)
@given(
    numbers, steps_of(insert=6, opt_out=1, campaign=2, tell=1, turn=3, ask=3, end=4, send=4, wait=1, promote=1, scan=1)
)
def test_what_is_taken_is_what_the_model_names(scene: int, steps: list[Step]) -> None:
    play(scene, steps)


@histories(500)
@given(
    numbers,
    steps_of(
        insert=4, device=2, shard=1, limits=1, turn=2, ask=1, end=3, send=6, wait=3, until_turn=3, restart=1, expire=1
    ),
)
def test_days_nights_and_restarts_break_no_limit(scene: int, steps: list[Step]) -> None:
    play(scene, steps)


@histories(350)
@given(
    numbers,
    steps_of(
        insert=5,
        opt_out=1,
        campaign=2,
        tell=1,
        device=1,
        shard=1,
        turn=3,
        ask=2,
        end=4,
        send=3,
        wait=2,
        restart=1,
        scan=1,
    ),
)
def test_lost_hints_and_drawn_gaps_break_no_rule(scene: int, steps: list[Step]) -> None:
    play(scene, steps, spread=True, lossy=True)


@histories(350)
@given(
    numbers,
    steps_of(
        insert=5,
        opt_out=1,
        campaign=1,
        tell=1,
        device=2,
        share_out=6,
        turn=3,
        end=3,
        send=4,
        wait=1,
        restart=1,
        promote=1,
    ),
)
def test_groups_share_out_what_their_devices_can_send(scene: int, steps: list[Step]) -> None:
    play(scene, steps, groups=True)


# ---- fairness, told in one sentence

WEIGHTS = (0.5, 1.0, 2.0, 7.0)


@histories(200)
@given(st.lists(st.sampled_from(WEIGHTS), min_size=2, max_size=4), st.lists(numbers, min_size=20, max_size=60))
def test_campaigns_that_both_have_work_stay_side_by_side(weights: list[float], moves: list[int]) -> None:
    """By weight, neither gets further ahead of the other than by one message of each."""
    names = [f"c{index}" for index in range(len(weights))]
    by_name = dict(zip(names, weights, strict=True))
    scheduler = ready(device("a"))
    scheduler.set_campaigns({name: Campaign(weight) for name, weight in by_name.items()}, 0.0)
    jobs: dict[str, list[Position]] = {LANE: [(1, 1)], **{f"{name}/marketing": [] for name in names}}
    shares = dict.fromkeys(names, 0.0)
    apart: dict[tuple[str, str], list[float]] = {}
    for number in moves:
        dice = Dice(number)
        name = dice.pick(names)
        if dice.chance(3):
            new = [place(100 * number + index) for index in range(dice.pick([1, 5, 20]))]
            jobs[f"{name}/marketing"] = sorted({*jobs[f"{name}/marketing"], *new})
            for each in new:
                scheduler.hint("a", f"{name}/marketing", each, 0.0)
        for _ in range(dice.pick([0, 1, 4])):
            busy = [each for each in names if jobs[f"{each}/marketing"]]
            for lane in serve(scheduler, jobs, 1):
                if campaign := lane.rpartition("/")[0]:
                    shares[campaign] += 1 / by_name[campaign]
            for one, other in itertools.combinations(names, 2):
                if one in busy and other in busy:
                    apart.setdefault((one, other), []).append(shares[one] - shares[other])
                    distances = apart[one, other]
                    assert max(distances) - min(distances) <= 1 / by_name[one] + 1 / by_name[other] + 1e-9
                else:
                    apart.pop((one, other), None)
