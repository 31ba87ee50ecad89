"""Campaigns with a real daemon: what the sandbox delivered, in which order, and when each job was claimed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.command import Command
from tests.support.daemon import PATIENCE, Daemon, Producer

QUEUE = 200_000
DEVICES = 40


def add_jobs(producer: Producer, campaign: str | None, count: int, devices: int) -> None:
    """Jobs on the devices in turn, with their campaign as body."""
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign) "
        "SELECT 'd' || 1 + g %% %s, '+49151' || 1000000 + g, coalesce(%s, 'none'), %s FROM generate_series(0, %s - 1) g",
        *(devices, campaign, campaign, count),
    )


def add_campaigns(producer: Producer, *names: str, **terms: object) -> None:
    for name in names:
        producer.execute(
            "INSERT INTO shardd.campaigns (id, weight, device_cap) VALUES (%s, %s, %s)",
            *(name, terms.get("weight", 1), terms.get("device_cap")),
        )


def turn(producer: Producer, campaign: str, state: str) -> datetime:
    """Put a campaign into a state; returns a moment of the database's clock after the commit."""
    producer.execute("UPDATE shardd.campaigns SET state = %s, state_since = now() WHERE id = %s", state, campaign)
    ((moment,),) = producer.execute("SELECT clock_timestamp()")
    assert isinstance(moment, datetime)
    return moment


def claimed_after(producer: Producer, campaign: str, moment: datetime) -> int:
    ((count,),) = producer.execute(
        "SELECT count(*) FROM (SELECT campaign, claimed_at FROM shardd.jobs "
        "UNION ALL SELECT campaign, claimed_at FROM shardd.archive) j WHERE campaign = %s AND claimed_at > %s",
        *(campaign, moment),
    )
    return int(count)


def sent(producer: Producer, campaign: str | None) -> int:
    ((count,),) = producer.execute(
        "SELECT count(*) FROM shardd.archive WHERE state = 'sent' AND campaign IS NOT DISTINCT FROM %s", campaign
    )
    return int(count)


def times_delivered(daemon: Daemon) -> set[int]:
    """How often each message was delivered that was delivered at all."""
    return set(Counter(message["job"] for message in daemon.messages()).values())


def bodies(daemon: Daemon) -> Counter[str]:
    return Counter(message["body"] for message in daemon.messages())


def zone_where_it_is_noon() -> str:
    """So that no midnight falls into a test."""
    offset = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-offset:+d}" if offset else "UTC"


@pytest.mark.timeout(5 * PATIENCE)
async def test_a_long_queue_is_paused_resumed_and_cancelled_at_once(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    shardd = Command(daemon.config_file)
    producer.add_devices(DEVICES)
    add_campaigns(producer, "big")
    add_jobs(producer, "big", QUEUE, DEVICES)
    await daemon.start()
    await daemon.until(lambda s: s["totals"]["sent"] >= 500)

    paused = turn(producer, "big", "paused")
    # The same devices go on with what is not paused, past 200,000 jobs that are.
    add_jobs(producer, None, 400, DEVICES)
    await daemon.until(lambda s: sent(producer, None) == 400 and s["totals"]["in_flight"] == 0)
    assert claimed_after(producer, "big", paused) == 0
    done = sent(producer, "big")
    assert bodies(daemon) == {"big": done, "none": 400}
    waits = producer.execute(
        "SELECT DISTINCT waits_for FROM shardd.outcomes WHERE campaign = 'big' AND state = 'queued'"
    )
    assert waits == [("its campaign: paused",)]
    shown = (await shardd("campaign", "show", "big", "--json")).json["progress"]
    assert (shown["states"]["sent"], shown["states"]["queued"]) == (done, QUEUE - done)
    assert shown["waits_for"] == "a person: it is paused"

    await daemon.until(lambda s: s["queue"]["paused_jobs"] == QUEUE - done)
    assert "1 paused with" in (await shardd("status")).out
    assert (await shardd("campaign", "resume", "big")).code == 0
    await daemon.until(lambda s: sent(producer, "big") >= done + 500)
    ran = await shardd("campaign", "cancel", "big", "--yes", "--why", "enough")
    assert ran.code == 0
    ((cancelled,),) = producer.execute("SELECT clock_timestamp()")
    await daemon.until(lambda s: producer.execute("SELECT count(*) FROM shardd.jobs") == [(0,)])
    assert claimed_after(producer, "big", cancelled) == 0
    assert await daemon.stop() == 0
    done = sent(producer, "big")
    assert producer.states() == {"sent": done + 400, "cancelled": QUEUE - done}
    assert producer.execute("SELECT DISTINCT error, error_class FROM shardd.archive WHERE state = 'cancelled'") == [
        ("its campaign was cancelled: enough", "cancelled")
    ]
    assert bodies(daemon) == {"big": done, "none": 400}
    assert times_delivered(daemon) == {1}


async def test_what_is_in_hand_when_its_campaign_is_cancelled_is_finished(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(transports={"sandbox": {"latency_min": "500ms", "latency_max": "1s"}})
    producer.add_devices(4)
    add_campaigns(producer, "big")
    add_jobs(producer, "big", 40, 4)
    await daemon.start()
    await daemon.until(lambda s: s["totals"]["in_flight"] == 4)
    turn(producer, "big", "cancelled")
    in_flight = {row[0] for row in producer.execute("SELECT id FROM shardd.jobs WHERE claimed_epoch IS NOT NULL")}
    assert in_flight
    await daemon.until(lambda s: producer.execute("SELECT count(*) FROM shardd.jobs") == [(0,)])
    states = dict(producer.execute("SELECT id, state FROM shardd.outcomes"))
    assert {states[job] for job in in_flight} == {"sent"}
    assert {message["job"] for message in daemon.messages()} == {
        job for job, state in states.items() if state == "sent"
    }


async def test_a_cap_per_device_and_day_outlives_a_killed_daemon(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    devices, cap = 20, 3
    daemon = make_daemon(
        pacing={"timezone": zone_where_it_is_noon()},
        transports={"sandbox": {"latency_min": "20ms", "latency_max": "60ms"}},
    )
    shardd = Command(daemon.config_file)
    producer.add_devices(devices)
    add_campaigns(producer, "big", device_cap=cap)
    add_jobs(producer, "big", devices * 10, devices)
    await daemon.start()
    await daemon.until(lambda s: s["totals"]["sent"] >= devices)
    daemon.kill()
    await daemon.wait_end()
    await daemon.start()
    await daemon.until(lambda s: sent(producer, "big") == devices * cap)
    await daemon.stop()
    await daemon.start()
    # Every device has turns again, and gives none of them to the campaign.
    add_jobs(producer, None, devices * 5, devices)
    await daemon.until(lambda s: sent(producer, None) == devices * 5)
    assert delivered_by_device(daemon, "big") == [cap] * devices
    shown = (await shardd("campaign", "show", "big", "--json")).json
    assert shown["progress"]["waits_for"] == f"{devices} devices at the cap of {cap} a day"
    assert {device["sent_today"] for device in shown["devices"]} == {cap}

    await shardd("campaign", "set", "big", "--device-cap", cap + 2)
    await daemon.until(lambda s: sent(producer, "big") == devices * (cap + 2))
    await shardd("campaign", "set", "big", "--device-cap", 0)
    await daemon.until(lambda s: sent(producer, "big") == devices * 10)
    assert times_delivered(daemon) == {1}


async def test_a_cap_that_comes_during_the_day_counts_what_was_sent_before(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(pacing={"timezone": zone_where_it_is_noon()})
    shardd = Command(daemon.config_file)
    producer.add_devices(2)
    add_campaigns(producer, "big")
    add_jobs(producer, "big", 8, 2)
    await daemon.start()
    await daemon.until(lambda s: sent(producer, "big") == 8)
    # A new cap holds within about a second; a pause holds at once.
    assert (await shardd("campaign", "pause", "big")).code == 0
    add_jobs(producer, "big", 8, 2)
    await daemon.until(lambda s: s["queue"]["paused_jobs"] == 8)
    assert (await shardd("campaign", "set", "big", "--device-cap", 5)).code == 0
    assert (await shardd("campaign", "resume", "big")).code == 0
    add_jobs(producer, None, 10, 2)
    await daemon.until(lambda s: sent(producer, None) == 10 and sent(producer, "big") >= 10)
    assert delivered_by_device(daemon, "big") == [5, 5]


async def test_campaigns_share_a_device_by_their_weights(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    producer.add_devices(1)
    add_campaigns(producer, "big", "equal")
    add_campaigns(producer, "heavy", weight=2)
    add_jobs(producer, "big", 20_000, 1)
    add_jobs(producer, "equal", 100, 1)
    await daemon.start()
    await daemon.until(lambda s: sent(producer, "equal") == 100)
    order = [message["body"] for message in daemon.messages()]
    # The hundredth of the small one is the two hundredth of both, give or take what was being claimed.
    assert abs(last(order, "equal") - 200) <= 10, Counter(order[:250])

    # One that comes later gets no more than its share, and its share from the first message on.
    before = len(daemon.messages())
    add_jobs(producer, "heavy", 200, 1)
    await daemon.until(lambda s: sent(producer, "heavy") == 200)
    assert await daemon.stop() == 0
    order = [message["body"] for message in daemon.messages()][before:]
    shared = order[order.index("heavy") : last(order, "heavy")]
    assert abs(len(shared) - 300) <= 10, Counter(shared)
    for start in range(0, 280, 30):
        assert 17 <= shared[start : start + 30].count("heavy") <= 23, (start, shared[start : start + 30])
    assert times_delivered(daemon) == {1}


async def test_a_campaign_in_which_nothing_is_said_shares_with_jobs_that_have_none(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    producer.add_devices(1)
    add_campaigns(producer, "big")
    add_jobs(producer, "big", 5000, 1)
    add_jobs(producer, None, 50, 1)
    await daemon.start()
    await daemon.until(lambda s: sent(producer, None) == 50)
    order = [message["body"] for message in daemon.messages()]
    assert abs(last(order, "none") - 100) <= 10, Counter(order[:150])


def delivered_by_device(daemon: Daemon, body: str) -> list[int]:
    counts = Counter(message["device"] for message in daemon.messages() if message["body"] == body)
    return sorted(counts.values())


def last(order: list[Any], one: str) -> int:
    """How many stand before the last of its kind, itself included."""
    return len(order) - order[::-1].index(one)
