"""Which lane of a device sends next: priority, weight, age, caps, classes, and what survives a restart."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, time
from itertools import pairwise

import pytest

from shardd.pacing import DevicePace, Pace, QuietHours
from shardd.queue.records import Campaign, Position
from shardd.queue.settle import Claim
from shardd.states import Verdict
from shardd.supervisor.scheduling.device_queue import MOST_LANES, NEVER, TRIM_AT, Lane
from shardd.supervisor.scheduling.scheduler import Scheduler
from tests.support.scheduler_by_hand import (
    LANE,
    WALL,
    asked,
    device,
    end,
    fill,
    job,
    look,
    make_scheduler,
    place,
    ready,
    serve,
    take,
)

MIDNIGHT = 16 * 3600.0
"""The next one, on the monotonic clock."""
SPRING, FALL = "spring/marketing", "fall/marketing"


def up(name: str = "a", room: int = 1, pace: DevicePace | None = None, **campaigns: Campaign) -> Scheduler:
    """A device without known work on a shard that runs, and the campaigns that run."""
    scheduler = make_scheduler(room) if pace is None else make_scheduler(room, pace_of=lambda _: pace)
    look(scheduler, device(name))
    scheduler.set_campaigns(campaigns, 0.0)
    scheduler.shard_up(0, 10, 0.0)
    return scheduler


def lane_of(first: int, count: int, priority: int = 0) -> list[Position]:
    return [place(number, priority) for number in range(first, first + count)]


# ---- the order of lanes


def test_the_place_tells_the_priority() -> None:
    for priority in (-100, -1, 0, 1, 100):
        lane = Lane(LANE, "", "marketing")
        lane.hint(place(1_800_000_000_000_000, priority))
        assert lane.priority == priority


@pytest.mark.parametrize("room", [1, 3])
def test_the_highest_priority_goes_first_whatever_its_lane(room: int) -> None:
    scheduler = up(room=room)
    jobs = {
        "/marketing": sorted(lane_of(1, 2) + lane_of(50, 1, 7)),
        "/service": sorted(lane_of(10, 2) + lane_of(60, 1, 5)),
        "/reply": sorted(lane_of(20, 1, -3) + lane_of(70, 1, 6)),
    }
    fill(scheduler, "a", jobs)
    served = []
    for _ in range(8):
        served += serve(scheduler, jobs, 1, most=room)
    if room == 1:
        assert served == [
            f"/{name}"
            for name in ["marketing", "reply", "service", "marketing", "marketing", "service", "service", "reply"]
        ]
    else:
        # What one claim brings of a lane goes together; no lane is ever chosen for a job that has left already.
        assert Counter(served) == {"/marketing": 3, "/service": 3, "/reply": 2}
        assert served.index("/service") <= 5


@pytest.mark.parametrize("room", [1, 4])
def test_classes_of_one_campaign_go_by_age(room: int) -> None:
    scheduler = up(room=room)
    jobs = {"/marketing": lane_of(1, 10) + lane_of(100, 30), "/service": lane_of(50, 4)}
    fill(scheduler, "a", jobs)
    served = serve(scheduler, jobs, 44, most=room)
    assert served.index("/service") in range(10, 10 + room)


@pytest.mark.parametrize(("weights", "shares"), [((1, 1), (30, 30)), ((2, 1), (40, 20)), ((1, 5), (10, 50))])
def test_campaigns_share_a_device_by_their_weights(weights: tuple[int, int], shares: tuple[int, int]) -> None:
    scheduler = up(spring=Campaign(weights[0]), fall=Campaign(weights[1]))
    jobs = {SPRING: lane_of(1, 1000), FALL: lane_of(5000, 1000)}
    fill(scheduler, "a", jobs)
    served = Counter(serve(scheduler, jobs, 60))
    assert (served[SPRING], served[FALL]) == shares


def test_a_campaign_of_a_million_does_not_starve_what_comes_later() -> None:
    scheduler = up(spring=Campaign())
    jobs = {SPRING: lane_of(1, 500)}
    fill(scheduler, "a", jobs)
    serve(scheduler, jobs, 300)
    jobs["/service"] = lane_of(9000, 5)
    fill(scheduler, "a", {"/service": jobs["/service"]})
    served = serve(scheduler, jobs, 12)
    assert served.count("/service") == 5
    assert all("/service" in pair for pair in pairwise(served[:10]))


def test_a_campaign_that_rested_does_not_catch_up() -> None:
    scheduler = up(spring=Campaign(), fall=Campaign())
    jobs = {SPRING: lane_of(1, 500), FALL: lane_of(1000, 500)}
    fill(scheduler, "a", jobs)
    serve(scheduler, jobs, 10)
    scheduler.set_campaigns({"spring": Campaign()}, 0.0)
    assert set(serve(scheduler, jobs, 100)) == {SPRING}
    scheduler.set_campaigns({"spring": Campaign(), "fall": Campaign()}, 0.0)
    served = Counter(serve(scheduler, jobs, 20))
    assert served == {SPRING: 10, FALL: 10}


# ---- campaigns


def test_a_campaign_that_does_not_run_has_no_turn_and_stops_nobody() -> None:
    scheduler = up(spring=Campaign())
    jobs = {SPRING: lane_of(1, 5), FALL: lane_of(10, 5, 9), "/service": lane_of(20, 5)}
    fill(scheduler, "a", jobs)
    assert Counter(serve(scheduler, jobs, 99)) == {SPRING: 5, "/service": 5}
    assert scheduler.seconds_until_next(0.0) is None
    scheduler.set_campaigns({"fall": Campaign()}, 0.0)
    assert serve(scheduler, jobs, 99) == [FALL] * 5


def test_a_cap_counts_what_was_sent_may_have_been_and_is_in_hand() -> None:
    scheduler = up(spring=Campaign(device_cap=3))
    scheduler.hint("a", SPRING, (1, 1), 0.0)
    for verdict in (Verdict.PERMANENT, Verdict.SENT, Verdict.OPTED_OUT, Verdict.IN_DOUBT, Verdict.SENT):
        (claim,) = take(scheduler)
        end(scheduler, claim, 0.0, verdict)
    assert take(scheduler) == []
    turn = scheduler.queues["a"].next_send(Lane.named(SPRING), 0.0)
    assert (turn.at, turn.why) == (MIDNIGHT, "its campaign's cap")
    assert asked(scheduler, MIDNIGHT - 0.1) == []
    assert asked(scheduler, MIDNIGHT) == ["a"]


def test_a_cap_stops_its_own_campaign_only() -> None:
    scheduler = up(spring=Campaign(device_cap=2), fall=Campaign())
    jobs = {SPRING: lane_of(1, 9), FALL: lane_of(20, 9), "/reply": lane_of(40, 1)}
    fill(scheduler, "a", jobs)
    assert Counter(serve(scheduler, jobs, 99)) == {SPRING: 2, FALL: 9, "/reply": 1}


def test_a_cap_counts_over_a_restart_and_what_another_node_sent() -> None:
    scheduler = up(spring=Campaign(device_cap=3))
    queue, today = scheduler.queues["a"], datetime.fromtimestamp(WALL, UTC).date()
    queue.note_campaign_sends("spring", today, 2)
    queue.note_campaign_sends("spring", today, 1)  # an older count than is known
    jobs = {SPRING: lane_of(1, 9)}
    fill(scheduler, "a", jobs)
    assert len(serve(scheduler, jobs, 99)) == 1


def test_what_is_in_hand_while_its_campaign_is_paused_counts_for_the_cap() -> None:
    scheduler = up(spring=Campaign(device_cap=1))
    scheduler.hint("a", SPRING, (1, 1), 0.0)
    (claim,) = take(scheduler)
    scheduler.set_campaigns({}, 0.0)
    end(scheduler, claim, 0.0)
    scheduler.set_campaigns({"spring": Campaign(device_cap=1)}, 0.0)
    assert take(scheduler) == []


# ---- classes


def test_a_class_that_must_wait_stands_in_nobodys_way() -> None:
    gap = Pace(10, 10)
    pace = DevicePace(
        gap, {"marketing": Pace(10, 10, quiet=QuietHours(time(7), time(9))), "reply": Pace(1, 1, burst=2)}
    )
    scheduler = up(pace=pace)
    jobs = {"/marketing": lane_of(1, 3, 100), "/service": lane_of(10, 3), "/reply": lane_of(20, 2)}
    fill(scheduler, "a", jobs)
    sent = {now: serve(scheduler, jobs, 9, now) for now in (0.0, 0.9, 1.0, 2.0, 11.9, 12.0, 3599.0, 3600.0, 3610.0)}
    assert {now: lanes[0] for now, lanes in sent.items() if lanes} == {
        0.0: "/service", 1.0: "/reply", 2.0: "/reply", 12.0: "/service", 3599.0: "/service", 3610.0: "/marketing",
    }  # fmt: skip


def test_each_class_has_an_outlook() -> None:
    pace = DevicePace(Pace(5, 5), {"marketing": Pace(5, 5, quiet=QuietHours(time(7), time(9))), "reply": Pace()})
    scheduler = up(pace=pace)
    scheduler.hint("a", "/service", (1, 1), 0.0)
    (claim,) = take(scheduler)
    end(scheduler, claim, 10.0)
    outlook = scheduler.queues["a"].next_by_class(11.0)
    assert {name: (turn.at, turn.why) for name, turn in outlook.items()} == {
        "marketing": (3600.0, "its quiet hours"),
        "service": (15.0, "its gap"),
        "reply": (11.0, None),
    }


def test_a_lane_that_nobody_may_serve_waits_for_no_time() -> None:
    scheduler = up()
    scheduler.hint("a", SPRING, (1, 1), 0.0)
    assert scheduler.seconds_until_next(0.0) is None
    assert scheduler.queues["a"].next_send(Lane.named(SPRING), 0.0).at == NEVER


# ---- where lanes begin


def test_an_ask_begins_where_the_lane_does() -> None:
    scheduler = up()
    jobs = {LANE: lane_of(1, 3)}
    fill(scheduler, "a", jobs)
    serve(scheduler, jobs, 1)
    (ask,) = scheduler.next_requests(1, 0.0)
    assert place(1) <= ask.low <= place(2)


def test_a_hint_during_an_ask_tells_the_priority_of_what_is_left() -> None:
    scheduler = ready(device("a"))
    scheduler.hint("a", LANE, place(5, 9), 0.0)
    scheduler.hint("a", "/service", place(6, 5), 0.0)
    requests = scheduler.next_requests(1, 0.0)
    scheduler.hint("a", LANE, place(7, -1), 0.0)
    jobs = {LANE: [place(7, -1)], "/service": [place(6, 5)]}
    # The urgent job that was asked for is in flight now, and nothing urgent follows it.
    claim = Claim(5, 10, 1, 9, "a", 0, 5, "hold", place(5, 9)[0], LANE)
    scheduler.claimed(requests, [job(claim, None)], 0.0)
    end(scheduler, claim, 0.0)
    assert serve(scheduler, jobs, 2) == ["/service", LANE]


def test_of_two_hints_during_an_ask_none_is_lost() -> None:
    scheduler = up()
    fill(scheduler, "a", {LANE: [place(5)], "/service": [place(99)]})
    requests = scheduler.next_requests(1, 0.0)
    for number in (5, 7):
        scheduler.hint("a", LANE, place(number), 0.0)
    # The claim knew of the first one and took it, and nothing of the other.
    claim = Claim(5, 10, 1, 9, "a", 0, 5, "hold", place(5)[0], LANE)
    scheduler.claimed(requests, [job(claim, place(9))], 0.0)
    end(scheduler, claim, 0.0)
    (ask,) = scheduler.next_requests(1, 0.0)
    assert ask.low <= place(7)


# ---- more lanes than are remembered


def many(count: int) -> dict[str, Campaign]:
    return {f"c{number}": Campaign() for number in range(count)}


def test_a_device_remembers_so_many_lanes_and_no_more() -> None:
    scheduler = up(**many(500))
    for number in range(500):
        scheduler.hint("a", f"c{number}/marketing", place(number), 0.0)
        assert len(scheduler.queues["a"].lanes) < TRIM_AT


def test_what_is_forgotten_comes_last() -> None:
    scheduler = up(pace=DevicePace(Pace(), {"reply": Pace(quiet=QuietHours(time(7), time(12)))}), **many(500))
    urgent = "c7/marketing"
    scheduler.hint("a", urgent, place(900, 5), 0.0)
    for number in range(100, 500):
        scheduler.hint("a", f"c{number}/reply", place(number), 0.0)  # not before noon
        scheduler.hint("a", f"paused{number}/marketing", place(number), 0.0)
    for number in range(8, 20):
        scheduler.hint("a", f"c{number}/marketing", place(number), 0.0)
    scheduler.queues["a"].trim(0.0)
    kept = scheduler.queues["a"].lanes
    assert len(kept) == MOST_LANES
    assert kept.keys() >= {urgent, *(f"c{number}/marketing" for number in range(8, 20))}
    assert asked(scheduler) == ["a"]


def test_what_is_asked_for_or_in_hand_is_remembered() -> None:
    scheduler = up(room=3, **many(500))
    fill(scheduler, "a", {"c0/marketing": lane_of(1, 1)})
    (ask,) = scheduler.next_requests(1, 0.0)
    scheduler.claimed([ask], [job(Claim(1, ask.epoch, 1, 9, "a", 0, 5, "hold", 1, ask.lane))], 0.0)
    fill(scheduler, "a", {"c1/marketing": lane_of(2, 1)})
    (ask,) = scheduler.next_requests(1, 0.0)
    for number in range(2, 500):
        scheduler.hint("a", f"c{number}/marketing", place(number, 9), 0.0)
    lanes = scheduler.queues["a"].lanes
    assert (lanes["c0/marketing"].in_flight, lanes["c1/marketing"].claiming) == (1, True)
    scheduler.claim_failed([ask], 0.0)
    assert not scheduler.queues["a"].lanes["c1/marketing"].claiming


def test_more_campaigns_than_are_remembered_share_the_device() -> None:
    campaigns = many(3 * MOST_LANES)
    scheduler = up(**campaigns)
    jobs = {f"{name}/marketing": lane_of(10 * number, 5) for number, name in enumerate(campaigns)}
    served: Counter[str] = Counter()
    for _ in range(2 * len(campaigns)):
        fill(scheduler, "a", {lane: places for lane, places in jobs.items() if places})  # as a scan does
        served.update(serve(scheduler, jobs, 1))
    assert set(served.values()) == {2}
