"""Anything that stands still although it could move is a problem in the status, and disappears with its cause."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

from shardd.incoming_spool import FOLDER
from tests.fixtures.postgres import Cluster
from tests.support.daemon import Daemon, Producer, wait_gone
from tests.support.queue_rows import connect


def has(kind: str, *words: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a problem of this kind is there, and one with these words."""
    return lambda status: (
        bool(status["problem_kinds"][kind]) and any(all(word in text for word in words) for text in status["problems"])
    )


def well(status: dict[str, Any]) -> bool:
    return bool(status["healthy"]) and not status["problems"]


@pytest.fixture
async def running(make_daemon: Callable[..., Daemon], producer: Producer) -> Daemon:
    """A daemon whose statements time out soon, with devices d1 to d4."""
    daemon = make_daemon(database={"statement_timeout": "1s", "connect_timeout": "2s"})
    producer.add_devices(4)
    await daemon.start()
    await daemon.until(well)
    return daemon


async def send_one(daemon: Daemon, producer: Producer) -> None:
    """A job goes its whole way."""
    before = producer.states()["sent"]
    producer.add_jobs(1, 1)
    await producer.until_finished(daemon, before + 1)


# ---- work that fails again and again


async def test_a_locked_table_is_named_with_the_work_that_waits_for_it_and_stops_nothing_else(
    running: Daemon, producer: Producer, superuser_dsn: str
) -> None:
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, run_at) VALUES ('d1', '+4915112345678', 'x', now() + '3 s')"
    )
    with psycopg.connect(superuser_dsn) as locker:
        locker.execute("LOCK TABLE shardd.devices IN ACCESS EXCLUSIVE MODE")
        await running.until(has("step", "reading the devices", "a table locked"))
        # Neither the leases nor the queue wait for those who do.
        await running.until(lambda status: status["totals"]["sent"] == 1)
        status = await running.status()
        assert (status["problem_kinds"]["leases"], status["problem_kinds"]["database"]) == (0, 0)
    await running.until(well)
    await send_one(running, producer)


async def test_a_promotion_that_fails_stops_neither_the_poll_nor_the_scan(
    running: Daemon, producer: Producer, superuser_dsn: str
) -> None:
    with connect(superuser_dsn) as owner:
        refuse(owner, "jobs", "OLD.scheduled AND NOT NEW.scheduled", "UPDATE")
        producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body, run_at) VALUES ('d1', '+4915112345678', 'x', now() + '1 s')"
        )
        await running.until(has("step", "moving due jobs to their lanes: failing", "not this one"))
        await send_one(running, producer)
        owner.execute("DROP TRIGGER strange ON shardd.jobs")
    assert await producer.until_finished(running, 2) == {"sent": 2}
    await running.until(well)


# ---- events


async def test_a_forgotten_transaction_in_another_database_is_named(
    running: Daemon, producer: Producer, postgres: Cluster
) -> None:
    other = postgres.create_database()
    try:
        with psycopg.connect(postgres.dsn(other, "postgres"), application_name="nightly report") as forgetful:
            forgetful.execute("CREATE TABLE notes (n integer)")
            pid = forgetful.info.backend_pid
            await send_one(running, producer)
            await running.until(
                has("events", f"database {other}", f"pid {pid}", "nightly report", "pg_terminate_backend")
            )
            forgetful.rollback()
        await running.until(well)
    finally:
        postgres.drop_database(other)


# ---- devices and claims


async def test_a_device_whose_rows_somebody_keeps_locked_is_named(
    running: Daemon, producer: Producer, superuser_dsn: str
) -> None:
    with psycopg.connect(superuser_dsn) as locker:
        producer.execute("UPDATE shardd.devices SET paused_at = now() WHERE id = 'd2'")
        producer.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d2', '+4915112345678', 'x')")
        locker.execute("SELECT FROM shardd.jobs WHERE device_id = 'd2' FOR UPDATE")
        producer.execute("UPDATE shardd.devices SET paused_at = NULL WHERE id = 'd2'")
        await running.until(has("device", "1 device could send jobs at once", "d2"))
    await producer.until_finished(running, 1)
    await running.until(well)


async def test_a_worker_that_keeps_a_job_for_too_long_is_named(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(
        shards=1,
        queue={"send_timeout": "1s"},
        supervisor={"heartbeat_timeout": "10m"},
        transports={"sandbox": {"latency_min": "900ms", "latency_max": "950ms"}},
    )
    producer.add_devices(1)
    await daemon.start()
    producer.add_jobs(1, 1)
    status = await daemon.until(lambda status: status["totals"]["in_flight"] == 1)
    worker = status["shards"][0]["pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        await daemon.until(has("claim", "1 job with the worker of shard 0", "device d1", "shardd restart 0"))
    finally:
        os.kill(worker, signal.SIGCONT)
    await producer.until_finished(daemon, 1)
    await daemon.until(well)


async def test_claims_that_no_worker_has_are_found_and_returned(
    running: Daemon, producer: Producer, superuser_dsn: str
) -> None:
    """What a commit leaves behind that hung until everybody had given it up."""
    producer.execute("UPDATE shardd.devices SET paused_at = now() WHERE id = 'd3'")
    producer.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d3', '+4915112345678', 'x')")
    with connect(superuser_dsn) as owner:
        owner.execute(
            "UPDATE shardd.jobs SET attempt = attempt + 1, claimed_at = now(), "
            "claimed_epoch = (SELECT min(epoch) FROM shardd.leases) WHERE device_id = 'd3'"
        )
    assert producer.states() == {"sending": 1}
    await running.until(
        lambda status: (
            well(status)
            and any("1 job claimed" in note and "without reaching a worker" in note for note in status["notes"])
        )
    )
    assert producer.states() == {"queued": 1}
    producer.execute("UPDATE shardd.devices SET paused_at = NULL WHERE id = 'd3'")
    assert await producer.until_finished(running, 1) == {"sent": 1}


async def test_claims_of_a_node_that_lost_its_leases_are_named_until_they_are_settled(
    running: Daemon, producer: Producer, superuser_dsn: str
) -> None:
    producer.execute("UPDATE shardd.devices SET paused_at = now() WHERE id = 'd3'")
    await running.until(lambda s: s["device_states"]["paused"] == 1)
    producer.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d3', '+4915112345678', 'x')")
    with connect(superuser_dsn) as owner:
        # It still says that it lives, so nobody settles its claims for it.
        owner.execute(
            "INSERT INTO shardd.nodes (id, name, incarnation, shards, version, ttl, seen_at) "
            "SELECT 'other', 'other', gen_random_uuid(), max(shards), 'x', 9, now() + '1 hour' FROM shardd.nodes"
        )
        owner.execute(
            "INSERT INTO shardd.epochs (shard, node, incarnation) "
            "SELECT 0, name, incarnation FROM shardd.nodes WHERE name = 'other'"
        )
        owner.execute(
            "UPDATE shardd.jobs SET attempt = 1, claimed_at = now(), claimed_epoch = (SELECT max(epoch) FROM shardd.epochs)"
        )
        await running.until(has("claim", "1 job left `sending` by node other, whose leases have ended"))
        owner.execute("UPDATE shardd.nodes SET seen_at = now() - interval '1 hour' WHERE name = 'other'")
    assert await producer.until_finished(running, 1) == {"in_doubt": 1}
    status = await running.until(lambda s: s["problem_kinds"]["claim"] == 0)
    assert ["other" in problem for problem in status["problems"]] == [True], "nobody has heard of it"


async def test_messages_that_a_damaged_file_may_have_lost_are_named_until_a_person_has_looked(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon()
    folder = daemon.state_dir / FOLDER
    folder.mkdir(0o700)
    file = folder / "00000000000000000001-1-0.stop"
    file.write_bytes(b"+49151123\n")
    file.chmod(0o600)
    await daemon.start()
    await daemon.until(has("inbox", "cannot be stored: 1", str(folder), "*.damaged"))
    file.with_name(f"{file.name}.damaged").unlink()
    await daemon.until(well)


# ---- what the database refuses


def refuse(owner: psycopg.Connection[Any], table: str, when: str, event: str) -> None:
    """A trigger of somebody else's, that wants no such row."""
    owner.execute("CREATE SCHEMA IF NOT EXISTS strange")
    owner.execute(
        "CREATE OR REPLACE FUNCTION strange.no() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION USING ERRCODE = 'data_exception', MESSAGE = 'not this one'; END$$"
    )
    statement = sql.SQL("CREATE TRIGGER strange BEFORE {} ON {} FOR EACH ROW WHEN ({}) EXECUTE FUNCTION strange.no()")
    owner.execute(statement.format(sql.SQL(event), sql.Identifier("shardd", table), sql.SQL(when)))


def months(owner: psycopg.Connection[Any]) -> list[str]:
    """The partitions in which finished jobs end up."""
    rows = owner.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'shardd.archive'::regclass AND c.relname <> 'archive_other'"
    )
    return [row[0] for row in rows.fetchall()]


async def test_an_outcome_that_is_refused_stops_no_other(
    running: Daemon, producer: Producer, superuser_dsn: str
) -> None:
    with connect(superuser_dsn) as owner:
        for month in months(owner):
            refuse(owner, month, "NEW.device_id = 'd1'", "INSERT")
        producer.add_jobs(40, 4)
        # The journal knows what became of them: the device goes on.
        await running.until(lambda _: producer.states() == {"sent": 30, "sending": 10})
        await running.until(has("refused", "of device d1", "not this one", "and 9 more"))
        for month in months(owner):
            owner.execute(sql.SQL("DROP TRIGGER strange ON {}").format(sql.Identifier("shardd", month)))
    assert await producer.until_finished(running, 40) == {"sent": 40}
    await running.until(well)
    assert len(running.messages()) == 40


async def test_an_outcome_whose_texts_are_refused_is_stored_without_them(
    running: Daemon, producer: Producer, superuser_dsn: str
) -> None:
    with connect(superuser_dsn) as owner:
        for month in months(owner):
            refuse(owner, month, "NEW.device_id = 'd1' AND NEW.message_id IS NOT NULL", "INSERT")
    producer.add_jobs(8, 4)
    assert await producer.until_finished(running, 8) == {"sent": 8}
    found = producer.execute("SELECT device_id, message_id IS NULL, error FROM shardd.outcomes ORDER BY 1")
    without = {(device, error) for device, is_null, error in found if is_null}
    assert without == {("d1", "the database refused to store the details of this outcome")}
    await running.until(has("defect", "an outcome was stored without its details"))


async def test_a_lane_that_cannot_be_claimed_from_stops_no_other(
    running: Daemon, producer: Producer, superuser_dsn: str
) -> None:
    with connect(superuser_dsn) as owner:
        refuse(owner, "jobs", "NEW.device_id = 'd1' AND NEW.claimed_epoch IS NOT NULL", "UPDATE")
        producer.add_jobs(40, 4)
        await running.until(lambda _: producer.states() == {"sent": 30, "queued": 10})
        await running.until(has("refused", "d1, marketing", "not this one"))
        owner.execute("DROP TRIGGER strange ON shardd.jobs")
    assert await producer.until_finished(running, 40) == {"sent": 40}
    await running.until(well)


async def test_what_was_refused_before_a_crash_blocks_its_shard_and_not_the_start(
    running: Daemon, producer: Producer, superuser_dsn: str
) -> None:
    with connect(superuser_dsn) as owner:
        for month in months(owner):
            refuse(owner, month, "NEW.device_id = 'd1'", "INSERT")
        producer.add_jobs(8, 4)
        await running.until(lambda _: producer.states() == {"sent": 6, "sending": 2})
        workers = running.worker_pids()
        running.kill()
        await running.wait_end()
        for pid in workers:
            await wait_gone(pid)
        await running.start()
        status = await running.until(lambda status: any("not this one" in text for text in status["problems"]))
        assert sum(shard["state"] == "running" for shard in status["shards"]) == 1
        for month in months(owner):
            owner.execute(sql.SQL("DROP TRIGGER strange ON {}").format(sql.Identifier("shardd", month)))
    assert await producer.until_finished(running, 8) == {"sent": 8}
    await running.until(well)
    assert len(running.messages()) == 8
