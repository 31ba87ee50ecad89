"""Unexpected files in place of the embedded database's: none is followed or blocks, and one line names the fix."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shardd.embedded.home import find_home
from tests.support.command import Command
from tests.support.daemon import Daemon


@pytest.fixture
async def node(state_dir: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon(state_dir, None)
    yield daemon
    if daemon.process is not None and daemon.process.returncode is None:
        await daemon.stop()
    await daemon.close()


def pipe(path: Path) -> str:
    os.mkfifo(path, 0o600)
    return f"{path} is not a plain file: move it away"


def link(path: Path) -> str:
    path.symlink_to(path.with_name("victim"))
    return f"{path} is a symbolic link, and shardd follows none here: remove it"


def folder(path: Path) -> str:
    path.mkdir()
    return f"{path} is not a plain file: move it away"


@pytest.mark.parametrize("put", [pipe, link, folder])
@pytest.mark.parametrize("name", ["pg.lock", "postgres.log"])
async def test_nothing_but_a_plain_file_refuses_the_start_in_one_line(
    node: Daemon, name: str, put: Callable[[Path], str]
) -> None:
    words = put(node.home / name)
    await node.start(wait=False)
    assert await node.wait_end() == 78
    log = node.log_file.read_text()
    assert log.count(words) == 1
    assert "Traceback" not in log
    assert not (node.home / "victim").exists()


async def test_pipes_among_the_files_of_the_data_keep_nobody_waiting(node: Daemon) -> None:
    await node.start()
    assert await node.stop() == 0
    home = find_home(node.home)
    assert home is not None
    # What is written at every start takes the place of whatever stands there.
    for name in ("hba.conf", "ident.conf"):
        (home / name).unlink()
        os.mkfifo(home / name)
        os.chown(home / name, home.stat().st_uid, -1)
    await node.start()
    assert await node.stop() == 0
    for name in ("postmaster.pid", "PG_VERSION"):
        path = home / "data" / name
        aside = path.with_suffix(".aside")
        if path.exists():
            path.rename(aside)
        words = pipe(path)
        os.chown(path, home.stat().st_uid, -1)
        await node.start(wait=False)
        assert await node.wait_end() == 78
        assert words in node.log_tail(3)
        path.unlink()
        if aside.exists():
            aside.rename(path)
    await node.start()
    assert await node.stop() == 0


def copy(one: Path, other: Path) -> None:
    """As an operator does."""
    subprocess.run(["cp", "-a", str(one), str(other)], check=True, timeout=60)


def move(one: Path, other: Path) -> None:
    one.rename(other)


@pytest.mark.timeout(300)  # five starts, each with a PostgreSQL of its own
async def test_a_copy_of_the_folder_is_refused_until_it_takes_the_others_place(node: Daemon, state_dir: Path) -> None:
    """Both would send the jobs that wait, each from its own copy of the database."""
    copied, moved = (state_dir.with_name(f"{state_dir.name}-{word}") for word in ("copy", "moved"))
    try:
        await node.start()
        assert await node.stop() == 0
        copy(state_dir, copied)
        await node.start()
        # It was made while the other one ran: PostgreSQL's own files name that one's server.
        home, second_home = find_home(state_dir), find_home(copied)
        assert home is not None
        assert second_home is not None
        for name in (".s.PGSQL.5432.lock", "data/postmaster.pid"):
            copy(home / name, second_home / name)
        second = Daemon(copied, None)
        second.log_file.write_text("")
        await second.start(wait=False)
        assert await second.wait_end() == 75
        log = second.log_file.read_text()
        assert f"state_dir {copied} is a copy of another one, or was restored" in log
        assert "postmaster" not in log
        assert "Traceback" not in log
        # Neither does a command start its database.
        listed = await Command(second.config_file)("job", "list")
        assert (listed.code, "is a copy of another one" in listed.err) == (75, True)
        assert (await node.status())["healthy"]

        (copied / "incarnations").unlink()
        await second.start()
        assert await second.stop() == 0
        await second.close()
        # A move is no copy.
        assert await node.stop() == 0
        move(state_dir, moved)
        third = Daemon(moved, None)
        await third.start()
        assert await third.stop() == 0
        await third.close()
    finally:
        if moved.exists():
            move(moved, state_dir)
        shutil.rmtree(copied, ignore_errors=True)
