"""What happens beside a start: commands, signals and probes in its first seconds, and a start that cannot succeed."""

from __future__ import annotations

import asyncio
import fcntl
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from shardd.config import load_config
from shardd.embedded.home import find_home
from shardd.pairing.context import SessionContext, session_settings
from shardd.queue.database import Database
from tests.support.command import Command
from tests.support.daemon import PATIENCE, Daemon
from tests.support.servers import free_port

SITE = str(Path(__file__).parents[1] / "support" / "defect_site")
SIGHUP_BIT = 1 << (signal.SIGHUP - 1)


@pytest.fixture
async def node(state_dir: Path) -> AsyncIterator[Daemon]:
    """A daemon with the embedded database, which does not exist yet."""
    daemon = Daemon(state_dir, None, control={"metrics": f"127.0.0.1:{free_port()}"})
    yield daemon
    if daemon.process is not None and daemon.process.returncode is None:
        await daemon.stop()
    await daemon.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.01)


def keeps_sighup(pid: int) -> bool:
    """Whether a process has a handler for it (proc_pid_status(5): SigCgt)."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(fields["SigCgt"], 16) & SIGHUP_BIT)


async def probes(node: Daemon) -> tuple[int, int]:
    """The status of /health and of /ready."""
    async with aiohttp.ClientSession(f"http://{node.settings['control']['metrics']}") as session:
        return (await session.get("/health")).status, (await session.get("/ready")).status


def is_creating(node: Daemon) -> bool:
    folder = find_home(node.home) if node.home.exists() else None
    return folder is not None and any(folder.glob("data.new-*"))


async def test_commands_and_a_reload_in_the_first_second_of_the_first_start(node: Daemon) -> None:
    await node.start(wait=False)
    assert node.process is not None
    pid = node.process.pid
    command = Command(node.config_file)
    adding = asyncio.create_task(command("device", "add", "d1", "--transport=sandbox"))
    waiting = asyncio.create_task(command("status", "--wait"))
    naming = asyncio.create_task(command("db", "dsn"))
    await until(lambda: keeps_sighup(pid))
    node.kill(signal.SIGHUP)
    added, ready, named = await asyncio.gather(adding, waiting, naming)
    assert (added.code, added.out) == (0, "added 1 sandbox device: their messages reach nobody\n"), added.err
    assert ready.code == 0, ready.err
    assert "healthy" in ready.out
    assert (named.code, named.out[:10]) == (0, "postgresql"), named.err
    assert (await node.status())["ready"]
    assert await probes(node) == (200, 200)
    await until(lambda: "config reloaded" in node.log_file.read_text())


async def test_a_stop_while_the_database_is_created_ends_the_start_cleanly(node: Daemon) -> None:
    await node.start(wait=False)
    await until(lambda: is_creating(node))
    assert await node.stop() == 0
    assert "stopped while starting" in node.log_tail(1)
    assert not is_creating(node)
    assert not node.socket.exists()
    # Nothing of it is in the way of the next start.
    await node.start()
    assert (await node.status())["healthy"]


async def test_a_start_waits_for_a_command_that_runs_the_database_and_says_so(node: Daemon) -> None:
    node.home.mkdir(exist_ok=True)
    with (node.home / "pg.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        await node.start(wait=False)
        await node.wait_said("waiting for a command to end")
        status = await node.status()
        assert (status["state"], status["ready"], status["healthy"]) == ("starting", False, False)
        assert status["starting"].startswith("waiting for a command to end")
        assert await probes(node) == (200, 503)
        command = Command(node.config_file)
        shown, drained, late = await asyncio.gather(
            command("status"), command("drain", "0"), command("status", "--wait", "--timeout=1500ms")
        )
        assert (shown.code, "waiting for a command to end" in shown.out) == (1, True), shown.err
        assert (drained.code, "shardd is starting (waiting for a command" in drained.err) == (75, True), drained.err
        assert (late.code, "not ready after 1.5 s: waiting for a command" in late.err) == (75, True), late.err
        # A logout, or a pairing, is such a command, and must not wait for the daemon in turn: no client is open yet.
        config = load_config(node.config_file)
        await SessionContext(session_settings(config, ""), Database("")).close_client("d1")
    await node.wait_said("READY=1")


async def test_nobody_answers_in_time(node: Daemon) -> None:
    node.write_config()
    late = await Command(node.config_file)("status", "--wait", "--timeout=100ms")
    assert (late.code, late.err) == (3, "shardd: shardd is not ready after 0.1 s: no shardd answers\n")


async def test_a_start_whose_workers_all_die_ends_with_their_error(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.environ = {"PYTHONPATH": SITE, "SHARDD_TEST_DEFECT": "worker"}
    await daemon.start(wait=False)
    said = await daemon.wait_said("no worker starts: shard 0: worker died: exit code 70")
    assert "STATUS=" in said
    assert await daemon.wait_end() == 70
    assert not any("READY=1" in text for text in daemon.said)


async def test_systemd_learns_why_a_start_failed(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(lease={"ttl": "1s"})
    await daemon.start(wait=False)
    said = await daemon.wait_said("lease.ttl")
    assert said.startswith("STATUS=")
    assert await daemon.wait_end() == 78


async def test_a_part_that_dies_in_the_background_ends_the_daemon_with_its_error(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon(webhooks={"crm": {"url": "http://127.0.0.1:9/", "secret": "whsec_" + "A" * 32}})
    daemon.environ = {"PYTHONPATH": SITE, "SHARDD_TEST_DEFECT": "webhook"}
    await daemon.start(wait=False)
    await daemon.wait_said("STATUS=a service of the supervisor failed: planted")
    assert await daemon.wait_end() == 70
