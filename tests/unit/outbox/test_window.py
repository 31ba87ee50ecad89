"""Which events may be posted next, and the effect of an answer."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from shardd.queue.webhooks import Event
from shardd.supervisor.outbox.window import FAILURES, LAST_TRIES, REFUSALS, UNFINISHED, Entry, RetryPolicy, Window

WALL = 1_800_000_000.0
POLICY = RetryPolicy(first=5.0, cap=3600.0, give_up=3 * 86400.0)


def event(number: int, about: str | None = None, age: float = 0.0) -> Event:
    at = datetime.fromtimestamp(WALL - age, UTC)
    return Event(number, f"evt_{number}", at, "job.sent", about or f"job {number}", "{}")


def window(*events: Event) -> Window:
    made = Window((7, 0), POLICY)
    made.add([((7, one.id), one) for one in events], (9, 0))
    return made


def start(made: Window, now: float, most: int = 100) -> list[Entry]:
    entries = made.next_entries(now)[:most]
    for entry in entries:
        entry.busy = True
    return entries


def fail(
    made: Window, entry: Entry, now: float, *, refused: bool = False, retry_after: float | None = None
) -> list[int]:
    given_up = made.failed(entry, "HTTP 500", now, WALL + now, refused=refused, retry_after=retry_after)
    return [one.event.id for one in given_up]


def test_the_cursor_follows_what_is_done_without_a_gap() -> None:
    made = window(event(1), event(2), event(3))
    one, two, three = start(made, 0)
    made.accepted(two)
    assert made.cursor == (7, 0)
    made.accepted(one)
    assert made.cursor == (7, 2)
    made.accepted(three)
    assert made.cursor == made.end == (9, 0)
    made.add([], (12, 0))
    assert made.cursor == (12, 0)


def test_events_of_one_chain_are_posted_one_after_the_other() -> None:
    made = window(event(1, "job 5"), event(2, "job 6"), event(3, "job 5"))
    first, other = start(made, 0)
    assert (first.event.id, other.event.id) == (1, 2)
    assert start(made, 0) == []
    made.accepted(first)
    assert [entry.event.id for entry in start(made, 0)] == [3]


def test_one_event_that_fails_does_not_stop_the_others() -> None:
    made = window(event(1), event(2))
    bad, good = start(made, 0)
    made.accepted(good)
    assert fail(made, bad, 0) == []
    made.add([((7, 3), event(3))], (9, 1))
    assert [entry.event.id for entry in start(made, 0)] == [3]
    assert 2.5 <= (made.next_time(0) or 0) <= 5.0


def test_a_receiver_that_is_down_gets_few_events_and_each_time_another() -> None:
    made = window(*map(event, range(1, 4)))
    now, rests, asked = 0.0, [], []
    for entry in start(made, now):
        fail(made, entry, now)
    for _ in range(9):
        assert start(made, now) == []
        then = made.next_time(now)
        assert then is not None
        rests.append(then - now)
        now = then
        (probe,) = start(made, now)
        assert made.next_time(now) is None
        asked.append(probe.event.id)
        fail(made, probe, now)
    assert sorted(asked) == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    for tries, rest in enumerate(rests, 1):
        assert min(3600, 5 * 2 ** (tries - 1)) / 2 <= rest <= min(3600, 5 * 2 ** (tries - 1))
    (probe,) = start(made, now + 3600)
    made.accepted(probe)
    assert len(start(made, now + 7200)) == 2


def test_retry_after_is_obeyed() -> None:
    made = window(event(1), event(2))
    one, two = start(made, 0)
    fail(made, one, 0, retry_after=120.0)
    made.accepted(two)  # it was under way
    made.add([((7, 3), event(3))], (9, 1))
    assert start(made, 119.9) == []
    assert made.next_time(0) == 120.0
    assert len(start(made, 120.0)) == 2


def test_an_event_that_is_refused_while_others_pass_is_set_aside_after_a_few_tries() -> None:
    for refused, tries in ((True, REFUSALS), (False, FAILURES)):
        made = window(event(1), event(2))
        bad, good = start(made, 0)
        assert fail(made, bad, 0, refused=refused) == []
        made.accepted(good)
        given_up: list[int] = []
        count = 1
        while not given_up:
            given_up = fail(made, bad, 0, refused=refused)
            count += 1
        assert (given_up, count) == ([1], tries)
        assert made.room() == UNFINISHED


def test_a_receiver_that_refuses_everything_loses_nothing_until_it_is_old() -> None:
    made = window(event(1, age=0), event(2, age=POLICY.give_up))
    now = 0.0
    for entry in start(made, now):
        assert fail(made, entry, now, refused=True) == []
    given_up: list[int] = []
    for _ in range(60):
        now = made.next_time(now) or now
        for entry in start(made, now):
            given_up += fail(made, entry, now, refused=True)
        if given_up:
            break
    assert given_up == [2]
    assert now < POLICY.give_up


def test_a_single_old_event_gets_its_last_tries() -> None:
    made = window(event(1, age=2 * POLICY.give_up))
    counts = 0
    given_up: list[int] = []
    now = 0.0
    while not given_up:
        now = made.next_time(now) or now
        (entry,) = start(made, now)
        given_up = fail(made, entry, now)
        counts += 1
    assert counts == LAST_TRIES


def test_an_operator_can_retry_at_once() -> None:
    made = window(event(1), event(2))
    for entry in start(made, 0):
        fail(made, entry, 0)
    assert start(made, 0) == []
    made.retry_now()
    assert len(start(made, 0)) == 1


def test_unfinished_events_are_bounded() -> None:
    made = window(*map(event, range(1, 51)))
    assert made.room() == UNFINISHED - 50
    for entry in start(made, 0, most=20):
        made.accepted(entry)
    assert made.room() == UNFINISHED - 30


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    abouts=st.lists(st.integers(1, 6), min_size=1, max_size=40),
    fault_rate=st.sampled_from([0.0, 0.2, 0.6]),
    poisoned=st.sets(st.integers(1, 40), max_size=3),
    width=st.integers(1, 6),
)
def test_every_event_is_taken_or_set_aside_in_order_and_the_cursor_passes_no_other(
    seed: int, abouts: list[int], fault_rate: float, poisoned: set[int], width: int
) -> None:
    rng = random.Random(seed)
    events = [event(number, f"job {about}") for number, about in enumerate(abouts, 1)]
    made, waiting, now = Window((7, 0), POLICY), list(events), 0.0
    busy: list[Entry] = []
    done: dict[str, list[int]] = defaultdict(list)
    finished: set[int] = set()
    for _ in range(5000):
        some = [waiting.pop(0) for _ in range(min(len(waiting), rng.randint(0, 5)))]
        made.add([((7, one.id), one) for one in some], (7, some[-1].id) if some else made.end)
        busy += start(made, now, width - len(busy))
        assert len({entry.event.about for entry in busy}) == len(busy)
        if busy:
            entry = busy.pop(rng.randrange(len(busy)))
            if entry.event.id in poisoned or rng.random() < fault_rate:
                given_up = made.failed(entry, "no", now, WALL + now, refused=rng.random() < 0.5, retry_after=None)
                for one in given_up:
                    done[one.event.about].append(one.event.id)
            else:
                made.accepted(entry)
                done[entry.event.about].append(entry.event.id)
            finished = {number for numbers in done.values() for number in numbers}
        else:
            now = made.next_time(now) or now
        assert all(number in finished for number in range(1, made.cursor[1] + 1))
        if len(finished) == len(events):
            break
    assert len(finished) == len(events)
    assert made.cursor == (7, len(events))
    for about, numbers in done.items():
        assert numbers == [one.id for one in events if one.about == about]


def test_how_far_behind_the_receiver_is() -> None:
    now = datetime.fromtimestamp(WALL, UTC)
    assert window().behind(now) == 0.0
    made = window(event(1, age=700.0), event(2, age=30.0))
    assert made.behind(now) == 700.0
    made.accepted(start(made, 0.0)[0])
    assert made.behind(now) == 30.0
