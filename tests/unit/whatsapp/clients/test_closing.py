"""Which open clients are closed: idle ones, the delivered first, and never one in use."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.transports.whatsapp.clients.closing import SOON, Budget, OpenClient, Purpose, choose

NOW = 1000.0
IDLE, LINGER = 60.0, 300.0


def client(device_id: str, idle: float = 0.0, *, sent: float | None = None, **facts: Any) -> OpenClient:
    """`idle`: seconds since its last use; `sent`: since its last undelivered message."""
    undelivered = {} if sent is None else {"undelivered": 1, "undelivered_at": NOW - sent}
    return OpenClient(device_id, NOW - idle, **undelivered, **facts)


def closed(*clients: OpenClient, needed: int = 0, purpose: Purpose = Purpose.SEND) -> str:
    return " ".join(choose(clients, Budget(IDLE, LINGER, needed, purpose), NOW).close)


@pytest.mark.parametrize(
    ("facts", "closes"),
    [
        ({"idle": 59.0}, False),
        ({"idle": 60.0}, True),
        ({"idle": 9999.0, "busy": True}, False),
        ({"idle": 9999.0, "hearing": True}, False),
        ({"idle": 60.0, "sent": 60.0}, False),
        ({"idle": 299.0, "sent": 299.0}, False),
        ({"idle": 300.0, "sent": 300.0}, True),
        ({"idle": 10.0, "sent": 900.0}, False),
        ({"idle": 200.0, "expected_at": NOW + 1}, False),
        ({"idle": 200.0, "expected_at": NOW - 1}, True),
        ({"idle": 200.0, "expected_at": NOW + SOON + 1}, True),
    ],
)
def test_a_client_is_closed_when_it_is_of_no_use(facts: dict[str, Any], closes: bool) -> None:
    assert closed(client("a", **facts)) == ("a" if closes else "")


def test_room_is_made_by_the_delivered_first_then_the_undelivered() -> None:
    clients = [
        client("waits", 20.0, sent=20.0),
        client("waits longer", 40.0, sent=40.0),
        client("fresh", 1.0),
        client("used", 50.0, busy=True),
        client("old", 9.0, hearing=True),
    ]
    order = ["old", "fresh", "waits longer", "waits"]
    for needed in range(len(order) + 2):
        assert closed(*clients, needed=needed) == " ".join(order[:needed])


def test_a_device_that_will_send_again_makes_room_after_those_that_will_not_the_last_to_send_first() -> None:
    clients = [
        client("in 5 s", 50.0, expected_at=NOW + 5),
        client("in 30 s", 20.0, expected_at=NOW + 30),
        client("done", 1.0),
        client("tomorrow", 2.0, expected_at=NOW + 86400),
        client("undelivered", 40.0, sent=40.0),
        client("undelivered, in 5 s", 3.0, sent=3.0, expected_at=NOW + 5),
    ]
    order = ["tomorrow", "done", "in 30 s", "in 5 s", "undelivered", "undelivered, in 5 s"]
    for needed in range(len(order) + 1):
        assert closed(*clients, needed=needed) == " ".join(order[:needed])


def test_a_visit_closes_only_clients_that_nothing_is_wanted_from() -> None:
    visit = Purpose.VISIT
    wanted = [
        client("waits", 20.0, sent=20.0),
        client("used", 50.0, busy=True),
        client("hears", 9.0, hearing=True),
        client("sends again", 20.0, expected_at=NOW + 20),
    ]
    assert closed(*wanted, needed=2, purpose=visit) == ""
    assert closed(*wanted, client("old", 9.0), client("older", 10.0), needed=1, purpose=visit) == "older"
    assert closed(*wanted, client("over", 400.0, sent=300.0), needed=1, purpose=visit) == "over"


def test_a_visit_that_would_become_late_closes_also_one_that_only_lingers() -> None:
    late = Purpose.LATE_VISIT
    used = [client("used", 50.0, busy=True), client("hears", 9.0, hearing=True)]
    lingers = [client("waits", 20.0, sent=20.0), client("waits longer", 40.0, sent=40.0)]
    assert closed(*used, needed=2, purpose=late) == ""
    assert closed(*used, *lingers, needed=1, purpose=late) == "waits longer"
    assert closed(*used, *lingers, client("old", 9.0), needed=1, purpose=late) == "old"


def test_what_closes_anyway_makes_room_and_nothing_else_is_closed_for_it() -> None:
    assert closed(client("a", 70.0), client("b", 5.0), needed=1) == "a"


@given(
    st.lists(
        st.builds(
            OpenClient,
            device_id=st.uuids().map(str),
            used_at=st.floats(NOW - 1000, NOW) | st.just(float("-inf")),
            busy=st.booleans(),
            hearing=st.booleans(),
            undelivered=st.integers(0, 3),
            undelivered_at=st.floats(NOW - 1000, NOW),
        ),
        max_size=8,
    ),
    st.integers(0, 9),
)
def test_the_choice_is_safe_bounded_and_in_time(clients: list[OpenClient], needed: int) -> None:
    budget = Budget(IDLE, LINGER, needed)
    choice = choose(clients, budget, NOW)
    by_id = {one.device_id: one for one in clients}
    assert not any(by_id[device].busy for device in choice.close)
    assert len(choice.close) >= min(needed, sum(not one.busy for one in clients))
    kept = [one for one in clients if one.device_id not in choice.close]
    assert (choice.look_again is None) == (not kept)
    if choice.look_again is not None:
        assert NOW + IDLE / 4 <= choice.look_again <= NOW + IDLE
    # Without a send meanwhile, every client is closed in the end, whatever is undelivered.
    late = NOW + IDLE + LINGER + 1.0
    idle = [replace(one, busy=False, hearing=False) for one in clients]
    assert len(choose(idle, budget, late).close) == len(clients)


def logins_of(devices: int, room: int, *, gaps: tuple[float, float], rounds: int, foresight: bool) -> Counter[str]:
    """How often each device logs in, if each sends so many messages, after gaps at random, and so many clients have room."""
    chance = Random(7)
    due = [(chance.uniform(0.0, gaps[1]), f"{n}", rounds) for n in range(devices)]
    heapq.heapify(due)
    opened: dict[str, OpenClient] = {}
    logins = Counter[str]()
    while due:
        now, device, left = heapq.heappop(due)
        if device not in opened:
            logins[device] += 1
            if len(opened) == room:
                del opened[choose(list(opened.values()), Budget(IDLE, LINGER, needed=1), now).close[0]]
        again = now + chance.uniform(*gaps)
        if left > 1:
            heapq.heappush(due, (again, device, left - 1))
        opened[device] = OpenClient(device, now, expected_at=now + 1.25 * gaps[1] if foresight else None)
    return logins


def test_devices_that_are_too_many_share_the_room_evenly_and_log_in_less_often_than_without_foresight() -> None:
    devices, rounds = 60, 20
    load: dict[str, Any] = {"gaps": (20.0, 60.0), "rounds": rounds}
    enough, short, blind = (
        logins_of(devices, room, foresight=foresight, **load)
        for room, foresight in ((devices, True), (devices // 2, True), (devices // 2, False))
    )
    assert set(enough.values()) == {1}
    assert sum(short.values()) < 0.8 * sum(blind.values())
    assert max(short.values()) - min(short.values()) < rounds / 2
