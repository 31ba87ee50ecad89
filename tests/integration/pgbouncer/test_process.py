"""A real PgBouncer in front of real servers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from shardd.pgbouncer import PgBouncer, PgBouncerError, Program, Target, find_program
from shardd.pgbouncer.folder import prepare_folder
from tests.support.daemon import wait_gone
from tests.support.servers import PGBOUNCER, Server

PASSWORD = 'it\'s \\ "a" ;pass%word=#'
HOSTILE = {"search_path": '"sch\'e ma", public', "statement_timeout": "12345", "work_mem": "5120"}


@pytest.fixture
async def pooler(tmp_path: Path) -> AsyncIterator[PgBouncer]:
    pooler = PgBouncer(find_program(PGBOUNCER), tmp_path)
    yield pooler
    await pooler.close()


def target_of(server: Server, **more: Any) -> Target:
    return Target("127.0.0.1", server.port, "shardd", **{"user": "shardd", **more})


def ask(pooler: PgBouncer, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(pooler.dsn, autocommit=True, prepare_threshold=None, connect_timeout=20) as connection:
        return connection.execute(statement).fetchall()  # type: ignore[arg-type] # a literal


def folder_of(pooler: PgBouncer) -> Path:
    return Path(str(conninfo_to_dict(pooler.dsn)["host"]))


def port_behind(pooler: PgBouncer) -> int:
    """The port of the server that answers."""
    return int(ask(pooler, "SELECT current_setting('port')")[0][0])


async def test_it_logs_in_with_any_password_and_sets_what_clients_cannot(tcp_server: Server, pooler: PgBouncer) -> None:
    with psycopg.connect(tcp_server.dsn("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE proved LOGIN PASSWORD {}").format(PASSWORD))
        (hba,) = connection.execute("SHOW hba_file").fetchone() or ("",)
    tcp_server.home.account.write(
        Path(hba), "host all proved all scram-sha-256\nhost all all all trust\nhost replication all all trust\n"
    )
    tcp_server.execute("SELECT pg_reload_conf()")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(tcp_server.dsn(user="proved"))

    await pooler.start(target_of(tcp_server, user="proved", password=PASSWORD, settings=HOSTILE), servers=2)
    await pooler.check()
    columns = ", ".join(f"current_setting('{name}')" for name in HOSTILE)
    for _ in range(2):  # one client's settings do not reach the next
        (found,) = await asyncio.to_thread(ask, pooler, f"SELECT current_user, {columns}")
        assert found == ("proved", HOSTILE["search_path"], "12345ms", "5MB")
        await asyncio.to_thread(ask, pooler, "SELECT set_config('work_mem', '1MB', true)")
    ini = folder_of(pooler) / "pgbouncer.ini"
    assert ini.stat().st_mode & 0o777 == 0o600
    assert ini.parent.stat().st_mode & 0o777 == 0o700


async def test_many_clients_share_the_servers_that_it_may_have(tcp_server: Server, pooler: PgBouncer) -> None:
    await pooler.start(target_of(tcp_server), servers=3)
    clients = [psycopg.connect(pooler.dsn, autocommit=True, prepare_threshold=None) for _ in range(200)]
    backends = {connection.execute("SELECT pg_backend_pid()").fetchone() for connection in clients}
    assert 1 <= len(backends) <= 3
    for connection in clients:
        connection.close()


async def test_it_is_led_to_another_server_and_cuts_off_what_goes_on_at_the_first(
    tcp_server: Server, standby: Server, pooler: PgBouncer
) -> None:
    first, second = tcp_server, standby
    await pooler.start(target_of(first), servers=2)
    client = psycopg.connect(pooler.dsn, prepare_threshold=None)
    client.execute("CREATE TABLE half_done ()")  # its transaction stays open
    await pooler.lead_to(target_of(second))
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT 1")
    assert await asyncio.to_thread(port_behind, pooler) == second.port
    ((left,),) = first.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'shardd'")
    assert left == 0
    assert first.execute("SELECT to_regclass('half_done')", database="shardd") == [(None,)]


async def test_the_last_line_of_its_output_is_why_it_does_not_start(tmp_path: Path) -> None:
    pooler = PgBouncer(Program("/usr/bin/env", "0"), tmp_path)
    with pytest.raises(PgBouncerError, match=r"/usr/bin/env does not start: .*pgbouncer\.ini.*Permission denied"):
        await pooler.start(Target("127.0.0.1", 1, "d", "u"), servers=2)
    assert pooler.pid is None
    await pooler.close()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def test_one_that_hangs_is_noticed_and_ended(
    tcp_server: Server, pooler: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardd.pgbouncer.process.CONSOLE_TIMEOUT", 0.5)
    monkeypatch.setattr("shardd.pgbouncer.process.STOP_TIMEOUT", 0.5)
    await pooler.start(target_of(tcp_server), servers=2)
    pid = pooler.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(PgBouncerError, match="does not answer"):
        await pooler.check()
    await pooler.stop()
    assert pooler.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


START = """
import asyncio, os, pathlib, sys
from shardd.pgbouncer import PgBouncer, Target, find_program
from tests.support.servers import PGBOUNCER
async def main():
    pooler = PgBouncer(find_program(PGBOUNCER), pathlib.Path(sys.argv[1]))
    await pooler.start(Target("127.0.0.1", int(sys.argv[2]), "shardd", "shardd"), servers=2)
    print(pooler.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def start_elsewhere(folder: Path, server: Server) -> tuple[subprocess.Popen[str], int]:
    """A PgBouncer of another process: that process, and its own id."""
    process = subprocess.Popen(  # noqa: ASYNC220 - an exec of some ms
        [sys.executable, "-c", START, str(folder), str(server.port)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, int(await asyncio.to_thread(process.stdout.readline))


async def test_it_ends_with_its_parent(tcp_server: Server, tmp_path: Path, pooler: PgBouncer) -> None:
    parent, pid = await start_elsewhere(tmp_path, tcp_server)
    parent.kill()
    parent.wait()
    await wait_gone(pid)
    await pooler.start(target_of(tcp_server), servers=2)
    assert await asyncio.to_thread(port_behind, pooler) == tcp_server.port


async def test_one_that_an_earlier_run_left_is_ended(tcp_server: Server, tmp_path: Path, pooler: PgBouncer) -> None:
    parent, pid = await start_elsewhere(tmp_path, tcp_server)
    with stopped(pid):  # so that it does not notice the death of its parent
        parent.kill()
        parent.wait()
        await pooler.start(target_of(tcp_server), servers=2)
        assert pooler.pid != pid
    assert await asyncio.to_thread(port_behind, pooler) == tcp_server.port


async def test_a_listener_of_another_container_is_named_and_not_killed(tmp_path: Path) -> None:
    """To kill(2), its process id, which is 0 in another namespace, means the caller's own process group."""
    apart = ["unshare", "--pid", "--fork", *(["--map-current-user"] if os.geteuid() else [])]
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode != 0:  # noqa: ASYNC221 - some ms
        pytest.skip("no process id namespaces for this user")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(prepare_folder(tmp_path).socket))
        listening.listen()
        command = [*apart, sys.executable, "-c", START, str(tmp_path), "1"]
        ran = await asyncio.to_thread(
            subprocess.run, command, check=False, capture_output=True, text=True, start_new_session=True
        )
    assert ran.returncode == 1
    assert "PgBouncerError: a process of another container listens on" in ran.stderr
