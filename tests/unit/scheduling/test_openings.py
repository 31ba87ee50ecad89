"""No more jobs are claimed for devices without a client than their worker can connect; the others wait in their order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from shardd.ipc import Clients
from shardd.queue.records import ClaimRequest, Device
from shardd.states import DeviceState, Verdict
from shardd.supervisor.scheduling.outlook import device_outlook
from shardd.supervisor.scheduling.scheduler import IDLE, Scheduler
from tests.support.scheduler_by_hand import LANE, asked, device, end, look, make_scheduler, ready, take


def paired(name: str) -> Device:
    return device(name, transport="whatsapp", session=f"{name}@s.whatsapp.net")


def limited(most: int, *names: str) -> Scheduler:
    """The worker of shard 0 can open so many clients at a time, and these devices have jobs and no client."""
    scheduler = make_scheduler()
    look(scheduler, *map(paired, names))
    scheduler.clients_changed(0, Clients(openings=most, anew=True), 0.0)
    for shard in (0, 1):
        scheduler.shard_up(shard, 10 + shard, 0.0)
    for name in names:
        scheduler.hint(name, LANE, (1, 1), 0.0)
    return scheduler


def opened(scheduler: Scheduler, *names: str, openings: int) -> None:
    scheduler.clients_changed(0, Clients(opened=list(names), openings=openings), 0.0)


def test_no_more_are_claimed_for_than_can_open_and_each_that_is_open_makes_place_for_the_next() -> None:
    scheduler = limited(2, "a1", "a2", "a3", "a4")
    first, _ = take(scheduler)
    assert first.device_id == "a1"
    assert asked(scheduler) == []
    assert scheduler.seconds_until_next(0.0) is None, "it would be looked at without end"
    opened(scheduler, "a1", openings=2)
    assert asked(scheduler) == ["a3"]
    assert asked(scheduler) == []
    opened(scheduler, openings=3)
    assert asked(scheduler) == ["a4"]


def test_devices_with_a_client_never_wait_for_those_without() -> None:
    scheduler = limited(1, "a1", "a2", "a3")
    take(scheduler)
    opened(scheduler, "a3", openings=0)
    assert asked(scheduler) == ["a3"]
    scheduler.clients_changed(0, Clients(closed=["a3"], openings=0), 0.0)
    scheduler.hint("a3", LANE, (1, 1), 0.0)
    assert asked(scheduler) == []


def test_a_claim_that_ends_before_its_client_is_open_makes_place() -> None:
    scheduler = limited(1, "a1", "a2")
    (claim,) = take(scheduler)
    end(scheduler, claim, 0.0, verdict=Verdict.UNAVAILABLE, retry_after=100.0)
    assert asked(scheduler) == ["a2"]


def test_a_claim_without_a_job_and_one_that_failed_make_place() -> None:
    scheduler = limited(1, "a1", "a2", "a3")
    requests = scheduler.next_requests(10, 0.0)
    scheduler.claimed(requests, [], 0.0)
    requests = scheduler.next_requests(10, 0.0)
    assert [each.device_id for each in requests] == ["a2"]
    scheduler.claim_failed(requests, 0.0)
    assert asked(scheduler) == ["a3"], "the next one in line"


def test_those_that_wait_keep_their_order_when_others_get_work() -> None:
    scheduler = limited(1, "a1", "a2", "a3")
    (claim,) = take(scheduler)
    assert asked(scheduler) == []
    look(scheduler, *map(paired, ("a1", "a2", "a3", "a4")))
    scheduler.hint("a4", LANE, (1, 1), 0.0)
    end(scheduler, claim, 0.0, verdict=Verdict.UNAVAILABLE, retry_after=100.0)
    assert asked(scheduler) == ["a2"]


def test_a_place_is_not_kept_for_a_device_that_cannot_use_it() -> None:
    scheduler = limited(1, "a1", "a2", "a3", "a4")
    (claim,) = take(scheduler)
    assert asked(scheduler) == []
    rows = {name: paired(name) for name in ("a1", "a2", "a3", "a4")}
    rows["a2"] = replace(rows["a2"], paused_at=datetime.now(UTC))
    del rows["a3"]
    look(scheduler, *rows.values())
    end(scheduler, claim, 0.0, verdict=Verdict.UNAVAILABLE, retry_after=100.0)
    assert asked(scheduler) == ["a4"]


def test_a_place_is_not_kept_for_a_device_that_was_paused_when_it_was_next() -> None:
    scheduler = limited(1, "a1", "a2", "a3")
    (claim,) = take(scheduler)
    assert asked(scheduler) == []
    end(scheduler, claim, 0.0, verdict=Verdict.UNAVAILABLE, retry_after=100.0)
    look(scheduler, paired("a1"), replace(paired("a2"), paused_at=datetime.now(UTC)), paired("a3"))
    assert asked(scheduler) == ["a3"]


def test_a_device_that_was_unpaired_or_removed_keeps_no_place() -> None:
    for left in ([device("a1", transport="whatsapp")], []):
        scheduler = limited(1, "a1", "a2", "a3")
        requests = scheduler.next_requests(10, 0.0)
        look(scheduler, *left, paired("a2"), paired("a3"))
        scheduler.claimed(requests, [], 0.0)
        assert asked(scheduler) == ["a2"]


def test_a_new_worker_has_no_client_and_no_limit_before_it_has_reported_one() -> None:
    scheduler = limited(1, "a1", "a2", "a3")
    (claim,) = take(scheduler)
    opened(scheduler, "a1", openings=0)
    end(scheduler, claim, 0.0)
    scheduler.shard_down(0)
    scheduler.clients_changed(0, Clients(anew=True), 0.0)
    scheduler.shard_up(0, 12, 0.0)
    assert sorted(asked(scheduler)) == ["a1", "a2", "a3"]
    scheduler.claim_failed([ClaimRequest("a1", LANE, 12, (1, 1), 1)], 0.0)
    scheduler.clients_changed(0, Clients(openings=0), 0.0)
    scheduler.hint("a1", LANE, (1, 1), 0.0)
    assert asked(scheduler) == []


def test_devices_without_a_session_are_never_held() -> None:
    scheduler = ready(device("a1"), device("a2"))
    scheduler.clients_changed(0, Clients(openings=0, anew=True), 0.0)
    assert asked(scheduler) == ["a1", "a2"]


def test_a_device_that_waits_for_a_place_is_no_problem_and_says_so() -> None:
    scheduler = limited(1, "a1", "a2", "a3")
    take(scheduler)
    assert asked(scheduler) == []
    scheduler.scanned({"a2", "a3"}, IDLE + 1)
    opened(scheduler, "a1", openings=0)
    scheduler.scanned({"a2", "a3"}, 2 * IDLE + 1)
    assert list(scheduler.problems()) == []
    outlook = device_outlook(scheduler, scheduler.queues["a3"], 0.0, lambda _: None)
    assert outlook.held == "its worker opens the clients of other devices first: 2 devices wait"
    assert scheduler.queues["a3"].state is DeviceState.READY


def test_that_a_worker_opens_nothing_is_a_problem() -> None:
    scheduler = limited(0, "a1", "a2")
    assert asked(scheduler) == []
    scheduler.scanned({"a1", "a2"}, 100.0)
    scheduler.scanned({"a1", "a2"}, 100.0 + IDLE)
    (problem,) = scheduler.problems()
    assert "2 devices of a shard wait for a client, and their worker has opened none for 15 s" in problem.text
