"""Notifications of the database: new jobs, changes of devices, and shards that are free."""

from typing import Any
from uuid import uuid4

import psycopg

from shardd.queue.database import Database
from shardd.queue.devices import Devices
from shardd.queue.leases import Leases
from tests.support.queue_rows import identity

INSERT = "INSERT INTO shardd.jobs (device_id, recipient, body, run_at) "


def announcements(listener: psycopg.Connection[Any]) -> list[str]:
    """The payloads that came, with a mark of our own behind them so that nothing is waited for in vain."""
    listener.execute("NOTIFY done")
    payloads: list[str] = []
    for notice in listener.notifies(timeout=10):
        if notice.channel == "done":
            return payloads
        payloads.append(notice.payload)
    raise AssertionError("the mark did not come")


async def test_only_a_change_of_a_device_is_announced(database: Database, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN done")
        listener.execute("LISTEN shardd_devices")
        listener.execute(
            "INSERT INTO shardd.devices (id, transport) SELECT 'd' || n, 'sandbox' FROM generate_series(1, 50) n"
        )
        assert announcements(listener) == [""]
        # A look that finds nobody to heal must not cause the next look.
        assert await Devices(database).heal() == []
        assert announcements(listener) == []
        listener.execute("UPDATE shardd.devices SET state = 'banned', state_until = now() WHERE id = 'd1'")
        assert announcements(listener) == [""]
        assert await Devices(database).heal() == ["d1"]
        assert announcements(listener) == [""]


def test_new_jobs_are_announced_without_a_word_that_anybody_could_say(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN done")
        listener.execute("LISTEN shardd_jobs")
        listener.execute("INSERT INTO shardd.devices (id, transport) VALUES ('d1', 'sandbox')")
        for jobs in (
            "VALUES ('d1', '+4915112345678', 'hello', now())",
            "SELECT 'd1', '+4915112345678', 'hello', now() FROM generate_series(1, 2)",
            "VALUES ('d1', '+4915112345678', 'hello', now() + interval '1 day')",
        ):
            listener.execute(INSERT + jobs)
            assert announcements(listener) == [""]


async def test_only_a_lease_that_is_given_back_is_announced(database: Database, dsn: str) -> None:
    leases = Leases(database, node=identity("a"), incarnation=uuid4(), ttl=600.0)
    await leases.register(8, "test")
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN done")
        listener.execute("LISTEN shardd_leases")
        epochs = [epoch for shard in range(3) if (epoch := await leases.take(shard)) is not None]
        await leases.renew(epochs)
        assert announcements(listener) == []
        await leases.release(epochs, epochs)
        assert announcements(listener) == [""]
        await leases.release(epochs, epochs)
        assert announcements(listener) == []
