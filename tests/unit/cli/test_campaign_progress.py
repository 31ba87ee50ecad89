"""A campaign's rate, remaining time and what it waits for, computed from counts alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.queue.campaign_progress import least_by_cap, progress_of
from shardd.queue.campaigns import CampaignDetails, CampaignRow, DeviceShare, Pool

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW = CampaignRow("spring", None, "running", "running", None, NOW, 1.0, None, NOW, 0, 0, None)


def share(device: str | None = "d1", state: str | None = "ready", **counts: Any) -> DeviceShare:
    """`sent_ago` and `first_ago`: seconds since the last message, and since the first one, also of the last ten minutes."""
    last, first = counts.pop("sent_ago", None), counts.pop("first_ago", None)
    names = ("queued", "scheduled", "sending", "sent", "failed", "in_doubt", "expired", "opted_out", "cancelled")
    fields = dict.fromkeys((*names, "sent_lately", "sent_today", "lane_waits"), 0)
    fields |= {"next_due": None, "lane_why": None, "lane_until": None} | counts
    return DeviceShare(
        device_id=device,
        transport="sandbox",
        device_state=state,
        first_sent=None if first is None else NOW - timedelta(seconds=first),
        first_lately=None if first is None else NOW - timedelta(seconds=first),
        last_sent=None if last is None else NOW - timedelta(seconds=last),
        **fields,
    )


def details(*shares: DeviceShare, pools: tuple[Pool, ...] = (), **row: Any) -> CampaignDetails:
    return CampaignDetails(replace(ROW, **row), shares, pools)


@pytest.mark.parametrize(
    ("first_ago", "sent_ago", "sent_lately", "rate", "moves"),
    [
        (5, 0, 3, 3.0, True),  # as if over a minute
        (300, 0, 101, 20.0, True),
        (600, 300, 101, 20.0, False),  # the same, before it stopped
        (600, 50, 12, 1.2, True),
        (590, 140, 4, 0.4, True),  # every 150 s
        (5, 5, 1, 0.0, False),
        (None, None, 0, 0.0, False),
    ],
)
def test_the_rate_is_of_the_time_in_which_it_sent(
    first_ago: float | None, sent_ago: float | None, sent_lately: int, rate: float, moves: bool
) -> None:
    one = share(sent=1000, sent_lately=sent_lately, first_ago=first_ago, sent_ago=sent_ago, queued=10)
    progress = progress_of(details(one), NOW)
    assert (progress.rate, progress.moves, progress.seconds_left is not None) == (rate, moves, moves)
    assert not progress_of(details(one, state="paused"), NOW).moves


def test_a_campaign_without_jobs_that_are_left_has_no_rate() -> None:
    ended = share(sent=50, sent_lately=50, first_ago=300, sent_ago=1)
    progress = progress_of(details(ended), NOW)
    assert (progress.rate_text, progress.time_left) == ("", "")


def test_jobs_that_wait_for_limits_or_hours_are_not_promised() -> None:
    until = NOW + timedelta(hours=8)
    sends = share(queued=10, sent=50, sent_lately=51, first_ago=300, sent_ago=0)
    limit, late = (
        share(
            f"d{hours}",
            queued=5,
            scheduled=1,
            lane_waits=5,
            lane_why="its daily limit",
            lane_until=until + timedelta(hours=hours),
        )
        for hours in (2, 3)
    )
    error = share("d4", queued=1, lane_waits=1, lane_why="a backoff of its device (refused)", lane_until=until)
    paused = share("d5", "paused", queued=2, lane_waits=2, lane_why="its daily limit", lane_until=until)
    progress = progress_of(details(sends, limit, late, error, paused), NOW)
    assert progress.held_back == 13
    assert progress.held_back_by == (
        "1 device paused, 2 devices wait for: its daily limit, the first until 2026-03-01 22:00 UTC, "
        "1 device waits for: a backoff of its device, until 2026-03-01 20:00 UTC"
    )
    assert progress.seconds_left == 60 * 12 / 10
    assert progress.time_left.startswith("at least 1m 12s for those that are not held back at this rate; limits")
    stuck = progress_of(details(replace(limit, scheduled=0)), NOW)
    assert stuck.waits_for == "1 device waits for: its daily limit, until 2026-03-01 22:00 UTC"


def test_the_time_left_is_of_jobs_that_can_be_sent() -> None:
    well = share(queued=100, sending=1, sent=50, sent_lately=51, first_ago=600, sent_ago=0)
    dead = share("d2", "banned", queued=1000)
    pool = Pool("team", jobs=30, devices=2, able=0)
    progress = progress_of(details(well, dead, share(None, None, queued=30), pools=(pool,)), NOW)
    assert progress.held_back == 1030
    assert progress.held_back_by == "1 device banned, group team: 0 of 2 devices can send"
    assert progress.seconds_left == 60 * 101 / 5
    assert progress.waits_for is None
    assert (progress.total, progress.ended) == (1181, 50)
    assert progress_of(details(well, state="paused"), NOW).seconds_left is None


def test_a_device_that_is_at_its_cap_holds_back() -> None:
    full, free = share(queued=5, sent_today=3), share("d2", queued=5, sent_today=2)
    assert progress_of(details(full, free, device_cap=3), NOW).held_back == 5
    assert progress_of(details(full, device_cap=3), NOW).waits_for == "1 device at the cap of 3 a day"
    assert progress_of(details(full), NOW).held_back == 0
    # What is in flight moves.
    assert progress_of(details(share(sending=1, queued=5, sent_today=3), device_cap=3), NOW).waits_for is None


def test_a_cap_that_will_be_reached_counts() -> None:
    moving = {"sent": 50, "sent_lately": 51, "first_ago": 300, "sent_ago": 0}
    one = share(queued=1000, sent_today=50, **moving)
    assert progress_of(details(one), NOW).seconds_left == 60 * 1000 / 10
    capped = progress_of(details(one, device_cap=100), NOW)
    assert capped.seconds_left == 86400 * 9 - 3600  # 50 today, the last 50 on the tenth day after it
    assert capped.time_left.startswith("at least 8d 23h at this rate; limits")
    full = share("d2", queued=100_000, sent_today=100)
    assert progress_of(details(one, full, device_cap=100), NOW).seconds_left == capped.seconds_left
    pool = share(None, None, queued=100_000)
    assert least_by_cap(details(pool, device_cap=1)) == 0.0


@given(
    st.integers(0, 400),
    st.integers(0, 60),
    st.integers(1, 50),
    st.floats(0, 24),
    st.lists(st.sampled_from([23, 24, 25])),
)
def test_no_day_of_any_length_sends_what_a_cap_holds_back_sooner(
    waiting: int, sent_today: int, cap: int, left_of_today: float, days: list[int]
) -> None:
    """Beside a device that sends in no time, on days of which one a year has 23 hours and one 25."""
    hours = 0.0
    for day in itertools.count():
        waiting_now = max(0, waiting - max(0, cap - sent_today) - cap * (day - 1)) if day else waiting
        sends = max(0, cap - sent_today) if day == 0 else cap
        if waiting_now <= sends:
            break
        hours += left_of_today if day == 0 else (days[day - 1] if day == 1 and days else 24)
    campaign = details(share(queued=waiting, sent_today=sent_today), device_cap=cap)
    assert least_by_cap(campaign) <= 3600 * hours
    if waiting <= cap - sent_today:
        assert least_by_cap(campaign) == 0.0


@pytest.mark.parametrize(
    ("campaign", "waits_for"),
    [
        (details(), "its first job"),
        (details(share(sent=5)), None),
        (details(share(sent=5), state="cancelled"), None),
        (details(share(queued=5), state="cancelled"), "nothing: it was cancelled, and its jobs end while shardd runs"),
        (details(share(queued=5), state="paused", why="holidays"), "a person: it is paused, holidays"),
        (details(share(queued=5, sent_ago=59)), None),
        (
            details(share(queued=5, sent_ago=61, sent_lately=9, first_ago=100)),
            "the turns of its devices; when one may send: shardd device show ID",
        ),
        (details(share(None, None, queued=5), pools=(Pool("g", 5, 1, 0),)), "group g: 0 of 1 device can send"),
        (details(share(scheduled=5)), "the jobs before its own in their order groups"),
        (
            details(share(scheduled=5, next_due=NOW + timedelta(hours=3))),
            "the time of its jobs: the next one is due in 3h",
        ),
        (details(share(scheduled=5, next_due=NOW - timedelta(seconds=3))), "its turn"),
    ],
)
def test_what_keeps_a_campaign_from_moving(campaign: CampaignDetails, waits_for: str | None) -> None:
    assert progress_of(campaign, NOW).waits_for == waits_for
