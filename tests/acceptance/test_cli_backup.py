from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardd.errors import DatabaseError, UsageError
from shardd.postgres.dsn import parse_dsn
from shardd.queue.restoring import SKIPPED_IDS
from tests.fixtures.postgres import Cluster, make_state_dir, remove_state_dir
from tests.fixtures.whatsapp_fleet import Fleet
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer

INSERT = "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES (%s, '+4915112345678', 'x') RETURNING id"


async def test_what_was_sent_after_a_backup_is_not_sent_again(
    make_daemon: Callable[..., Daemon], producer: Producer, postgres: Cluster, dbname: str, tmp_path: Path
) -> None:
    daemon = make_daemon(
        shards=1,
        supervisor={"heartbeat_timeout": "60s"},
        lease={"ttl": "8s", "renew_every": "500ms", "margin": "1s"},
        database={"connect_timeout": "3s", "statement_timeout": "3s"},
    )
    shardd, file = Command(daemon.config_file), tmp_path / "shardd.dump"
    producer.add_devices(2)
    await daemon.start()
    await shardd("device", "pause", "d2")
    (worker,) = daemon.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    ((flying,),) = producer.execute(INSERT, "d1")
    ((waiting,),) = producer.execute(INSERT, "d2")
    await daemon.until(lambda _: producer.states() == {"sending": 1, "queued": 1})
    ran = await shardd("db", "backup", file)
    assert (ran.code, ran.err) == (0, "")
    os.kill(worker, signal.SIGCONT)
    await shardd("device", "resume", "d2")
    await producer.until_finished(daemon, 2)
    ran = await shardd("db", "restore", file, "--sent-since-backup=maybe")
    assert (ran.code, ran.err) == (UsageError.exit_code, "shardd: shardd runs: stop it on every host first\n")
    assert await daemon.stop() == 0

    postgres.empty_database(dbname)
    ran = await shardd("db", "restore", file)
    assert ran.code == UsageError.exit_code
    assert "with old keys, recipients cannot decrypt what is sent" in ran.err
    ran = await shardd("db", "restore", file, "--sent-since-backup=maybe")
    assert ran.code == 0, ran.err
    assert "cancelled 1 job that waited; 1 job in flight will be in doubt" in ran.out
    ran = await shardd("db", "restore", file, "--sent-since-backup=maybe")
    assert ran.code == UsageError.exit_code
    assert "nothing is overwritten" in ran.err

    await daemon.start()
    ((new,),) = producer.execute(INSERT, "d1")
    assert new > SKIPPED_IDS
    await producer.until_finished(daemon, 3)
    assert dict(producer.execute("SELECT id, state FROM shardd.outcomes")) == {
        flying: "in_doubt",
        waiting: "cancelled",
        new: "sent",
    }
    assert await daemon.stop() == 0
    assert Counter(message["job"] for message in daemon.messages()) == {flying: 1, waiting: 1, new: 1}


async def test_a_restore_that_fails_leaves_a_database_on_which_nothing_runs(
    shardd: Command, producer: Producer, postgres: Cluster, dbname: str, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole.dump", tmp_path / "broken.dump"
    producer.add_devices(1)
    producer.execute(INSERT, "d1")
    assert (await shardd("db", "backup", whole)).code == 0
    assert whole.stat().st_mode & 0o777 == 0o600
    ran = await shardd("db", "backup", whole)
    assert (ran.code, "is there already" in ran.err) == (UsageError.exit_code, True)
    content = whole.read_bytes()
    broken.write_bytes(content[: len(content) * 3 // 4])
    postgres.empty_database(dbname)

    ran = await shardd("db", "restore", broken, "--sent-since-backup=no")
    assert ran.code == DatabaseError.exit_code
    assert "pg_restore failed, and nothing was changed" in ran.err
    ran = await shardd("db", "migrate")
    assert (ran.code, "read-only" in ran.err) == (DatabaseError.exit_code, True)
    # It may be repeated. With nothing sent since, all goes on as it was.
    ran = await shardd("db", "restore", whole, "--sent-since-backup=no")
    assert ran.code == 0, ran.err
    assert producer.states() == {"queued": 1}
    assert (await shardd("db", "migrate")).code == 0
    ran = await shardd("db", "restore", tmp_path / "shards.yaml", "--sent-since-backup=no")
    assert (ran.code, "is no file of `shardd db backup`" in ran.err) == (UsageError.exit_code, True)


@pytest.fixture
def folder() -> Iterator[Path]:
    found = make_state_dir()
    yield found
    remove_state_dir(found)


async def test_the_embedded_database_is_backed_up_and_restored(folder: Path) -> None:
    config, file = folder / "shards.yaml", folder / "shardd.dump"
    config.write_text(f"state_dir: {folder}\n")
    shardd = Command(config)
    assert (await shardd("db", "migrate")).code == 0
    assert (await shardd("device", "add", "me", "--transport=sandbox")).code == 0
    ran = await shardd("db", "backup", file)
    assert ran.code == 0, ran.err
    (folder / "pg").rename(folder / "old")
    ran = await shardd("db", "restore", file, "--sent-since-backup=no")
    assert ran.code == 0, ran.err
    ran = await shardd("device", "list", "--json")
    assert [device["id"] for device in ran.json] == ["me"]


@pytest.mark.timeout(240)
async def test_recipients_can_read_what_a_restored_session_sends(
    fleet: Fleet, fleet_cluster: tuple[Cluster, str], tmp_path: Path
) -> None:
    """The keys of a session move on with each message; the same ones a second time are refused by the recipient's phone."""
    (phone,), recipient = fleet.add(1), fleet.stranger()
    daemon = fleet.daemon(shards=1)
    shardd, file = Command(daemon.config_file), tmp_path / "shardd.dump"
    shardd.environ |= daemon.environ
    await daemon.start()
    await fleet.job_is(fleet.send(phone, "first", recipient), "sent")
    assert (await shardd("db", "backup", file)).code == 0
    await fleet.job_is(fleet.send(phone, "second", recipient), "sent")
    assert await daemon.stop() == 0

    cluster, _ = fleet_cluster
    cluster.empty_database(str(parse_dsn(fleet.dsn)["dbname"]))
    ran = await shardd("db", "restore", file, "--sent-since-backup=maybe")
    assert ran.code == 0, ran.err
    assert "1 WhatsApp session will agree new keys with every recipient" in ran.out
    fleet.reconnect()
    await daemon.start()
    await fleet.job_is(fleet.send(phone, "third", recipient), "sent")
    assert await daemon.stop() == 0
    sent = fleet.server.control.messages(readable_only=False)
    assert [(message.text, message.failed) for message in sent] == [("first", []), ("second", []), ("third", [])]
