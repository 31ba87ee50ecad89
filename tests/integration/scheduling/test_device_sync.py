"""The devices as the scheduler has them follow their rows, though only those that changed are read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from shardd import ipc
from shardd.errors import DatabaseError
from shardd.queue.database import Database
from shardd.queue.devices import Devices
from shardd.queue.records import Device
from shardd.queue.settle import Claim
from shardd.states import DeviceState, Verdict
from shardd.supervisor.scheduling import table_sync
from shardd.supervisor.scheduling.table_sync import DeviceSync
from shardd.supervisor.services import Steps
from tests.support.queue_rows import add_devices, connect
from tests.support.scheduler_by_hand import make_scheduler

ALL = ["a1", "a2", "a3", "b1"]


class Sync:
    """A sync whose readings are known."""

    def __init__(self, database: Database) -> None:
        self.read: list[list[str] | None] = []
        """What each asked for; None: all devices."""
        self.sent: list[ipc.ToWorker] = []
        self.scheduler = make_scheduler()
        sync = self

        class Watched(Devices):
            async def all(self, warm_days: int, ids: Sequence[str] | None = None) -> list[Device]:
                sync.read.append(None if ids is None else list(ids))
                return await super().all(warm_days, ids)

        self.devices = DeviceSync(
            Watched(database),
            self.scheduler,
            Steps().add("reading the devices"),
            changed=lambda: None,
            send=self._send,
            defect=pytest.fail,
            warm_days=lambda: 0,
        )

    def _send(self, _: int, message: ipc.ToWorker) -> bool:
        self.sent.append(message)
        return True

    async def __call__(self) -> list[str] | None:
        """Read; returns which devices were asked for."""
        await self.devices.sync()
        return self.read[-1]

    async def some(self) -> list[str]:
        """Read; returns which devices were asked for, not all. Earlier ones are again among them while a transaction runs."""
        read = await self()
        assert read is not None
        return read

    async def none(self) -> None:
        """Read until nothing has changed."""
        async with asyncio.timeout(30.0):
            while await self.some():  # noqa: ASYNC110  # another process's state: until the server's own transactions have ended
                await asyncio.sleep(0.01)

    def label(self, device: str) -> str | None:
        return self.scheduler.queues[device].device.label


@pytest.fixture
def rows(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    add_devices(dsn, *ALL)
    with connect(dsn) as connection:
        yield connection


@pytest.fixture
async def sync(database: Database, rows: psycopg.Connection[Any]) -> Sync:
    """It has read all."""
    made = Sync(database)
    assert await made() is None
    assert sorted(made.scheduler.queues) == ALL
    return made


async def test_only_what_changed_is_read(sync: Sync, rows: psycopg.Connection[Any]) -> None:
    await sync.none()
    rows.execute("UPDATE shardd.devices SET label = 'x' WHERE id = 'a2'")
    assert "a2" in await sync.some()
    assert sync.label("a2") == "x"
    rows.execute("INSERT INTO shardd.device_visits (device_id, online_at) VALUES ('a3', now())")
    assert "a3" in await sync.some()
    assert sync.scheduler.queues["a3"].device.online_at is not None
    add_devices(rows.info.dsn, "c1")
    assert "c1" in await sync.some()
    await sync.none()
    assert sorted(sync.scheduler.queues) == [*ALL, "c1"]


async def test_what_was_not_committed_at_the_last_reading_is_in_the_next(
    sync: Sync, rows: psycopg.Connection[Any], dsn: str
) -> None:
    with connect(dsn) as other, other.transaction():
        other.execute("UPDATE shardd.devices SET label = 'late' WHERE id = 'a1'")
        # Later transactions end before it.
        for label in "xyz":
            rows.execute("UPDATE shardd.devices SET label = %s WHERE id = 'a2'", (label,))
            assert "a2" in await sync.some()
        assert sync.label("a1") is None
    assert "a1" in await sync.some()
    assert sync.label("a1") == "late"
    await sync.none()


async def test_a_savepoint_hides_nothing(sync: Sync, dsn: str) -> None:
    with connect(dsn) as other, other.transaction(), other.transaction():
        other.execute("UPDATE shardd.devices SET label = 'inner' WHERE id = 'a1'")
        assert "a1" not in (await sync.some())
    await sync()
    assert sync.label("a1") == "inner"


async def test_a_removed_device_goes_and_comes_back(sync: Sync, rows: psycopg.Connection[Any]) -> None:
    rows.execute("UPDATE shardd.devices SET removed_at = now() WHERE id = 'a2'")
    await sync()
    assert sorted(sync.scheduler.queues) == ["a1", "a3", "b1"]
    assert [message.removed for message in sync.sent if isinstance(message, ipc.Devices)][-1] == ["a2"]
    rows.execute("UPDATE shardd.devices SET removed_at = NULL WHERE id = 'a2'")
    await sync()
    assert sorted(sync.scheduler.queues) == ALL


async def test_a_deleted_row_is_noticed_by_the_number_of_devices(sync: Sync, rows: psycopg.Connection[Any]) -> None:
    rows.execute("DELETE FROM shardd.devices WHERE id = 'b1'")
    await sync.some()
    assert await sync() is None
    assert sorted(sync.scheduler.queues) == ["a1", "a2", "a3"]


async def test_a_state_that_was_withheld_is_the_rows_again(sync: Sync) -> None:
    message = ipc.DeviceChanged("a1", DeviceState.CLIENT_OUTDATED, "405", None, 0.0)
    sync.devices.withhold(message, 1)
    await sync.none()
    assert sync.scheduler.queues["a1"].state is DeviceState.CLIENT_OUTDATED
    sync.devices.end_withholding("a1")
    assert "a1" in await sync.some()
    assert sync.scheduler.queues["a1"].state is DeviceState.READY


async def test_a_state_that_the_database_did_not_take_is_the_rows_again(sync: Sync) -> None:
    # Reported under a lease that is lost.
    sync.devices.state_changed(ipc.DeviceChanged("a1", DeviceState.BANNED, "402", None, 0.0), 987_654)
    assert sync.scheduler.queues["a1"].state is DeviceState.BANNED
    assert "a1" in await sync.some()
    assert sync.scheduler.queues["a1"].state is DeviceState.READY


async def test_a_state_that_only_an_outcome_reported_is_the_rows_again(sync: Sync) -> None:
    queue = sync.scheduler.queues["a1"]
    outcome = ipc.Outcome(1, 1, 1, 7, Verdict.UNAVAILABLE, device_state=DeviceState.CLIENT_OUTDATED)
    sync.scheduler.ended(Claim(1, 1, 1, 7, "a1", 0, 5, "hold"), outcome, time.monotonic(), back=True)
    assert queue.state is DeviceState.CLIENT_OUTDATED
    assert "a1" in await sync.some()
    assert queue.state is DeviceState.READY


async def test_a_device_that_comes_from_another_region_brings_its_counts(
    sync: Sync, rows: psycopg.Connection[Any]
) -> None:
    for shard in (0, 1):
        sync.scheduler.shard_up(shard, shard + 1, time.monotonic())
    rows.execute("INSERT INTO shardd.devices (id, transport, state) VALUES ('d1', 'sandbox', 'unpaired')")
    assert "d1" in await sync.some()
    rows.execute("INSERT INTO shardd.device_days (device_id, day, sent, last_at) VALUES ('d1', current_date, 7, now())")
    rows.execute("UPDATE shardd.devices SET state = 'ready' WHERE id = 'd1'")
    assert "d1" in await sync.some()
    assert sync.scheduler.queues["d1"].tally.sent == 7


async def test_all_are_read_when_what_is_read_of_them_has_changed(sync: Sync) -> None:
    sync.devices.read_all_soon()
    assert await sync() is None


async def test_some_devices_are_found_by_the_index(
    sync: Sync, rows: psycopg.Connection[Any], database: Database
) -> None:
    rows.execute(
        "INSERT INTO shardd.devices (id, transport) SELECT 'e' || n, 'sandbox' FROM generate_series(1, 2000) n"
    )
    rows.execute("ANALYZE shardd.devices")
    statement = database.queries["all_devices"].decode().replace("%(warm_days)s", "$1").replace("%(ids)s", "$2")
    rows.execute("SET plan_cache_mode = force_generic_plan")  # as the daemon's connections have it
    rows.execute(f"PREPARE picked (integer, text[]) AS {statement}")
    plan = rows.execute("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE picked (0, ARRAY['e1', 'e2'])").fetchone()
    assert plan is not None
    scans = [node for node in _nodes(plan[0][0]["Plan"]) if node.get("Relation Name") == "devices"]
    assert [scan["Node Type"] for scan in scans if scan["Actual Loops"]] != ["Seq Scan"]
    assert all("Index" in scan["Node Type"] or "Bitmap" in scan["Node Type"] for scan in scans if scan["Actual Loops"])


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


async def test_a_server_that_lost_transactions_is_read_whole(sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync.devices, "_running", 2**40)
    assert await sync() is None
    await sync.none()


async def test_all_are_read_now_and_then_and_when_many_changed(
    sync: Sync, rows: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_sync, "MANY", 2)
    rows.execute("UPDATE shardd.devices SET label = 'y' WHERE id <> 'b1'")
    assert await sync() is None
    monkeypatch.setattr(table_sync, "ALL_EVERY", 0.0)
    await sync.devices.read_all()
    assert sync.read[-1] is None
    assert await sync() is None


async def test_a_reading_that_failed_is_repeated(
    sync: Sync, rows: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.execute("UPDATE shardd.devices SET label = 'x' WHERE id = 'a2'")
    with monkeypatch.context() as patch:
        patch.setattr(Devices, "all", _lost)
        with pytest.raises(DatabaseError):
            await sync()
    assert "a2" in await sync.some()
    assert sync.label("a2") == "x"


async def _lost(*_: Any) -> list[Device]:
    raise DatabaseError("the connection was lost")
