from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import yaml

from shardd.embedded import embedded_dsn
from shardd.errors import DatabaseError, NotMigratedError, UsageError
from shardd.postgres.dsn import parse_dsn
from shardd.queue.restoring import SKIPPED_IDS
from shardd.state_files import ID_FILE
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from tests.fixtures.postgres import Cluster, make_state_dir, remove_state_dir
from tests.fixtures.whatsapp_fleet import Fleet
from tests.support.command import PROGRAM, Command
from tests.support.daemon import Daemon, Producer

INSERT = "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES (%s, '+4915112345678', 'x') RETURNING id"
SESSIONS = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND application_name = 'shardd/other-host' AND state = 'idle'"
)
RESTORING = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND application_name = 'shardd/pg_restore'"


async def until(true: Callable[[], bool]) -> None:
    """Nothing reports what a process of PostgreSQL has begun, so it is asked again and again."""
    async with asyncio.timeout(60.0):
        while not true():  # noqa: ASYNC110  # see above
            await asyncio.sleep(0.05)


async def test_what_was_sent_after_a_backup_is_not_sent_again(
    make_daemon: Callable[..., Daemon], producer: Producer, postgres: Cluster, dbname: str, tmp_path: Path
) -> None:
    daemon = make_daemon(
        shards=1,
        supervisor={"heartbeat_timeout": "10m"},
        lease={"ttl": "10m", "renew_every": "500ms"},  # a worker that is stopped for longer is killed
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
    assert producer.acts()[-1] == ("restore", "the database", "done")
    ran = await shardd("db", "restore", file, "--sent-since-backup=maybe")
    assert ran.code == UsageError.exit_code
    assert "nothing is overwritten" in ran.err

    await daemon.start()
    ((new,),) = producer.execute(INSERT, "d1")
    assert new > SKIPPED_IDS
    await producer.until_finished(daemon, 3)
    assert dict(producer.execute("SELECT id, state FROM shardd.outcomes")) == {
        flying: "sent",  # as this node remembers
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
    broken.write_bytes(content[: data_end(content) * 3 // 4])
    postgres.empty_database(dbname)

    ran = await shardd("db", "restore", broken, "--sent-since-backup=no")
    assert ran.code == DatabaseError.exit_code
    assert "pg_restore failed: " in ran.err
    assert "the database stays read-only" in ran.err
    ran = await shardd("db", "migrate")
    assert (ran.code, "read-only" in ran.err) == (DatabaseError.exit_code, True)
    # It may be repeated. With nothing sent since, all goes on as it was.
    ran = await shardd("db", "restore", whole, "--sent-since-backup=no")
    assert ran.code == 0, ran.err
    assert producer.states() == {"queued": 1}
    assert (await shardd("db", "migrate")).code == 0
    ran = await shardd("db", "restore", tmp_path / "shards.yaml", "--sent-since-backup=no")
    assert (ran.code, "is no file of `shardd db backup`" in ran.err) == (UsageError.exit_code, True)


async def test_a_daemon_that_runs_on_another_host_is_noticed(
    make_daemon: Callable[..., Daemon], producer: Producer, postgres: Cluster, dbname: str, tmp_path: Path
) -> None:
    """Its open sessions may write though the database was closed after they began: it would send what waits."""
    daemon = make_daemon(node="other-host", shards=1)
    config, file = tmp_path / "shards.yaml", tmp_path / "shardd.dump"
    config.write_text(f"state_dir: {tmp_path}\nshards: 1\ndatabase: {{dsn: {producer.dsn!r}}}\n")
    shardd = Command(config)
    producer.add_devices(1)
    producer.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d1', '+4915112345678', 'x')")
    assert (await shardd("db", "backup", file)).code == 0
    await daemon.start()
    await producer.until_finished(daemon, 1)

    postgres.empty_database(dbname)
    with postgres.superuser() as superuser:
        await daemon.until(lambda _: bool(superuser.execute(SESSIONS, [dbname]).fetchone()))
    ran = await shardd("db", "restore", file, "--sent-since-backup=maybe")
    assert ran.code == UsageError.exit_code, ran.err
    assert "shardd/other-host" in ran.err
    assert producer.execute("SELECT to_regnamespace('shardd') IS NULL") == [(True,)]
    assert await daemon.stop() == 0
    ran = await shardd("db", "restore", file, "--sent-since-backup=maybe")
    assert ran.code == 0, ran.err
    assert len(daemon.messages()) == 1


def data_end(dump: bytes) -> int:
    """Up to where pg_restore reads: pg_dump of PostgreSQL 17.10 and 18 repeats the table of contents behind the data."""
    entry = b"CREATE TABLE shardd.jobs "
    first = dump.index(entry)
    again = dump.find(entry, first + 1)
    return len(dump) if again < 0 else again - first


async def begin_restore(shardd: Command, content: bytes) -> asyncio.subprocess.Process:
    """One that waits in the middle: pg_restore waits for the last byte of the data in a file that comes by a pipe."""
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM), "db", "restore", "-", "--sent-since-backup=maybe",
        env=shardd.environ, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(content[: data_end(content) - 1])
    return process


@pytest.fixture(params=[signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def ending(request: pytest.FixtureRequest) -> signal.Signals:
    return signal.Signals(request.param)


async def back_up_and_empty(shardd: Command, producer: Producer, postgres: Cluster, file: Path) -> None:
    """A backup with one job, and a database to restore it into."""
    producer.add_devices(1)
    producer.execute(INSERT, "d1")
    assert (await shardd("db", "backup", file)).code == 0
    postgres.empty_database(str(parse_dsn(producer.dsn)["dbname"]))


async def test_a_restore_that_is_ended_leaves_a_database_on_which_nothing_runs(
    shardd: Command, producer: Producer, postgres: Cluster, tmp_path: Path, ending: signal.Signals
) -> None:
    file, dbname = tmp_path / "shardd.dump", str(parse_dsn(producer.dsn)["dbname"])
    await back_up_and_empty(shardd, producer, postgres, file)
    process = await begin_restore(shardd, file.read_bytes())
    with postgres.superuser() as superuser:

        def restores() -> bool:
            return superuser.execute(RESTORING, [dbname]).fetchone() is not None

        await until(restores)
        process.send_signal(ending)
        _, errors = await process.communicate()
        # pg_restore ends with it.
        await until(lambda: not restores())
    if ending != signal.SIGKILL:
        assert process.returncode == 128 + ending
        assert "the database stays read-only" in errors.decode()
    ran = await shardd("db", "status")
    assert (ran.code, "shardd guide backup" in ran.err) == (1, True)
    ran = await shardd("device", "list")
    assert (ran.code, "shardd guide backup" in ran.err) == (DatabaseError.exit_code, True)
    ran = await shardd("db", "restore", file, "--sent-since-backup=maybe")
    assert ran.code == 0, ran.err
    assert producer.states() == {"cancelled": 1}


async def test_a_second_restore_beside_one_is_refused_and_does_not_disturb_it(
    shardd: Command, producer: Producer, postgres: Cluster, dbname: str, tmp_path: Path
) -> None:
    """Its jobs would not be cancelled if the second one opened the database."""
    file = tmp_path / "shardd.dump"
    await back_up_and_empty(shardd, producer, postgres, file)
    process = await begin_restore(shardd, file.read_bytes())
    with postgres.superuser() as superuser:
        await until(lambda: superuser.execute(RESTORING, [dbname]).fetchone() is not None)
    ran = await shardd("db", "restore", file, "--sent-since-backup=no")
    why = f"another `shardd db restore` works on the database {dbname}: wait until it has ended"
    assert (ran.code, ran.err) == (UsageError.exit_code, f"shardd: {why}\n")
    ran = await shardd("device", "list")
    assert (ran.code, "shardd guide backup" in ran.err) == (DatabaseError.exit_code, True)
    content = file.read_bytes()
    _, errors = await process.communicate(content[data_end(content) - 1 :])
    assert process.returncode == 0, errors.decode()
    assert producer.states() == {"cancelled": 1}
    assert (await shardd("db", "migrate")).code == 0


async def test_that_nothing_was_sent_since_is_not_believed_against_what_shows_it(
    make_daemon: Callable[..., Daemon], producer: Producer, postgres: Cluster, dbname: str, tmp_path: Path
) -> None:
    daemon = make_daemon(shards=1)
    shardd, stopped, running = Command(daemon.config_file), tmp_path / "stopped.dump", tmp_path / "running.dump"
    await daemon.start()
    assert await daemon.stop() == 0
    assert (await shardd("db", "backup", stopped)).code == 0
    postgres.empty_database(dbname)
    ran = await shardd("db", "restore", stopped, "--sent-since-backup=no")
    assert ran.code == 0, ran.err

    await daemon.start()
    assert (await shardd("db", "backup", running)).code == 0
    assert await daemon.stop() == 0
    postgres.empty_database(dbname)
    ran = await shardd("db", "restore", running, "--sent-since-backup=no")
    assert ran.code == UsageError.exit_code
    assert "shardd was running when the backup was made, or had been killed: node test on host " in ran.err
    assert "repeat with --sent-since-backup=maybe" in ran.err
    assert "the database stays read-only" in ran.err

    postgres.empty_database(dbname)
    ran = await shardd("db", "restore", stopped, "--sent-since-backup=no")
    assert ran.code == UsageError.exit_code
    assert f"shardd was started on state_dir {daemon.home} after the backup was made" in ran.err

    # What this host knows is read before anything is written.
    postgres.empty_database(dbname)
    (daemon.home / ID_FILE).rename(tmp_path / "identity")
    daemon.config_file.write_text(
        daemon.config_file.read_text().replace(f"state_dir: {daemon.home}", f"state_dir: {tmp_path}/identity")
    )
    ran = await shardd("db", "restore", stopped, "--sent-since-backup=no")
    assert ran.code == UsageError.exit_code
    assert ran.err.strip() == f"shardd: state_dir {tmp_path}/identity: whether shardd ran since: Not a directory"
    assert not producer.execute("SELECT FROM pg_namespace WHERE nspname = 'shardd'")
    postgres.empty_database(dbname)
    ran = await shardd("db", "restore", stopped, "--sent-since-backup=maybe")
    assert ran.code == 0, ran.err


def dumps(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if ".dump" in file.name]


async def test_a_backup_that_is_ended_leaves_no_file(shardd: Command, tmp_path: Path, producer: Producer) -> None:
    with psycopg.connect(producer.dsn) as blocker:
        blocker.execute("LOCK TABLE shardd.devices IN ACCESS EXCLUSIVE MODE")
        process = await asyncio.create_subprocess_exec(
            str(PROGRAM),
            "db",
            "backup",
            str(tmp_path / "shardd.dump"),
            env=shardd.environ,
            stderr=asyncio.subprocess.PIPE,
        )
        await until(lambda: bool(dumps(tmp_path)))
        process.terminate()
        await process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert not dumps(tmp_path)


def is_locked(file: Path) -> bool:
    if not file.exists():
        return False
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def test_a_backup_that_is_killed_is_written_over_by_the_next(
    shardd: Command, tmp_path: Path, producer: Producer
) -> None:
    def waiting() -> int:
        locks = "SELECT count(*) FROM pg_locks WHERE relation = 'shardd.devices'::regclass AND NOT granted"
        return int(producer.execute(locks)[0][0])

    for _ in range(2):
        # The killed one's pg_dump has the file until it ends.
        await until(lambda: not waiting() and not is_locked(tmp_path / ".shardd.dump.partial"))
        with psycopg.connect(producer.dsn) as blocker:
            blocker.execute("LOCK TABLE shardd.devices IN ACCESS EXCLUSIVE MODE")
            process = await asyncio.create_subprocess_exec(
                str(PROGRAM), "db", "backup", str(tmp_path / "shardd.dump"), env=shardd.environ
            )
            await until(lambda: waiting() > 0)
            ran = await shardd("db", "backup", tmp_path / "shardd.dump")
            assert (ran.code, "another backup is being written there" in ran.err) == (UsageError.exit_code, True)
            process.kill()
            await process.wait()
            assert dumps(tmp_path) == [".shardd.dump.partial"]
    async with asyncio.timeout(60.0):
        while (ran := await shardd("db", "backup", tmp_path / "shardd.dump")).code:
            assert "another backup is being written there" in ran.err
    assert dumps(tmp_path) == ["shardd.dump"]
    assert (tmp_path / "shardd.dump").read_bytes().startswith(b"PGDMP")


async def test_a_backup_goes_through_a_pipe(
    shardd: Command, producer: Producer, postgres: Cluster, dbname: str, tmp_path: Path
) -> None:
    producer.add_devices(1)
    pipe = f"set -o pipefail; {PROGRAM} db backup - | gzip > {tmp_path / 'shardd.dump.gz'}"
    done = await asyncio.create_subprocess_exec("bash", "-c", pipe, env=shardd.environ)
    assert await done.wait() == 0
    postgres.empty_database(dbname)
    pipe = f"gunzip < {tmp_path / 'shardd.dump.gz'} | {PROGRAM} db restore - --sent-since-backup=no"
    done = await asyncio.create_subprocess_exec("bash", "-c", pipe, env=shardd.environ)
    assert await done.wait() == 0
    assert producer.execute("SELECT id FROM shardd.devices") == [("d1",)]


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


@pytest.mark.timeout(600)
async def test_a_restore_of_the_embedded_database_that_is_ended_leaves_one_on_which_nothing_runs(
    shardd: Command, producer: Producer, folder: Path, ending: signal.Signals
) -> None:
    config, file = folder / "shards.yaml", folder / "shardd.dump"
    config.write_text(f"state_dir: {folder}\nshards: 1\n")
    producer.add_devices(1)
    assert (await shardd("db", "backup", file)).code == 0
    shardd = Command(config)
    process = await begin_restore(shardd, file.read_bytes())

    def restores() -> bool:
        try:
            with psycopg.connect(embedded_dsn(folder, "postgres")) as superuser:
                return superuser.execute(RESTORING, ["shardd"]).fetchone() is not None
        except (NotMigratedError, psycopg.OperationalError):
            return False  # there is no server yet

    await until(restores)
    # Beside it, a second one is refused at once, and a start waits.
    ran = await shardd("db", "restore", file, "--sent-since-backup=maybe")
    assert ran.code == UsageError.exit_code
    assert f"another process runs the embedded PostgreSQL of {folder}" in ran.err
    log = folder / "start.log"
    with log.open("wb") as out:
        start = await asyncio.create_subprocess_exec(str(PROGRAM), "start", env=shardd.environ, stdout=out, stderr=out)
    await until(lambda: b"waiting for a command to end" in log.read_bytes())
    process.send_signal(ending)
    _, errors = await process.communicate()
    assert process.returncode == (-ending if ending == signal.SIGKILL else 128 + ending)
    assert ("the database stays read-only" in errors.decode()) == (ending != signal.SIGKILL)
    # That start goes on, and ends with the reason.
    assert await start.wait() == DatabaseError.exit_code
    assert "is read-only: if its restore was interrupted, see: shardd guide backup" in log.read_text()
    ran = await shardd("db", "status")
    assert (ran.code, "shardd guide backup" in ran.err) == (1, True)
    ran = await shardd("db", "restore", file, "--sent-since-backup=maybe")
    assert ran.code == 0, ran.err
    ran = await shardd("device", "list", "--json")
    assert [device["id"] for device in ran.json] == ["d1"]


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
    # As with the PgBouncer of config/pgbouncer.ini, which leads to the same database.
    config = yaml.safe_load(daemon.config_file.read_text())
    config["database"]["sessions_dsn"] = sessions_dsn(fleet.dsn)
    pooled = tmp_path / "pooled.yaml"
    pooled.write_text(yaml.safe_dump(config))
    ran = await shardd("db", "restore", file, "--sent-since-backup=maybe", "--config", pooled)
    assert ran.code == 0, ran.err
    assert "1 WhatsApp session will agree new keys with every recipient" in ran.out
    fleet.reconnect()
    await daemon.start()
    await fleet.job_is(fleet.send(phone, "third", recipient), "sent")
    assert await daemon.stop() == 0
    sent = fleet.server.control.messages(readable_only=False)
    assert [(message.text, message.failed) for message in sent] == [("first", []), ("second", []), ("third", [])]
