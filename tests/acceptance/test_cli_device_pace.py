"""The pacing options of `shardd device add`, `set` and `show`, without a daemon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from tests.support.command import Command
from tests.support.daemon import Producer

ROW = "SELECT gap_min, gap_max, hourly_limit, daily_limit, quiet_hours, timezone, warm, classes, label, proxy FROM shardd.devices"


async def test_a_device_is_added_with_a_pace_and_set_to_another_one(shardd: Command, producer: Producer) -> None:
    added = await shardd(
        *("device", "add", "d1", "d2", "--transport=sandbox", "--gap=1s..2m", "--hourly-limit=30", "--daily-limit=40"),
        *("--quiet-hours=21:00-08:00", "--timezone=Asia/Jakarta", "--warm", "--class=reply:gap=500ms..2s,burst=5"),
        *("--class", "marketing:daily-limit=10, quiet_hours=none"),
    )
    assert (added.code, added.err) == (0, "")
    classes = {
        "reply": {"gap_min": 0.5, "gap_max": 2.0, "burst": 5},
        "marketing": {"daily_limit": 10, "quiet_hours": "none"},
    }
    whole = (1.0, 120.0, 30, 40, "21:00-08:00", "Asia/Jakarta", True, classes, None, None)
    assert producer.execute(ROW) == [whole, whole]

    changed = await shardd(
        *("device", "set", "d1", "nobody", "--gap-max=3m", "--hourly-limit=default", "--cold", "--label=shop"),
        *("--class=reply:burst=default,gap_min=1s", "--class=service:hourly_limit=0", "--clear-class=marketing"),
        "--proxy=socks5://me:hunter2@h:1",
    )
    assert (changed.code, changed.out, changed.err) == (64, "changed 1 device\n", "device nobody: unknown\n")
    new_classes = {"reply": {"gap_min": 1.0, "gap_max": 2.0}, "service": {"hourly_limit": 0}}
    new = (1.0, 180.0, None, 40, "21:00-08:00", "Asia/Jakarta", False, new_classes, "shop", "socks5://me:hunter2@h:1")
    assert producer.execute(f"{ROW} WHERE id = 'd1'") == [new]
    assert producer.execute(f"{ROW} WHERE id = 'd2'") == [whole]

    back = await shardd(
        *("device", "set", "d1", "d2", "--gap=default", "--daily-limit=default", "--quiet-hours=default"),
        *("--timezone=default", "--label=", "--proxy=default", "--clear-class=reply", "--clear-class=service"),
        *("--clear-class=marketing", "--hourly-limit=default", "--cold"),
    )
    assert (back.code, back.out) == (0, "changed 2 devices\n")
    assert producer.execute(ROW) == [(None, None, None, None, None, None, False, {}, None, None)] * 2


async def test_bad_input_is_refused_in_one_line_and_changes_nothing(shardd: Command, producer: Producer) -> None:
    producer.add_devices(1)
    for arguments, error in (
        (["--gap-max=1s", "--label=x"], "device d1: the shortest gap, 5 s, is longer than the longest, 1 s"),
        (["--class=reply:burst=many"], "shardd: --class reply:burst: many is not a whole number"),
        (["--proxy=ftp://x:hunter2@h"], "shardd: --proxy: the value (not shown) is not"),
    ):
        ran = await shardd("device", "set", "d1", *arguments)
        assert (ran.code, ran.out, ran.err.count("\n")) == (64, "", 1)
        assert error in ran.err
        assert "hunter2" not in ran.err
    assert producer.execute(ROW) == [(None, None, None, None, None, None, False, {}, None, None)]


def noon_zone() -> str:
    """A time zone where it is about noon, so that no day ends during a test."""
    east = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-east:+d}"


async def shown(shardd: Command, device: str = "d1") -> str:
    ran = await shardd("device", "show", device)
    assert (ran.code, ran.err) == (0, "")
    return " ".join(ran.out.split())


async def test_show_tells_what_was_sent_against_the_limits_and_when_it_may_send(
    shardd: Command, producer: Producer
) -> None:
    producer.execute(
        "INSERT INTO shardd.devices (id, transport, warm, hourly_limit, daily_limit, timezone) "
        "SELECT 'd' || g, 'sandbox', true, 5, 40, %s FROM generate_series(1, 3) g",
        noon_zone(),
    )
    now = datetime.now(ZoneInfo(noon_zone()))
    days = "INSERT INTO shardd.device_days (device_id, day, sent, hour, hour_sent, last_at) VALUES (%s, %s, %s, %s, %s, %s)"
    producer.execute(days, "d1", now.date(), 9, 23, 3, now - timedelta(minutes=9))
    producer.execute(days, "d2", now.date(), 40, 23, 3, now - timedelta(minutes=9))
    producer.execute(days, "d3", now.date() - timedelta(days=1), 40, 23, 3, now - timedelta(days=1))

    words = await shown(shardd)
    for piece in (
        "may send now no shardd runs with this config; estimated from the database",
        "sent today 9 of 40; this hour 3 of 5",
        "gap 5s to 15s (as configured); reply 1s to 3s, 3 in a row",
        f"clock {noon_zone()}",
    ):
        assert piece in words, words
    assert ": its daily limit" in await shown(shardd, "d2")
    assert "sent today 0 of 40; this hour 0 of 5" in await shown(shardd, "d3")

    row = (await shardd("device", "show", "d2", "--json")).json
    assert (row["sent_today"], row["sent_this_hour"], row["reckoned"], row["held"]) == (40, 3, True, None)
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), now.tzinfo)
    assert {one["why"] for one in row["next"].values()} == {"its daily limit"}
    assert 0 < row["next"]["reply"]["wait"] <= (midnight - now).total_seconds()
    assert row["pace"]["reply"]["burst"] == 3
    listed = (await shardd("device", "list", "--json")).json
    assert [one["sent_today"] for one in listed] == [9, 40, 0]
    assert "40/40" in (await shardd("device", "list")).out


async def test_show_tells_quiet_hours_the_warm_up_and_what_holds_a_device(shardd: Command, producer: Producer) -> None:
    now = datetime.now(UTC)
    quiet = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    producer.execute(
        "INSERT INTO shardd.devices (id, transport, daily_limit, quiet_hours) VALUES ('d1', 'sandbox', 400, %s)", quiet
    )
    producer.execute("INSERT INTO shardd.devices (id, transport, state) VALUES ('d2', 'whatsapp', 'unpaired')")
    words = await shown(shardd)
    assert "its quiet hours" in words
    assert "reply: now" in words
    assert f"quiet hours marketing: {quiet}; service: {quiet}; reply: none" in words
    assert "sent today 0 of 50; day 1 of 5 of its warm-up; this hour 0 of 200" in words
    await shardd("device", "pause", "d1", "--why", "tea")
    assert "may send not now: it is paused: tea" in await shown(shardd)
    assert "may send not now: it is unpaired" in await shown(shardd, "d2")
