"""Damage to the control socket of a running shardd: it is recreated, or reported in the metrics and the log."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.support.command import Command, Ran
from tests.support.daemon import LOOK_AGAIN, PATIENCE, Daemon, Producer
from tests.support.servers import free_port


async def answered(command: Command, *words: str, code: int = 0) -> Ran:
    """The first run of `shardd status` that ends with a code and says these words."""
    async with asyncio.timeout(PATIENCE):
        while True:
            ran = await command("status")
            if ran.code == code and all(word in ran.out + ran.err for word in words):
                return ran
            await asyncio.sleep(LOOK_AGAIN)


async def metrics(port: int, *words: str) -> None:
    """Until the page of metrics has these lines."""
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                if set(words) <= set((await answer.text()).splitlines()):
                    return
            await asyncio.sleep(LOOK_AGAIN)


@pytest.mark.parametrize(("group", "mode"), [(False, 0o600), (True, 0o660)])
async def test_a_socket_that_was_deleted_is_made_anew(
    make_daemon: Callable[..., Daemon], group: bool, mode: int
) -> None:
    daemon = make_daemon(control={"group": group})
    await daemon.start()
    command = Command(daemon.config_file)
    daemon.socket.unlink()
    await answered(command)
    assert daemon.socket.lstat().st_mode & 0o777 == mode
    # Of a shardd that was killed on a copy of the folder, say.
    daemon.socket.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(daemon.socket))
    await answered(command)
    assert (await command("stop")).code == 0
    assert await daemon.wait_end() == 0
    assert not daemon.socket.exists()


def pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("put", [pipe, folder])
async def test_something_else_in_its_place_is_a_problem_until_it_is_moved_away(
    make_daemon: Callable[..., Daemon], put: Callable[[Path], None]
) -> None:
    port = free_port()
    daemon = make_daemon(control={"metrics": f"127.0.0.1:{port}"})
    await daemon.start()
    command = Command(daemon.config_file)
    daemon.socket.unlink()
    put(daemon.socket)
    await metrics(port, 'shardd_problems{kind="control"} 1.0')
    assert f"{daemon.socket}: this path is not a socket: move it away" in daemon.log_file.read_text()
    for asked in ("status", "stop"):
        ran = await command(asked)
        assert (ran.code, ran.err.count("\n")) == (69, 1)
        assert f"{daemon.socket} is not a socket: move it away" in ran.err
    daemon.socket.rename(daemon.socket.with_name("aside"))
    await answered(command)
    await metrics(port, 'shardd_problems{kind="control"} 0.0')
    assert await daemon.stop() == 0


async def test_a_socket_at_which_somebody_else_listens_is_left_to_him(make_daemon: Callable[..., Daemon]) -> None:
    port = free_port()
    daemon = make_daemon(control={"metrics": f"127.0.0.1:{port}"})
    await daemon.start()
    daemon.socket.unlink()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(daemon.socket))
        stranger.listen()
        await metrics(port, 'shardd_problems{kind="control"} 1.0')
        assert await daemon.stop() == 0
        assert daemon.socket.is_socket()
    assert "another program listens there" in daemon.log_file.read_text()


async def test_a_node_whose_folder_was_deleted_says_so_and_others_serve_its_devices(
    make_daemon: Callable[..., Daemon], producer: Producer, tmp_path: Path
) -> None:
    lease = {"ttl": "4s", "renew_every": "500ms", "margin": "1s"}
    database = {"connect_timeout": "1s", "statement_timeout": "1s"}
    one = make_daemon(tmp_path, node="one", shards=4, lease=lease)
    one.settings["state_dir"] = str(tmp_path / "state")
    two = make_daemon(node="two", shards=4, lease=lease)
    for place, daemon in enumerate((one, two)):
        daemon.take_place(place)
        daemon.settings["database"] |= database
    producer.add_devices(20)
    await one.start()
    away = one.home.with_name("away")
    one.home.rename(away)
    command = Command(one.config_file)
    words = f"its state folder {one.home} was deleted or replaced, and {one.socket} with it: put it back, or stop it"
    ran = await answered(command, words, "node one is alive", f"pid {one.process.pid if one.process else 0}", code=69)
    assert ran.err.count("\n") == 1
    # It keeps from the other what it holds for no longer than a lease.
    await two.start()
    producer.add_jobs(40, 20)
    assert await producer.until_finished(two, 40) == {"sent": 40}
    status = await two.until(lambda s: all(x["state"] == "running" for x in s["shards"]))
    assert all(x["epoch"] is not None for x in status["shards"])
    await answered(command, "serves no shards", code=69)

    away.rename(one.home)
    await one.until(lambda s: s["healthy"] and any(x["epoch"] is not None for x in s["shards"]))
    producer.add_jobs(40, 20)
    assert await producer.until_finished(two, 80) == {"sent": 80}
    jobs = [message["job"] for message in one.messages() + two.messages()]
    assert len(jobs) == len(set(jobs)) == 80
    assert one.messages()
    assert (await one.stop(), await two.stop()) == (0, 0)


async def test_what_was_under_way_when_the_folder_was_deleted_is_sent_by_nobody_else(
    make_daemon: Callable[..., Daemon], producer: Producer, tmp_path: Path
) -> None:
    lease = {"ttl": "4s", "renew_every": "500ms", "margin": "1s"}
    hang = {"sandbox": {"hang_rate": 1.0, "hang_for": "10m"}}
    one = make_daemon(
        tmp_path,
        node="one",
        lease=lease,
        transports=hang,
        supervisor={"drain_timeout": "1s"},
    )
    one.settings["state_dir"] = str(tmp_path / "state")
    two = make_daemon(node="two", lease=lease)
    for daemon in (one, two):
        daemon.settings["database"] |= {"connect_timeout": "1s", "statement_timeout": "1s"}
    producer.add_devices(4)
    producer.add_jobs(4, 4)
    await one.start()
    await one.until(lambda _: len(one.messages()) == 4)
    shutil.rmtree(one.home)
    await two.start()
    producer.add_jobs(4, 4)
    assert await producer.until_finished(two, 8) == {"in_doubt": 4, "sent": 4}
    assert len(two.messages()) == 4
    assert await one.stop() == 0
    assert await two.stop() == 0
