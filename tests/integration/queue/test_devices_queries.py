"""Devices, as the daemon reads and writes them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from shardd.queue.cycle import Settlement
from shardd.queue.database import Database
from shardd.queue.devices import DeviceAdmin, Devices
from shardd.queue.jobs import Jobs
from shardd.queue.queries import Changes
from shardd.queue.records import Device, Sends, StateChange
from shardd.states import CAN_SEND, DEVICE_TRANSITIONS, DeviceState
from tests.support.queue_rows import add_devices, claim, connect, finish, insert_jobs, take_epoch

WARM_DAYS = 3
HANG = 30.0  # seconds; no test waits that long, it only keeps a broken one from hanging


@pytest.fixture
def devices(database: Database) -> Devices:
    return Devices(database)


async def one(devices: Devices, name: str = "a") -> Device:
    (found,) = [device for device in await devices.all(WARM_DAYS) if device.id == name]
    return found


def set_row(dsn: str, name: str, assignments: str) -> None:
    with connect(dsn) as connection:
        connection.execute(f"UPDATE shardd.devices SET {assignments} WHERE id = %s", [name])  # type: ignore[arg-type]  # ours


def add_old_devices(dsn: str, *names: str) -> float:
    """Devices that were added an hour ago; returns this moment."""
    add_devices(dsn, *names)
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.devices SET state_since = now() - interval '1 hour'")
    return time.time()


def learned(
    state: DeviceState, *, at: float, name: str = "a", until: float | None = None, reason: str = "why"
) -> StateChange:
    return StateChange(name, state, reason, until, at)


async def test_a_state_or_transport_of_a_newer_release_disables_its_device_and_not_the_list_of_all(
    dsn: str, devices: Devices
) -> None:
    add_devices(dsn, "a", "b")
    with connect(dsn) as connection:
        connection.execute("INSERT INTO shardd.device_states VALUES ('frozen', '{ready}')")
        connection.execute("UPDATE shardd.device_states SET next = next || 'frozen'::text WHERE name = 'ready'")
        connection.execute("INSERT INTO shardd.transports VALUES ('pigeon')")
    set_row(dsn, "a", "state = 'frozen'")
    add_devices(dsn, "c", transport="pigeon")
    frozen, other, pigeon = [await one(devices, name) for name in "abc"]
    assert pigeon.fault == "its transport, pigeon, is one of a newer shardd: upgrade this host"
    assert frozen.fault == "its state, frozen, is one of a newer shardd: upgrade this host"
    assert frozen.state not in CAN_SEND
    assert (other.state, other.fault) == (DeviceState.READY, None)
    # What this release reports of it is not written over what the newer one knows.
    await devices.set_states([learned(DeviceState.LOGGED_OUT, at=time.time())])
    await devices.heal()
    with connect(dsn) as connection:
        assert connection.execute("SELECT state FROM shardd.devices WHERE id = 'a'").fetchone() == ("frozen",)


async def test_a_device_comes_with_everything_that_was_written(dsn: str, devices: Devices) -> None:
    add_devices(
        dsn, "a", transport="whatsapp", label="shop", session="628:1@s.whatsapp.net", proxy="socks5://p",
        settings='{"region": ["ID", null]}', gap_min=1.5, gap_max=2.5, daily_limit=7, hourly_limit=5, quiet_hours="21:00-08:00",
        timezone="Asia/Jakarta", warm=True, classes='{"reply": {"gap_min": 1}}',
    )  # fmt: skip
    found = await one(devices)
    fields: dict[str, Any] = {
        "id": "a", "transport": "whatsapp", "label": "shop", "session": "628:1@s.whatsapp.net", "proxy": "socks5://p",
        "settings": {"region": ["ID", None]}, "state": DeviceState.READY, "reason": None, "state_until": None,
        "paused_at": None, "paused_why": None, "gap_min": 1.5, "gap_max": 2.5, "daily_limit": 7, "hourly_limit": 5,
        "quiet_hours": "21:00-08:00", "timezone": "Asia/Jakarta", "warm": True, "classes": {"reply": {"gap_min": 1}},
        "day": None, "sent": 0, "hour": 0, "hour_sent": 0, "last_at": None, "days": WARM_DAYS,
    }  # fmt: skip
    assert {name: getattr(found, name) for name in fields} == fields
    assert (found.spec.id, found.spec.session, found.spec.settings) == ("a", found.session, found.settings)


async def test_removed_devices_are_not_there(dsn: str, database: Database, devices: Devices) -> None:
    add_devices(dsn, "c", "a", "b")
    assert await DeviceAdmin(database).remove(["b"]) == {"b"}
    assert [device.id for device in await devices.all(WARM_DAYS)] == ["a", "c"]


def sent_on(dsn: str, device: str, day: int, sent: int = 1) -> None:
    """On this day of May."""
    with connect(dsn) as connection:
        connection.execute(
            "INSERT INTO shardd.device_days (device_id, day, sent, hour, hour_sent, last_at)"
            " VALUES (%s, make_date(2026, 5, %s), %s, 7, 1, make_timestamptz(2026, 5, %s, 7, 0, 0, 'UTC'))",
            [device, day, sent, day],
        )


async def test_the_last_day_and_its_last_hour_come_with_a_device(
    dsn: str, database: Database, devices: Devices
) -> None:
    add_devices(dsn, "a", "b")
    epoch = await take_epoch(database)
    insert_jobs(dsn, "a")
    (its_claim,) = await claim(Jobs(database), epoch, "a")
    moment, hour_before = datetime(2026, 5, 2, 3, tzinfo=UTC), datetime(2026, 5, 2, 2, tzinfo=UTC)
    sent_on(dsn, "a", 1, 9)
    counts = [Sends("a", moment.date(), 3, 5, moment), Sends("a", moment.date(), 2, 4, hour_before)]
    await Jobs(database).cycle(Settlement(finishes=finish(its_claim).finishes, counts=counts), [])
    seen = [(d.id, d.day, d.sent, d.hour, d.hour_sent, d.last_at) for d in await devices.all(WARM_DAYS)]
    assert seen == [("a", date(2026, 5, 2), 9, 3, 5, moment), ("b", None, 0, 0, 0, None)]


@pytest.mark.parametrize(("sent", "days"), [([], 0), ([4], 0), ([4, 9], 1), ([1, 2, 3, 4, 5, 6], WARM_DAYS)])
async def test_the_days_before_the_last_one_tell_how_warm_a_device_is(
    dsn: str, devices: Devices, sent: list[int], days: int
) -> None:
    add_devices(dsn, "a")
    for day in sent:
        sent_on(dsn, "a", day)
    found = await one(devices)
    assert (found.day.day if found.day else None, found.days) == (sent[-1] if sent else None, days)
    assert [device.days for device in await devices.all(0)] == [0]


@pytest.mark.parametrize("state", list(DeviceState))
async def test_what_was_learned_is_written(dsn: str, devices: Devices, state: DeviceState) -> None:
    now = add_old_devices(dsn, "a", "b")
    await devices.set_states([learned(state, at=now - 100, until=now + 500, reason="because")])
    found = await one(devices)
    assert (found.state, found.reason) == (state, "because")
    assert found.state_until is not None
    assert found.state_since.timestamp() == pytest.approx(now - 100, abs=HANG)
    assert found.state_until.timestamp() == pytest.approx(now + 500, abs=HANG)
    assert (await one(devices, "b")).reason is None


async def test_later_knowledge_stands(dsn: str, devices: Devices) -> None:
    now = add_old_devices(dsn, "a")
    await devices.set_states([learned(DeviceState.BANNED, at=now - 500)])
    await devices.set_states([learned(DeviceState.REPLACED, at=now - 900)])
    assert (await one(devices)).state is DeviceState.BANNED
    await devices.set_states([learned(DeviceState.REPLACED, at=now - 100)])
    assert (await one(devices)).state is DeviceState.REPLACED


async def test_what_is_learned_under_a_lost_lease_counts_for_nothing(
    dsn: str, database: Database, devices: Devices
) -> None:
    now = add_old_devices(dsn, "a")
    lost = await take_epoch(database)
    with connect(dsn) as connection:
        connection.execute("DELETE FROM shardd.leases")
    held = await take_epoch(database)
    change = learned(DeviceState.REPLACED, at=now - 10)
    await devices.set_states([replace(change, epoch=lost)])
    assert (await one(devices)).state is DeviceState.READY
    await devices.set_states([replace(change, epoch=held)])
    assert (await one(devices)).state is DeviceState.REPLACED


async def test_the_same_again_does_not_restart_the_time(dsn: str, devices: Devices) -> None:
    now = add_old_devices(dsn, "a")
    await devices.set_states([learned(DeviceState.LOGGED_OUT, at=now - 500)])
    before = await one(devices)
    await devices.set_states([learned(DeviceState.LOGGED_OUT, at=now - 100)])
    assert await one(devices) == before


async def test_many_are_written_at_once_and_strangers_are_ignored(dsn: str, devices: Devices) -> None:
    names = [f"d{number}" for number in range(50)]
    at = add_old_devices(dsn, *names) - 10
    states = [state for state in DeviceState for _ in range(8)][:50]
    changes = [learned(state, at=at, name=name) for name, state in zip(names, states, strict=True)]
    await devices.set_states([*changes, learned(DeviceState.BANNED, at=at, name="stranger")])
    assert {device.id: device.state for device in await devices.all(WARM_DAYS)} == dict(zip(names, states, strict=True))
    await devices.set_states([])


@pytest.mark.parametrize("state", list(DeviceState))
async def test_a_state_that_ends_by_itself_ends(dsn: str, devices: Devices, state: DeviceState) -> None:
    add_devices(dsn, "over", "not-yet", "for-ever", "gone")
    past, future = "now() - interval '1 second'", "now() + interval '1 hour'"
    for name, until in (("over", past), ("not-yet", future), ("for-ever", "NULL"), ("gone", past)):
        set_row(dsn, name, f"state = '{state.value}', reason = 'why', state_until = {until}")
    set_row(dsn, "gone", "removed_at = now()")
    healed = await devices.heal()
    assert healed == (["over"] if "heal" in DEVICE_TRANSITIONS[state] else [])
    for name in ("over", "not-yet", "for-ever"):
        found = await one(devices, name)
        assert found.state is (DeviceState.READY if name in healed else state)
        assert (found.reason, found.state_until) == ((None, None) if name in healed else ("why", found.state_until))


async def test_a_paused_device_keeps_its_state(dsn: str, database: Database, devices: Devices) -> None:
    add_devices(dsn, "a", state="restricted")
    assert await DeviceAdmin(database).pause(["a"], "tea") == Changes({"a"}, set())
    found = await one(devices)
    assert (found.paused_at is None, found.state, found.paused_why) == (False, DeviceState.RESTRICTED, "tea")
    assert await DeviceAdmin(database).pause(["a"], None) == Changes(set(), {"a"})
    assert await DeviceAdmin(database).pause(["a"], "coffee") == Changes({"a"}, set())
    again = await one(devices)
    assert (again.paused_at, again.paused_why) == (found.paused_at, "coffee")
    assert await DeviceAdmin(database).resume(["a", "none"]) == Changes({"a"}, set())
    assert (await one(devices)).paused_at is None
    assert await DeviceAdmin(database).resume(["a"]) == Changes(set(), {"a"})


async def test_changes_are_announced(dsn: str, database: Database, devices: Devices) -> None:
    now = add_old_devices(dsn, "a")
    connected, told = asyncio.Event(), asyncio.Event()

    async def listen() -> None:
        async for event in database.listen("shardd_devices"):
            (connected if event.kind == "connected" else told).set()

    listener = asyncio.create_task(listen())
    async with asyncio.timeout(HANG):
        await connected.wait()
        for number, state in enumerate((DeviceState.BANNED, DeviceState.REPLACED)):
            told.clear()
            await devices.set_states([learned(state, at=now - 100 + number)])
            await told.wait()
    listener.cancel()
