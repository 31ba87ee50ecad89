"""A primary and its standby in one DSN: the daemon and its sessions continue with the promoted server."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from shardd.queue.migrate import migrate
from tests.support.daemon import Daemon, Producer
from tests.support.servers import Server


def both(*servers: Server) -> str:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://shardd@{hosts}/shardd?sslmode=disable"


@pytest.fixture
async def migrated(tcp_server: Server) -> Server:
    await migrate(tcp_server.dsn())
    return tcp_server


async def test_jobs_go_on_with_the_standby_that_is_promoted(
    migrated: Server, standby: Server, make_daemon: Callable[..., Daemon]
) -> None:
    primary = migrated
    daemon = make_daemon(database={"dsn": both(primary, standby)})
    producer = Producer(primary.dsn())
    producer.add_devices(5)
    await daemon.start()
    producer.add_jobs(50, 5)
    assert await producer.until_finished(daemon, 50) == {"sent": 50}
    await asyncio.to_thread(standby.wait_caught_up, primary)

    await asyncio.to_thread(primary.stop, signal.SIGQUIT)
    await asyncio.to_thread(standby.promote)
    producer = Producer(standby.dsn())
    producer.add_jobs(50, 5)
    assert await producer.until_finished(daemon, 100) == {"sent": 100}

    def healthy(status: dict[str, Any]) -> bool:
        return not status["problems"]

    await daemon.until(healthy)
    assert await daemon.stop() == 0


@pytest.mark.parametrize("killed", [False, True], ids=["runs_on", "is_killed"])
async def test_a_standby_that_lagged_behind_repeats_no_message(
    migrated: Server, standby: Server, make_daemon: Callable[..., Daemon], *, killed: bool
) -> None:
    """It has some of the jobs queued and some claimed that the primary had settled; the node knows what it sent."""
    primary = migrated
    daemon = make_daemon(
        database={"dsn": both(primary, standby)},
        transports={"sandbox": {"latency_min": "200ms", "latency_max": "400ms", "in_doubt_rate": 0.1}},
    )
    producer = Producer(primary.dsn())
    producer.add_devices(10)
    await daemon.start()
    await asyncio.to_thread(standby.wait_caught_up, primary)
    producer.add_jobs(200, 10)
    while len(daemon.messages()) < 40:
        await daemon.wait_change()
    await asyncio.to_thread(standby.stop_following)
    before = await producer.until_finished(daemon, 200)
    if killed:
        daemon.kill()
        await daemon.wait_end()

    await asyncio.to_thread(primary.stop, signal.SIGQUIT)
    assert standby.execute("SELECT count(*) > 20 FROM shardd.jobs", database="shardd") == [(True,)]
    await asyncio.to_thread(standby.promote)
    if killed:
        await daemon.start()
    assert await Producer(standby.dsn()).until_finished(daemon, 200) == before
    assert set(Counter(message["job"] for message in daemon.messages()).values()) == {1}

    def noted(status: dict[str, Any]) -> bool:
        return any("had lost what became of" in note for note in status["notes"])

    await daemon.until(noted)
    assert await daemon.stop() == 0
