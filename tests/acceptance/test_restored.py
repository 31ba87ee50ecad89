"""A database, or a state folder, that is older than it was: restored by other means than `shardd db restore`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shardd.embedded.binaries import find_client
from shardd.errors import DatabaseError, UsageError
from shardd.postgres.dsn import parse_dsn
from shardd.queue.migrate import migrate
from shardd.queue.restoring import SKIPPED_IDS, server_major
from tests.fixtures.postgres import Cluster
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.servers import Server

LEASE = {"ttl": "8s", "renew_every": "500ms", "margin": "1s"}
QUICK = {"connect_timeout": "1s", "statement_timeout": "2s"}

WAITING = "waiting for a person"

MakeNode = Callable[..., Daemon]


def kill_all(daemon: Daemon) -> None:
    """As when the host dies."""
    workers = daemon.worker_pids()
    daemon.kill(signal.SIGSTOP)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    daemon.kill(signal.SIGKILL)


def restore_by_hand(dsn: str, file: Path, major: int) -> None:
    program = find_client("pg_restore", major)
    options = ["--no-owner", "--no-privileges", "--single-transaction"]
    subprocess.run([str(program), *options, f"--dbname={dsn}", str(file)], check=True)


def is_in_doubt(status: dict[str, Any]) -> bool:
    return "shardd db restored --sent-since-backup=maybe" in "".join(status["problems_by_kind"].get("database", []))


@pytest.mark.parametrize("answer", ["maybe", "no"])
async def test_nothing_is_sent_from_a_database_that_was_restored_by_hand_before_a_person_has_answered(
    make_daemon: MakeNode, producer: Producer, postgres: Cluster, tmp_path: Path, answer: str
) -> None:
    daemon = make_daemon(shards=1, lease=LEASE, database=QUICK, transports={"sandbox": {"connect_for": "10m"}})
    shardd, file = Command(daemon.config_file), tmp_path / "shardd.dump"
    producer.add_devices(3)
    producer.execute("UPDATE shardd.devices SET paused_at = now() WHERE id <> 'd1'")
    producer.add_jobs(3, 3)
    await daemon.start()
    await daemon.until(lambda s: s["totals"]["in_flight"] == 1)
    assert (await shardd("db", "backup", file)).code == 0
    # What was in flight never left, and is sent in another run, like all that waited.
    kill_all(daemon)
    await daemon.wait_end()
    daemon.write_config(transports={"sandbox": {"connect_for": 0}})
    await daemon.start()
    producer.execute("UPDATE shardd.devices SET paused_at = NULL")
    assert await producer.until_finished(daemon, 3) == {"sent": 3}
    kill_all(daemon)
    await daemon.wait_end()

    major = await server_major(producer.dsn)
    postgres.empty_database(str(parse_dsn(producer.dsn)["dbname"]))
    await asyncio.to_thread(restore_by_hand, producer.dsn, file, major)
    await daemon.start(wait=False)
    await daemon.wait_said(WAITING)
    status = await daemon.until(is_in_doubt)
    assert (status["state"], status["healthy"]) == ("starting", False)
    (problem,) = status["problems"]
    assert f"older than what node test on host {os.uname().nodename} (pid " in problem
    assert "by about " in problem
    # Nor does a node that remembers nothing.
    other = make_daemon(node="other", shards=1, lease=LEASE, database=QUICK)
    await other.start(wait=False)
    await other.wait_said(WAITING)
    assert producer.states() == {"sending": 1, "queued": 2}
    ran = await shardd("db", "restored")
    assert (ran.code, "was anything sent or received" in ran.err) == (UsageError.exit_code, True)
    # Leases of the time of the backup end by themselves.
    while (ran := await shardd("db", "restored", f"--sent-since-backup={answer}")).code == UsageError.exit_code:
        assert "a node that died keeps them for lease.ttl" in ran.err
    assert ran.code == 0, ran.err
    assert ("cancelled 2 jobs that waited; 1 job in flight will be in doubt" in ran.out) == (answer == "maybe")
    assert producer.acts()[-2:] == [("restored", "the database", result) for result in ("begun", "done")]
    await daemon.wait_said("READY=1")
    await other.wait_said("READY=1")
    if answer == "maybe":
        # What the backup has in flight is in doubt, unless the node that remembers it was the first to settle it.
        states = await producer.until_finished(daemon, 3)
        assert (states["cancelled"], states["sent"] + states["in_doubt"]) == (2, 1)
        assert set(Counter(message["job"] for message in daemon.messages() + other.messages()).values()) == {1}
        ((new,),) = producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d1', '+4915112345678', 'x') RETURNING id"
        )
        assert new > SKIPPED_IDS
        assert await producer.until_finished(daemon, 4) == states + Counter(sent=1)
    # A later start remembers the answer.
    assert await other.stop() == 0
    assert await daemon.stop() == 0
    await daemon.start()
    assert await daemon.stop() == 0


async def test_a_database_that_goes_back_under_a_running_node_ends_it_and_the_next_start_waits(
    make_daemon: MakeNode, producer: Producer, superuser_dsn: str
) -> None:
    daemon = make_daemon(lease=LEASE, database=QUICK)
    shardd = Command(daemon.config_file)
    producer.add_devices(2)
    await daemon.start()
    ran = await shardd("db", "restored", "--sent-since-backup=maybe")
    assert (ran.code, "has not found it older than it was" in ran.err) == (UsageError.exit_code, True)
    with psycopg.connect(superuser_dsn, autocommit=True) as owner:
        owner.execute(
            "UPDATE shardd.nodes SET beats = 0, beat = gen_random_uuid(), beat_at = beat_at - interval '3 hours'"
        )
    assert await daemon.wait_end() == DatabaseError.exit_code
    assert "by about 3 h" in daemon.log_tail()
    producer.add_jobs(2, 2)
    await daemon.start(wait=False)
    await daemon.wait_said(WAITING)
    assert producer.states() == {"queued": 2}
    while (ran := await shardd("db", "restored", "--sent-since-backup=no")).code == UsageError.exit_code:
        assert "lease.ttl" in ran.err
    assert await producer.until_finished(daemon, 2) == {"sent": 2}


async def test_journals_of_a_folder_that_came_back_from_a_snapshot_prove_nothing(
    make_daemon: MakeNode, dsn: str, producer: Producer
) -> None:
    """Its files are the same ones, and complete: only the database knows that they are older than what was done."""
    daemon = make_daemon(shards=1, lease=LEASE, database=QUICK)
    producer.add_devices(2)
    await daemon.start()
    await daemon.until(lambda s: s["shards"][0]["state"] == "running")
    files = [daemon.home / "beat", daemon.home / "incarnations", *(daemon.home / "journal").iterdir()]
    snapshot = {path: path.read_bytes() for path in files}
    with psycopg.connect(producer.dsn) as late:
        # The outcome of the first cannot be stored before the host dies.
        late.execute("LOCK TABLE shardd.archive IN SHARE MODE")
        producer.add_jobs(1, 1)
        await daemon.until(lambda _: len(daemon.messages()) == 1)
        kill_all(daemon)
        await daemon.wait_end()
        # A backend that waits does not notice that its client is dead.
        while late.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE 'shardd/%'"
        ).fetchall():
            late.execute("SELECT pg_stat_clear_snapshot()")
        late.rollback()
    for path, content in snapshot.items():
        with path.open("r+b") as file:
            file.truncate(0)
            file.write(content)
    await daemon.start()
    assert await producer.until_finished(daemon, 1) == {"in_doubt": 1}
    status = await daemon.status()
    assert any("is older than what the database knows of this node" in note for note in status["notes"])
    assert len(daemon.messages()) == 1
    # Nor does a later start believe these journals.
    assert await daemon.stop() == 0
    await daemon.start()
    producer.add_jobs(1, 1)
    assert await producer.until_finished(daemon, 2) == {"in_doubt": 1, "sent": 1}
    assert not any("is older" in note for note in (await daemon.status())["notes"])


async def test_a_fail_over_that_loses_a_little_needs_nobody(
    tcp_server: Server, standby: Server, make_daemon: MakeNode
) -> None:
    primary = tcp_server
    await migrate(primary.dsn())
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in (primary, standby))
    dsn = f"postgresql://shardd@{hosts}/shardd?sslmode=disable"
    daemon = make_daemon(lease={**LEASE, "ttl": "30s"}, database={**QUICK, "dsn": dsn})
    producer = Producer(primary.dsn())
    producer.add_devices(2)
    await daemon.start()
    producer.add_jobs(2, 2)
    assert await producer.until_finished(daemon, 2) == {"sent": 2}
    await asyncio.to_thread(standby.wait_caught_up, primary)
    # From here on the standby gets nothing.
    primary.home.account.write(primary.data / "pg_hba.conf", "host all all 127.0.0.1/32 trust\n")
    primary.execute("SELECT pg_reload_conf()")
    primary.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication")
    ((beats,),) = primary.execute("SELECT beats FROM shardd.nodes", database="shardd")
    while primary.execute("SELECT beats FROM shardd.nodes", database="shardd")[0][0] < beats + 3:
        await daemon.wait_change()
    await asyncio.to_thread(primary.stop, signal.SIGQUIT)
    await asyncio.to_thread(standby.promote)
    producer = Producer(standby.dsn())
    producer.add_jobs(2, 2)
    assert await producer.until_finished(daemon, 4) == {"sent": 4}
    status = await daemon.until(lambda s: not s["problems"])
    (note,) = [note for note in status["notes"] if "a fail-over of the database lost" in note]
    assert "by about " in note
    assert await daemon.stop() == 0
    # The former primary comes back, and is named first: it is not taken for the primary by a later start.
    await asyncio.to_thread(primary.start)
    await daemon.start()
    with psycopg.connect(standby.dsn(), autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM shardd.leases WHERE expires_at > now()").fetchone()
    assert row == (2,)
    assert await daemon.stop() == 0
