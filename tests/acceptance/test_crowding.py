"""A login without rights exhausts resources that all sessions of a server share: shardd continues, and names it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.test_silence import has, well
from tests.fixtures.crowded import connect, end_sessions, fill_lock_table, fill_notify_queue, take_connections
from tests.fixtures.postgres import Cluster
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer


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
    pid = listener.info.backend_pid
    status = await daemon.until(
        has("server", "notification queue is 1", f"pid {pid} of user stranger in database {crowded_dbname} listens")
    )
    assert len(status["problems"]) == 1
    # A new listener would have to read all of it.
    await daemon.stop()
    await daemon.start()
    owner.add_jobs(10, 2)
    await owner.until_finished(daemon, 60)
    await daemon.until(
        has("step", "listening to shardd_jobs", "a notification queue that is 1", "polling until it has been read")
    )
    listener.close()
    await daemon.until(well)


async def test_who_fills_the_table_of_locks_is_named(
    daemon: Daemon, owner: Producer, crowded: Cluster, crowded_dbname: str
) -> None:
    owner.add_devices(1)
    await daemon.start()
    stranger = fill_lock_table(crowded, crowded_dbname)
    pid = stranger.info.backend_pid
    # Nobody gets in any more, but the daemon was in.
    with pytest.raises(psycopg.OperationalError, match="out of shared memory"):
        connect(crowded, crowded_dbname)
    named = has("server", "lock table", f"pid {pid} of user stranger in database {crowded_dbname}", f"kill {pid}")
    status = await daemon.until(named)
    assert status["healthy"] is False
    shardd = Command(daemon.config_file)
    ran = await shardd("job", "list")
    assert (ran.code, "has no memory left, most often because a session holds very many locks" in ran.err) == (69, True)
    ran = await shardd("status")
    assert f"pid {pid} of user stranger" in " ".join(ran.out.split())
    stranger.close()
    await daemon.until(well)
    owner.add_jobs(3, 1)
    assert await owner.until_finished(daemon, 3) == {"sent": 3}


async def test_who_has_the_connections_is_named(
    daemon: Daemon, owner: Producer, crowded: Cluster, crowded_dbname: str
) -> None:
    owner.add_devices(1)
    await daemon.start()
    held = take_connections(crowded, crowded_dbname)
    assert len(held) > 10
    await daemon.until(
        has("server", "connections to the server are open, and 37 is the most", f"{len(held)} of user stranger")
    )
    shardd = Command(daemon.config_file)
    ran = await shardd("job", "list")
    assert (ran.code, "no free connection: `shardd status` lists who has them" in ran.err) == (69, True)
    assert f"{len(held)} of user stranger" in ran.err
    ran = await shardd("status")
    assert f"{len(held)} of user stranger" in " ".join(ran.out.split())
    for connection in held:
        connection.close()
    await daemon.until(well)
    owner.add_jobs(3, 1)
    assert await owner.until_finished(daemon, 3) == {"sent": 3}
