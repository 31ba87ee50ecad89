"""Which device sends next: gaps, limits, states, backoffs, fairness among devices, and no lost hints."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from shardd.pacing import DevicePace, Pace
from shardd.queue.records import ClaimRequest, StateChange
from shardd.queue.settle import Claim
from shardd.states import CAN_SEND, DeviceState, Verdict
from shardd.supervisor.scheduling.device_queue import BACKOFF_CAP, BACKOFF_FIRST, FIRST_POSITION
from shardd.supervisor.scheduling.scheduler import IDLE, Scheduler
from tests.support.scheduler_by_hand import (
    LANE,
    LONG_AGO,
    WALL,
    asked,
    device,
    end,
    job,
    look,
    make_scheduler,
    ready,
    take,
)

MIDNIGHT = 16 * 3600.0
"""The next one, on the monotonic clock."""
TODAY = datetime.fromtimestamp(WALL, UTC).date()


# ---- who may send


def test_a_device_needs_work_and_a_shard() -> None:
    scheduler = make_scheduler()
    look(scheduler, device("a"), device("b"))
    scheduler.hint("a", LANE, (5, 7), 0.0)
    assert scheduler.next_requests(10, 0.0) == []
    scheduler.shard_up(0, 10, 0.0)
    assert scheduler.next_requests(10, 0.0) == [ClaimRequest("a", LANE, 10, FIRST_POSITION, 1)]
    scheduler.shard_up(1, 11, 0.0)
    assert scheduler.next_requests(10, 0.0) == []


def test_a_shard_that_went_down_gets_no_turns_until_it_is_back() -> None:
    scheduler = ready(device("a"), device("b"))
    scheduler.shard_down(0)
    assert asked(scheduler) == ["b"]
    scheduler.shard_up(0, 12, 0.0)
    assert [(ask.device_id, ask.epoch) for ask in scheduler.next_requests(10, 0.0)] == [("a", 12)]


@pytest.mark.parametrize("state", list(DeviceState))
def test_only_devices_that_can_send_get_turns(state: DeviceState) -> None:
    assert asked(ready(device("a", state=state))) == (["a"] if state in CAN_SEND else [])


def test_a_paused_device_waits_until_it_is_resumed() -> None:
    scheduler = ready(device("a", paused_at=LONG_AGO))
    assert asked(scheduler) == []
    look(scheduler, device("a"))
    assert asked(scheduler) == ["a"]


def test_a_device_that_was_removed_has_no_turn_and_comes_back_as_new() -> None:
    scheduler = ready(device("a"), device("a2"))
    (claim, _) = take(scheduler)
    assert look(scheduler, device("a2"))[0].removed == ["a"]
    scheduler.hint("a", LANE, (1, 1), 0.0)
    assert asked(scheduler) == []
    end(scheduler, claim, 0.0)
    assert look(scheduler, device("a"), device("a2"))[0].changed == [device("a").spec]
    scheduler.hint("a", LANE, (1, 1), 0.0)
    assert asked(scheduler) == ["a"]


def test_what_a_worker_learned_counts_before_it_is_written() -> None:
    scheduler = ready(device("a"))
    change = StateChange("a", DeviceState.LOGGED_OUT, "phone", None, 1.0)
    scheduler.state_changed(change)
    assert asked(scheduler) == []
    look(scheduler, device("a"), unwritten={"a": change})
    assert asked(scheduler) == []
    look(scheduler, device("a"))
    assert asked(scheduler) == ["a"]


@pytest.mark.parametrize("state", [DeviceState.UNPAIRED, DeviceState.LOGGED_OUT])
def test_a_report_about_a_previous_session_is_ignored(state: DeviceState) -> None:
    scheduler = ready(device("a", state=state))
    assert not scheduler.state_changed(StateChange("a", DeviceState.RESTRICTED, "late", None, 1.0))
    assert scheduler.queues["a"].state is state
    assert asked(scheduler) == []


def test_a_look_tells_workers_what_concerns_them() -> None:
    scheduler = make_scheduler()
    assert {shard: c.changed for shard, c in look(scheduler, device("a"), device("b")).items()} == {
        0: [device("a").spec],
        1: [device("b").spec],
    }
    assert look(scheduler, device("a", day=TODAY, sent=5, reason="x"), device("b")) == {}
    changed = device("a", proxy="socks5://p")
    assert {shard: c.changed for shard, c in look(scheduler, changed, device("b")).items()} == {0: [changed.spec]}


# ---- gaps


def test_the_gap_runs_from_the_end_of_a_message() -> None:
    scheduler = ready(device("a", gap_min=10.0, gap_max=10.0))
    (claim,) = take(scheduler)
    assert scheduler.seconds_until_next(50.0) is None
    end(scheduler, claim, 50.0)
    assert asked(scheduler, 59.9) == []
    assert scheduler.seconds_until_next(55.0) == 5.0
    assert asked(scheduler, 60.0) == ["a"]


@pytest.mark.parametrize("verdict", [Verdict.SENT, Verdict.PERMANENT, Verdict.TRANSIENT, Verdict.IN_DOUBT])
def test_every_try_is_followed_by_a_gap(verdict: Verdict) -> None:
    scheduler = ready(device("a", gap_min=10.0, gap_max=10.0))
    (claim,) = take(scheduler)
    end(scheduler, claim, 0.0, verdict)
    assert asked(scheduler, 9.9) == []
    assert asked(scheduler, 10.0) == ["a"]


@pytest.mark.parametrize("verdict", [Verdict.RETURNED, Verdict.EXPIRED, Verdict.OPTED_OUT])
def test_what_never_started_is_followed_by_none(verdict: Verdict) -> None:
    scheduler = ready(device("a", gap_min=10.0, gap_max=10.0))
    (claim,) = take(scheduler)
    end(scheduler, claim, 0.0, verdict, back=verdict is Verdict.RETURNED)
    assert asked(scheduler) == ["a"]


def test_a_restricted_device_keeps_its_gap_between_new_contacts() -> None:
    scheduler = ready(device("a", gap_min=10.0, gap_max=10.0))
    (claim,) = take(scheduler)
    end(scheduler, claim, 0.0, Verdict.UNAVAILABLE, device_state="restricted")
    assert asked(scheduler, 9.9) == []
    assert asked(scheduler, 10.0) == ["a"]


def test_a_restart_does_not_forget_the_gap() -> None:
    last = datetime.fromtimestamp(WALL - 4, UTC)
    scheduler = ready(device("a", gap_min=10.0, gap_max=10.0, last_at=last))
    assert asked(scheduler, 5.9) == []
    assert asked(scheduler, 6.0) == ["a"]


def test_a_clock_that_runs_ahead_costs_one_gap_at_most() -> None:
    scheduler = ready(device("a", gap_min=10.0, gap_max=10.0, last_at=datetime.fromtimestamp(WALL + 9999, UTC)))
    assert asked(scheduler, 10.0) == ["a"]


def test_a_take_over_does_not_forget_the_gap() -> None:
    scheduler = make_scheduler()
    slow = device("a", gap_min=10.0, gap_max=10.0)
    look(scheduler, slow)
    look(scheduler, replace(slow, last_at=datetime.fromtimestamp(WALL + 98, UTC)), now=100.0)
    scheduler.shard_up(0, 10, 100.0)
    scheduler.hint("a", LANE, (1, 1), 100.0)
    assert asked(scheduler, 107.9) == []
    assert asked(scheduler, 108.0) == ["a"]


def test_a_device_is_claimed_for_once_at_a_time_whatever_comes_meanwhile() -> None:
    scheduler = ready(device("a", gap_min=10.0, gap_max=10.0))
    requests = scheduler.next_requests(10, 0.0)
    scheduler.hint("a", "/service", (1, 2), 0.0)  # another lane, while the database claims from the first one
    assert asked(scheduler) == []
    scheduler.claimed(requests, [], 0.0)
    assert asked(scheduler) == ["a"]
    scheduler.claim_failed(requests, 0.0)
    assert asked(scheduler) == ["a"]


def test_with_a_gap_there_is_one_in_hand_however_much_room_the_transport_has() -> None:
    assert [ask.room for ask in ready(device("a"), room=5).next_requests(10, 0.0)] == [5]
    assert [ask.room for ask in ready(device("a", gap_min=1.0, gap_max=1.0), room=5).next_requests(10, 0.0)] == [1]


# ---- trouble


def test_a_device_out_of_reach_is_tried_again_after_the_time_that_was_asked_for() -> None:
    scheduler = ready(device("a"))
    (claim,) = take(scheduler)
    end(scheduler, claim, 0.0, Verdict.UNAVAILABLE, back=True, retry_after=60.0)
    assert asked(scheduler, 59.9) == []
    assert asked(scheduler, 60.0) == ["a"]


def test_a_device_that_rests_with_work_is_named_with_its_trouble() -> None:
    scheduler = ready(device("a"), device("b"))
    claims = {claim.device_id: claim for claim in take(scheduler)}
    end(scheduler, claims["a"], 0.0, Verdict.UNAVAILABLE, back=True, retry_after=60.0, error="token is not set")
    end(scheduler, claims["b"], 0.0)
    assert [(queue.device.id, why) for queue, why in scheduler.backing_off(59.9)] == [("a", "token is not set")]
    assert scheduler.backing_off(60.0) == []
    look(scheduler, device("a", paused_at=LONG_AGO), device("b"), now=1.0)
    assert scheduler.backing_off(1.0) == []


def test_what_a_platform_reported_later_is_named_for_all_devices_of_the_account() -> None:
    scheduler = ready(device("a"), device("b"), device("c"), account_of=lambda one: None if one.id == "c" else "shop")
    scheduler.back_off("a", 60.0, "rate limited", whole_account=True)
    assert {queue.device.id: why for queue, why in scheduler.backing_off(59.9)} == {
        "a": "rate limited",
        "b": "rate limited",
    }
    scheduler.scanned(set(), 61.0)
    assert scheduler.backing_off(61.0) == []
    assert scheduler.census.watched == []


def test_a_backoff_of_the_database_is_named() -> None:
    until = datetime.fromtimestamp(WALL + 60.0, UTC)
    scheduler = ready(device("a", backoff_until=until, backoff_reason="rate limited"))
    assert [(queue.device.id, why) for queue, why in scheduler.backing_off(59.9)] == [("a", "rate limited")]


def test_a_row_and_a_lane_that_cannot_be_used_are_problems() -> None:
    scheduler = ready(device("a"), device("b"))
    (of_a, _) = scheduler.next_requests(2, 0.0)
    scheduler.claim_refused(of_a, 60.0, "out of shared memory")
    scheduler.undeliverable(scheduler.queues["b"].device.spec, "too large")
    told = sorted(problem.text for problem in scheduler.problems())
    assert [text.partition(":")[0] for text in told] == [
        "1 device has a row with which it cannot send; b",
        "the database refuses to claim the jobs of a, marketing (out of shared memory)",
    ]
    assert scheduler.census.by_shard()[1].total() == 1
    look(scheduler, device("a"), device("b", settings={"a": 1}), now=1.0)
    assert len(list(scheduler.problems())) == 1


def test_a_device_out_of_reach_is_tried_more_and_more_seldom_but_is_tried() -> None:
    scheduler = ready(device("a"))
    now = 0.0
    for tries in range(1, 15):
        (claim,) = take(scheduler, now)
        end(scheduler, claim, now, Verdict.UNAVAILABLE, back=True)
        wait = scheduler.seconds_until_next(now)
        assert wait is not None
        assert wait <= min(BACKOFF_CAP, BACKOFF_FIRST * 2 ** (tries - 1))
        now += wait


def test_a_device_that_is_well_again_need_not_sit_out_its_trouble() -> None:
    scheduler = ready(device("a"))
    (claim,) = take(scheduler)
    end(scheduler, claim, 0.0, Verdict.UNAVAILABLE, back=True, retry_after=600.0)
    look(scheduler, device("a", state=DeviceState.LOGGED_OUT), now=1.0)
    look(scheduler, device("a"), now=2.0)
    assert scheduler.seconds_until_next(2.0) == 0.0
    assert asked(scheduler, 2.0) == ["a"]
    assert asked(scheduler, 600.0) == []  # one hint, one turn


def test_a_whole_account_rests_when_its_platform_asks_for_it() -> None:
    accounts = {"a": "mine", "a2": "mine", "a3": "other", "a4": None}
    scheduler = ready(*(device(name) for name in accounts), account_of=lambda which: accounts[which.id])
    claims = {claim.device_id: claim for claim in take(scheduler)}
    end(scheduler, claims.pop("a"), 0.0, Verdict.UNAVAILABLE, back=True, retry_after=60.0, whole_account=True)
    for claim in claims.values():
        end(scheduler, claim, 0.0)
    assert asked(scheduler, 59.9) == ["a3", "a4"]
    assert asked(scheduler, 60.0) == ["a", "a2"]


# ---- limits


def test_the_limit_counts_what_was_sent_may_have_been_and_is_in_hand() -> None:
    scheduler = ready(device("a", daily_limit=3, day=TODAY, sent=1))
    (claim,) = take(scheduler)
    end(scheduler, claim, 0.0, Verdict.PERMANENT)
    (claim,) = take(scheduler)
    end(scheduler, claim, 0.0, Verdict.IN_DOUBT)
    (claim,) = take(scheduler)
    end(scheduler, claim, 0.0, Verdict.SENT)
    assert take(scheduler) == []
    assert asked(scheduler, MIDNIGHT - 0.1) == []
    assert asked(scheduler, MIDNIGHT) == ["a"]


def test_the_limit_of_an_hour_is_one_of_the_devices_clock() -> None:
    scheduler = ready(device("a", hourly_limit=2, day=TODAY, sent=9, hour=8, hour_sent=1))
    (claim,) = take(scheduler, 60.0)
    end(scheduler, claim, 60.0)
    assert asked(scheduler, 3599.9) == []
    assert asked(scheduler, 3600.0) == ["a"]


def test_an_ask_never_reaches_beyond_the_limit() -> None:
    scheduler = ready(device("a", daily_limit=10, day=TODAY, sent=8), room=5)
    claims = [claim for _ in range(5) for claim in take(scheduler)]
    assert len(claims) == 2
    for claim in claims:
        end(scheduler, claim, 0.0)
    assert take(scheduler) == []


def test_a_take_over_does_not_forget_what_was_sent_today() -> None:
    scheduler = make_scheduler()
    look(scheduler, device("a", daily_limit=10))
    look(scheduler, device("a", daily_limit=10, day=TODAY, sent=10))
    scheduler.shard_up(0, 10, 0.0)
    scheduler.hint("a", LANE, (1, 1), 0.0)
    assert asked(scheduler) == []


def test_what_the_database_has_not_counted_yet_is_not_forgotten() -> None:
    scheduler = ready(device("a", daily_limit=1))
    (claim,) = take(scheduler)
    end(scheduler, claim, 0.0)
    look(scheduler, device("a", daily_limit=1, day=TODAY, sent=0, reason="something changed"))
    scheduler.hint("a", LANE, (1, 1), 0.0)
    assert asked(scheduler) == []


def test_a_raised_limit_counts_at_once() -> None:
    scheduler = ready(device("a", daily_limit=1, day=TODAY, sent=1))
    assert asked(scheduler) == []
    look(scheduler, device("a", daily_limit=2, day=TODAY, sent=1))
    assert asked(scheduler) == ["a"]


# ---- fairness and hints


def test_a_long_line_waits_for_its_turn_like_a_short_one() -> None:
    names = [f"a{number}" for number in range(50)]
    scheduler = ready(device("a-long"), *(device(name) for name in names))
    served: list[str] = []
    while len(set(served)) < 51:
        before = len(served)
        for claim in take(scheduler, most=10):
            served.append(claim.device_id)
            end(scheduler, claim, 0.0)
            if claim.device_id == "a-long":
                scheduler.hint("a-long", LANE, (1, 1), 0.0)
        assert len(served) > before
    assert served.count("a-long") <= 2


def test_turns_go_round() -> None:
    names = [f"a{number}" for number in range(7)]
    scheduler = ready(*(device(name) for name in names))
    served = []
    for _ in range(21):
        (claim,) = take(scheduler, most=1)
        served.append(claim.device_id)
        end(scheduler, claim, 0.0)
    assert served == names * 3


def test_an_ask_takes_no_more_than_it_may() -> None:
    scheduler = ready(*(device(f"a{number}") for number in range(10)), room=4)
    rooms = [ask.room for ask in scheduler.next_requests(10, 0.0)]
    assert rooms == [4, 4, 2]


def test_a_device_without_jobs_is_not_asked_again() -> None:
    scheduler = ready(device("a"))
    requests = scheduler.next_requests(10, 0.0)
    scheduler.claimed(requests, [], 0.0)
    assert scheduler.seconds_until_next(0.0) is None
    assert asked(scheduler) == []


def test_a_hint_during_an_ask_is_not_lost() -> None:
    scheduler = ready(device("a"))
    requests = scheduler.next_requests(10, 0.0)
    scheduler.hint("a", LANE, (50, 5), 0.0)
    scheduler.claimed(requests, [], 0.0)
    assert asked(scheduler) == ["a"]


def test_a_hint_of_an_earlier_place_during_an_ask_is_not_lost() -> None:
    scheduler = ready(device("a"))
    requests = scheduler.next_requests(10, 0.0)
    # An urgent job comes while the claim is under way, which brings a job from further back.
    scheduler.hint("a", LANE, (-7, 900), 0.0)
    claim = Claim(3, 10, 1, 9, "a", 0, 5, "hold", ord=100)
    scheduler.claimed(requests, [job(claim)], 0.0)
    end(scheduler, claim, 0.0)
    (ask,) = scheduler.next_requests(10, 0.0)
    assert ask.low <= (-7, 900)


def test_a_job_that_comes_back_is_where_its_line_begins() -> None:
    scheduler = ready(device("a"))
    requests = scheduler.next_requests(10, 0.0)
    claim = Claim(3, 10, 1, 9, "a", 0, 5, "hold", ord=100)
    scheduler.claimed(requests, [job(claim)], 0.0)
    end(scheduler, claim, 0.0, Verdict.RETURNED, back=True)
    (ask,) = scheduler.next_requests(10, 0.0)
    assert ask.low <= (100, 3)


def test_a_failed_claim_proves_nothing() -> None:
    scheduler = ready(device("a"))
    scheduler.claim_failed(scheduler.next_requests(10, 0.0), 0.0)
    assert asked(scheduler) == ["a"]


def test_a_device_that_is_well_again_keeps_its_gap() -> None:
    scheduler = ready(device("a", gap_min=10.0, gap_max=10.0))
    (claim,) = take(scheduler)
    end(scheduler, claim, 0.0)
    look(scheduler, device("a", gap_min=10.0, gap_max=10.0, state=DeviceState.BANNED), now=1.0)
    look(scheduler, device("a", gap_min=10.0, gap_max=10.0), now=2.0)
    assert asked(scheduler, 9.9) == []
    assert asked(scheduler, 10.0) == ["a"]


def test_a_hint_for_nobody_is_ignored() -> None:
    scheduler = ready(device("a"))
    asked(scheduler)
    scheduler.hint("stranger", LANE, (1, 1), 0.0)
    assert asked(scheduler) == []


def test_new_paces_count_at_once() -> None:
    paces = {"a": DevicePace(Pace(daily_limit=1))}
    scheduler = ready(device("a", day=TODAY, sent=1), pace_of=lambda which: paces[which.id])
    assert asked(scheduler) == []
    paces["a"] = DevicePace()
    scheduler.limits_changed(0.0)
    assert asked(scheduler) == ["a"]


# ---- devices that do nothing although they could


def idle(scheduler: Scheduler) -> list[str]:
    return [problem.text for problem in scheduler.problems() if "could send jobs at once" in problem.text]


def scan(scheduler: Scheduler, now: float, *names: str) -> None:
    """The database says that these devices have jobs, and a claim brings none."""
    for name in names:
        scheduler.hint(name, LANE, (1, 1), now)
    scheduler.scanned(set(names), now)
    scheduler.claimed(scheduler.next_requests(100, now), [], now)


def test_a_device_that_could_send_and_gets_nothing_is_reported_until_it_does() -> None:
    scheduler = ready(device("a"), device("b"))
    for now in range(0, int(IDLE), 3):
        scan(scheduler, float(now), "a", "b")
        assert idle(scheduler) == []
    scan(scheduler, IDLE, "a", "b")
    (text,) = idle(scheduler)
    assert text.startswith("2 devices could send jobs at once and got none; a: for 15 s")
    scheduler.hint("a", LANE, (1, 1), IDLE)
    take(scheduler, IDLE)
    scan(scheduler, IDLE + 1, "a", "b")
    (text,) = idle(scheduler)
    assert text.startswith("1 device could send jobs at once and got none; b")
    scan(scheduler, IDLE + 2)  # somebody else ended its jobs
    assert idle(scheduler) == []


@pytest.mark.parametrize(
    "waits",
    [
        {"paused_at": LONG_AGO},
        {"state": DeviceState.BANNED},
        {"hourly_limit": 1, "day": TODAY, "hour": 8, "hour_sent": 1, "sent": 1, "last_at": LONG_AGO},
    ],
)
def test_a_device_that_waits_for_something_is_not_idle(waits: dict[str, Any]) -> None:
    scheduler = ready(device("a", **waits))
    for now in range(0, 60, 3):
        scan(scheduler, float(now), "a")
    assert idle(scheduler) == []


def test_a_device_whose_shard_is_down_is_not_idle() -> None:
    scheduler = ready(device("a"))
    scheduler.shard_down(0)
    for now in range(0, 60, 3):
        scan(scheduler, float(now), "a")
    assert idle(scheduler) == []


# ---- when devices open


def test_devices_at_a_limit_in_a_gap_or_backing_off_open_later_and_others_are_open() -> None:
    scheduler = ready(
        device("at-limit", hourly_limit=1),
        device("away"),
        device("gap", gap_min=30.0, gap_max=30.0),
        device("free"),
    )
    assert scheduler.opens(0.0) == {}
    claims = {claim.device_id: claim for claim in take(scheduler)}
    assert scheduler.opens(0.0) == {}
    for name in ("at-limit", "gap", "free"):
        end(scheduler, claims[name], 0.0)
    end(scheduler, claims["away"], 0.0, Verdict.UNAVAILABLE, error="no network", retry_after=60.0, back=True)
    assert scheduler.opens(1.0) == {"at-limit": 3599.0, "away": 59.0, "gap": 29.0}
    # A gap that is over tells since when the device may send.
    assert scheduler.opens(61.0) == {"at-limit": 3539.0, "gap": -31.0}
    # Also of a shard that does not run here.
    scheduler.shard_down(0)
    assert scheduler.opens(61.0) == {"at-limit": 3539.0, "gap": -31.0}
    assert scheduler.opens(3601.0) == {"gap": -3571.0}


def test_a_row_that_a_person_changed_ends_the_backoff() -> None:
    scheduler = ready(device("a"), device("b"))
    for claim in take(scheduler):
        end(scheduler, claim, 0.0, Verdict.UNAVAILABLE, error="its settings are wrong", retry_after=600.0, back=True)
    assert asked(scheduler, now=1.0) == []
    (queue,) = [each for each in scheduler.queues.values() if each.device.id == "a"]
    assert queue.backing_off_after(1.0) == "its settings are wrong"
    look(scheduler, device("a", settings={"token": "new"}), device("b", label="a name for people"), now=2.0)
    assert asked(scheduler, now=2.0) == ["a"]
    assert queue.backing_off_after(2.0) is None
