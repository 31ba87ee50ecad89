"""What the database announces about devices: every change, and nothing else."""

from typing import Any

import psycopg

from shardd.queue.database import Database
from shardd.queue.devices import Devices


def announcements(listener: psycopg.Connection[Any]) -> int:
    """How many came, with a mark of our own behind them so that nothing is waited for in vain."""
    listener.execute("NOTIFY done")
    channels: list[str] = []
    for notice in listener.notifies(timeout=10):
        if notice.channel == "done":
            return len(channels)
        channels.append(notice.channel)
    raise AssertionError("the mark did not come")


async def test_only_a_change_of_a_device_is_announced(database: Database, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN done")
        listener.execute("LISTEN shardd_devices")
        listener.execute(
            "INSERT INTO shardd.devices (id, transport) SELECT 'd' || n, 'sandbox' FROM generate_series(1, 50) n"
        )
        assert announcements(listener) == 1
        # A look that finds nobody to heal must not cause the next look.
        assert await Devices(database).heal() == []
        assert announcements(listener) == 0
        listener.execute("UPDATE shardd.devices SET state = 'banned', state_until = now() WHERE id = 'd1'")
        assert announcements(listener) == 1
        assert await Devices(database).heal() == ["d1"]
        assert announcements(listener) == 1
