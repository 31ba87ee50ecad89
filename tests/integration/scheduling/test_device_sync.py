"""The devices as the scheduler has them follow their rows, though only those that changed are read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from shardd import ipc
from shardd.errors import DatabaseError
from shardd.queue.database import Database
from shardd.queue.devices import Devices
from shardd.queue.records import Device
from shardd.states import DeviceState
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
