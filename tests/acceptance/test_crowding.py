"""A login that may connect and has no other right uses up what all sessions of a server share: shardd goes on, and names it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.command import Command
from tests.daemon import Daemon, Producer
from tests.fix_crowded import end_sessions, fill_notify_queue
from tests.fix_postgres import Cluster


@pytest.fixture
async def daemon(tmp_path: Path, crowded: Cluster, crowded_dbname: str) -> AsyncIterator[Daemon]:
    daemon = Daemon(tmp_path, crowded.dsn(crowded_dbname))
    yield daemon
    await daemon.close()
    end_sessions(crowded, "stranger")


@pytest.fixture
def owner(crowded: Cluster, crowded_dbname: str) -> Producer:
    return Producer(crowded.dsn(crowded_dbname))


@pytest.fixture
def program(crowded: Cluster, crowded_dbname: str) -> Producer:
    """With the rights of a producer."""
    return Producer(crowded.dsn(crowded_dbname, "producer"))


async def test_a_full_queue_of_notifications_stops_nothing(
    daemon: Daemon, owner: Producer, program: Producer, crowded: Cluster, crowded_dbname: str
) -> None:
    owner.add_devices(2)
    await daemon.start()
    listener = fill_notify_queue(crowded, crowded_dbname)
    # Producers insert, and opt people out; operators give commands.
    program.add_jobs(20, 2)
    program.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+4915999999999')")
    program.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring')")
    shardd = Command(daemon.config_file)
    assert (await shardd("device", "pause", "d2")).code == 0
    assert (await shardd("device", "add", "d3", "--transport=sandbox")).code == 0
    assert (await shardd("device", "resume", "d2")).code == 0
    program.add_jobs(30, 3)
    assert await owner.until_finished(daemon, 50) == {"sent": 50}
    listener.close()
