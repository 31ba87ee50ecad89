"""How fast a device sends, through SQL and the command line with a running daemon, checked in the sandbox's record."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from tests.support.command import Command
from tests.support.daemon import Daemon, Producer

Make = Callable[..., Daemon]

INSERT = (
    "INSERT INTO shardd.jobs (device_id, recipient, body, class, campaign) "
    "SELECT %s, '+49151' || 1000000 + g, g::text, %s, %s FROM generate_series(1, %s) g"
)
ROUNDING = 0.005
"""Seconds between the clock of the gaps and that of the record."""


def insert(
    producer: Producer, count: int, device: str = "d1", job_class: str = "marketing", campaign: str | None = None
) -> None:
    producer.execute(INSERT, device, job_class, campaign, count)


def record(daemon: Daemon, device: str = "d1") -> list[dict[str, Any]]:
    """What a device sent, in the order of time."""
    return sorted((m for m in daemon.messages() if m["device"] == device), key=lambda message: message["at"])


def gaps(daemon: Daemon, device: str = "d1") -> list[float]:
    return [after["at"] - before["at"] for before, after in pairwise(record(daemon, device))]


async def until_sent(daemon: Daemon, count: int, device: str = "d1") -> None:
    await daemon.until(lambda _: len(record(daemon, device)) >= count)


async def until_settled(daemon: Daemon, producer: Producer, sent: int, waiting: int) -> None:
    """Until so many jobs are sent, and what is left waits for its turn in the daemon's eyes too."""
    await daemon.until(
        lambda s: s["totals"]["in_flight"] == 0 and producer.states() == {"sent": sent, "queued": waiting}
    )


async def outlook(daemon: Daemon, device: str = "d1") -> dict[str, Any]:
    shown = (await Command(daemon.config_file)("device", "show", device, "--json")).json
    assert not shown["reckoned"]
    found: dict[str, Any] = shown
    return found


def zone_within_an_hour() -> str:
    """A time zone whose hour does not end soon."""
    return "UTC" if datetime.now(UTC).minute < 30 else "Asia/Kolkata"


async def test_a_restart_never_makes_a_burst(make_daemon: Make, producer: Producer) -> None:
    reply = {"gap_min": 0, "gap_max": 0, "burst": 2}
    daemon = make_daemon(pacing={"gap_min": "6s", "gap_max": "6s", "classes": {"reply": reply}})
    producer.add_devices(2)
    insert(producer, 3, "d1")
    insert(producer, 3, "d2", "reply")
    await daemon.start()
    await until_sent(daemon, 1, "d1")
    await until_sent(daemon, 2, "d2")
    assert await daemon.stop() == 0
    await daemon.start()
    await until_sent(daemon, 2, "d1")
    daemon.kill(signal.SIGKILL)
    await daemon.wait_end()
    await daemon.start()
    assert await producer.until_finished(daemon, 6) == {"sent": 6}
    assert len(record(daemon, "d1")) == 3
    assert min(gaps(daemon, "d1")) >= 6 - ROUNDING
    assert gaps(daemon, "d2")[1] >= 6 - ROUNDING


async def test_limits_hold_over_restarts_and_are_told(make_daemon: Make, producer: Producer) -> None:
    daemon = make_daemon(pacing={"hourly_limit": 3, "timezone": zone_within_an_hour(), "warm_up": "2, 4"})
    producer.execute(
        "INSERT INTO shardd.devices (id, transport, daily_limit, warm) "
        "VALUES ('hourly', 'sandbox', 0, true), ('new', 'sandbox', 100, false), ('class', 'sandbox', 0, true)"
    )
    producer.execute("""UPDATE shardd.devices SET classes = '{"marketing": {"hourly_limit": 1}}' WHERE id = 'class'""")
    for device in ("hourly", "new", "class"):
        insert(producer, 5, device)
    await daemon.start()
    await until_settled(daemon, producer, 6, 9)
    assert await daemon.stop() == 0
    await daemon.start()
    insert(producer, 4, "class", "service")  # of the same hour's three, one is spent
    await until_settled(daemon, producer, 8, 11)
    assert [len(record(daemon, device)) for device in ("hourly", "new", "class")] == [3, 2, 3]

    shown = await outlook(daemon, "hourly")
    assert (shown["sent_today"], shown["sent_this_hour"]) == (3, 3)
    assert {turn["why"] for turn in shown["next"].values()} == {"its hourly limit"}
    assert all(0 < turn["wait"] <= 3600 for turn in shown["next"].values())
    words = " ".join((await Command(daemon.config_file)("device", "show", "new")).out.split())
    assert "sent today 2 of 2; day 1 of 2 of its warm-up; this hour 2 of 3" in words
    assert ": its warm-up" in words

    # A day passes: the next step of the warm-up, and new hours.
    daemon.kill(signal.SIGKILL)
    await daemon.wait_end()
    producer.execute("UPDATE shardd.device_days SET day = day - 1, last_at = last_at - interval '1 day'")
    producer.execute("UPDATE shardd.devices SET hourly_limit = 0 WHERE id = 'new'")
    await daemon.start()
    await daemon.until(lambda _: len(record(daemon, "new")) == 5)
    shown = await outlook(daemon, "new")
    assert (shown["sent_today"], shown["sending_days"], shown["next"]["marketing"]["why"]) == (3, 1, None)
    jobs = [message["job"] for message in daemon.messages()]
    assert len(jobs) == len(set(jobs))


async def test_quiet_hours_hold_what_they_are_for_and_a_running_shardd_takes_changes_at_once(
    make_daemon: Make, producer: Producer
) -> None:
    now = datetime.now(UTC)
    quiet = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    daemon = make_daemon(pacing={"quiet_hours": quiet})
    producer.add_devices(2)
    producer.execute("UPDATE shardd.devices SET quiet_hours = 'none' WHERE id = 'd2'")
    insert(producer, 2, "d1")
    insert(producer, 2, "d1", "reply")
    insert(producer, 2, "d2")
    await daemon.start()
    await until_settled(daemon, producer, 4, 2)
    assert [message["device"] for message in daemon.messages()].count("d1") == 2
    turns = (await outlook(daemon))["next"]
    assert (turns["reply"]["why"], turns["marketing"]["why"]) == (None, "its quiet hours")
    assert 3600 < turns["service"]["wait"] <= 2 * 3600

    changed = await Command(daemon.config_file)("device", "set", "d1", "--quiet-hours", "none", "--gap", "1h..1h")
    assert changed.code == 0
    # Its replies were its last messages, and the new gap counts from them.
    while (why := (await outlook(daemon))["next"]["marketing"]["why"]) == "its quiet hours":
        await daemon.wait_change()
    assert why == "its gap"
    assert (await Command(daemon.config_file)("device", "set", "d1", "--gap", "default")).code == 0
    assert await producer.until_finished(daemon, 6) == {"sent": 6}


async def test_replies_overtake_marketing_in_a_burst_and_give_it_back_its_gap(
    make_daemon: Make, producer: Producer
) -> None:
    reply = {"gap_min": 0, "gap_max": 0, "burst": 3}
    daemon = make_daemon(pacing={"gap_min": "1h", "gap_max": "1h", "classes": {"reply": reply}})
    producer.add_devices(1)
    insert(producer, 2)
    await daemon.start()
    await until_sent(daemon, 1)
    insert(producer, 3, job_class="reply")
    await until_settled(daemon, producer, 4, 1)
    assert {turn["why"] for turn in (await outlook(daemon))["next"].values()} == {"its gap"}
    assert (await Command(daemon.config_file)("device", "set", "d1", "--gap", "3s..3s")).code == 0
    assert await producer.until_finished(daemon, 5) == {"sent": 5}
    kinds = dict(producer.execute("SELECT id, class FROM shardd.archive"))
    sent = [kinds[message["job"]] for message in record(daemon)]
    assert sent == ["marketing", "reply", "reply", "reply", "marketing"]
    assert gaps(daemon)[3] >= 3 - ROUNDING


async def test_campaigns_on_one_device_share_one_gap(make_daemon: Make, producer: Producer) -> None:
    daemon = make_daemon(pacing={"gap_min": "200ms", "gap_max": "400ms"})
    producer.add_devices(1)
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring'), ('sale')")
    for campaign in ("spring", "sale", None):
        insert(producer, 5, campaign=campaign)
        insert(producer, 2, campaign=campaign, job_class="service")
    await daemon.start()
    assert await producer.until_finished(daemon, 21) == {"sent": 21}
    assert min(gaps(daemon)) >= 0.2 - ROUNDING
    assert len({message["job"] for message in record(daemon)}) == len(record(daemon)) == 21


async def test_stopping_again_and_again_in_the_middle_of_the_work_keeps_the_gap(
    make_daemon: Make, producer: Producer
) -> None:
    daemon = make_daemon(pacing={"gap_min": "300ms", "gap_max": "600ms"})
    producer.add_devices(3)
    producer.add_jobs(30, 3)
    for round_, stop in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL), 1):
        await daemon.start()
        await until_sent(daemon, 2 * round_)
        daemon.kill(stop)
        await daemon.wait_end()
    await daemon.start()
    assert await producer.until_finished(daemon, 30) == {"sent": 30}
    for device in ("d1", "d2", "d3"):
        assert len(record(daemon, device)) == 10
        assert min(gaps(daemon, device)) >= 0.3 - ROUNDING


async def test_a_node_that_takes_over_keeps_the_gap(make_daemon: Make, producer: Producer) -> None:
    config: dict[str, Any] = {
        "shards": 4,
        "pacing": {"gap_min": "6s", "gap_max": "6s"},
        "lease": {"ttl": "4s", "renew_every": "500ms", "margin": "1s"},
    }
    one, two = make_daemon(node="one", **config), make_daemon(node="two", **config)
    for place, daemon in enumerate((one, two)):
        daemon.take_place(place)
        daemon.settings["database"] |= {"connect_timeout": "1s", "statement_timeout": "1s"}
    devices = producer.add_devices(8)
    await one.start()
    await two.start()
    both = (one, two)
    for daemon in both:
        await daemon.until(lambda s: 0 < sum(x["state"] == "running" for x in s["shards"]) < 4)
    producer.add_jobs(16, 8)
    await one.until(lambda _: len(one.messages() + two.messages()) >= 8)
    assert await one.stop() == 0
    assert await producer.until_finished(two, 16) == {"sent": 16}
    for device in devices:
        first, second = sorted(message["at"] for daemon in both for message in record(daemon, device))
        assert second - first >= 6 - ROUNDING


async def test_a_sandbox_device_has_as_many_messages_in_flight_as_configured(
    make_daemon: Make, producer: Producer
) -> None:
    daemon = make_daemon(transports={"sandbox": {"in_flight": 3, "hang_rate": 1.0, "hang_for": "10m"}})
    producer.add_devices(1)
    producer.add_jobs(5, 1)
    await daemon.start()
    # Each hangs once it is recorded, so that the fourth never begins, and the second only beside the first.
    await daemon.until(lambda s: s["totals"]["in_flight"] == 3 and len(daemon.messages()) == 3)
