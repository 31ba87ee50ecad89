"""What the database announces: new jobs, and changes of devices."""

from typing import Any

import psycopg
import pytest

from shardd.queue.database import Database
from shardd.queue.devices import Devices
from shardd.queue.jobs import read_hint

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


def test_a_single_job_is_announced_with_its_place(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN done")
        listener.execute("LISTEN shardd_jobs")
        listener.execute("INSERT INTO shardd.devices (id, transport) VALUES ('d1', 'sandbox')")
        row = listener.execute(INSERT + "VALUES ('d1', '+4915112345678', 'hello', now()) RETURNING ord, id").fetchone()
        (payload,) = announcements(listener)
        assert read_hint(payload) == ("d1", "/marketing", row)
        # Several at once, and one whose time has not come, are found by the router's own look.
        for several in (
            "SELECT 'd1', '+4915112345678', 'hello', now() FROM generate_series(1, 2)",
            "VALUES ('d1', '+4915112345678', 'hello', now() + interval '1 day')",
        ):
            listener.execute(INSERT + several)
            (payload,) = announcements(listener)
            assert read_hint(payload) is None


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "hello",
        "[]",
        '["d1", 1, 2]',
        '["d1", "/a", "1", 2]',
        "{}",
        '["d1", "/a", 1, 1e30]',
        f'["d1", "/a", {2**63}, 1]',
    ],
)
def test_what_is_no_place_is_no_error(nonsense: str) -> None:
    assert read_hint(nonsense) is None
