"""What befalls the state folder of a running shardd, or waits in it for the next one.

It is shown in the status, and nobody gets two messages.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Command
from tests.support.daemon import Daemon, Producer, wait_gone

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
QUICK = {"heartbeat_every": "100ms"}


@pytest.fixture
def node(make_daemon: Callable[..., Daemon], tmp_path: Path) -> Daemon:
    """Its config, log and control socket lie outside of its state folder."""
    home = tmp_path / "state"
    home.mkdir(0o700)
    daemon = make_daemon(tmp_path, control={"socket": str(tmp_path / "control.sock")}, supervisor=QUICK)
    daemon.settings["state_dir"] = str(home)
    return daemon


def has_problem(kind: str, *words: str) -> Callable[[dict[str, Any]], bool]:
    def true(status: dict[str, Any]) -> bool:
        texts = [text for text in status["problems"] if all(word in text for word in words)]
        return bool(texts) and status["problem_kinds"][kind] > 0 and not status["healthy"]

    return true


def healthy(status: dict[str, Any]) -> bool:
    return bool(status["healthy"])


async def held(node: Daemon, device: str) -> str:
    """What keeps a device from sending, as it is told to programs."""
    return str((await Command(node.config_file)("device", "show", device, "--json")).json["held"])


async def wait_without_a_message(daemon: Daemon, producer: Producer, count: int) -> None:
    """Over several looks of the router and of the watch, nothing more than `count` messages leaves."""
    for _ in range(15):
        await daemon.wait_change()
    assert len(daemon.messages()) == count
    # What cannot be handed over is not even claimed.
    assert producer.execute("SELECT DISTINCT state, attempt FROM shardd.outcomes WHERE state <> 'sent'") == [
        ("queued", 0)
    ]


async def test_a_state_folder_that_is_gone_stops_sending_until_it_is_back(node: Daemon, producer: Producer) -> None:
    producer.add_devices(4)
    producer.add_jobs(4, 4)
    await node.start()
    await producer.until_finished(node, 4)
    away = node.home.with_name("away")
    node.home.rename(away)
    await node.until(has_problem("state_folder", str(node.home), "was deleted or moved away", "put it back"))
    producer.add_jobs(8, 4)
    await node.until(lambda _: producer.states()["queued"] == 8)
    assert "was deleted or moved away while shardd runs" in await held(node, "d1")
    # Another folder in its place is none of ours either.
    node.home.mkdir(0o700)
    await node.until(has_problem("state_folder", "supervisor.lock was deleted or moved away"))
    node.home.rmdir()
    away.rename(node.home)
    await node.until(healthy)
    assert await producer.until_finished(node, 12) == {"sent": 12}
    assert Counter(message["job"] for message in node.messages()).most_common(1)[0][1] == 1
    assert await node.stop() == 0


async def test_a_state_folder_that_was_replaced_is_left_alone(node: Daemon, producer: Producer) -> None:
    producer.add_devices(2)
    await node.start()
    shutil.rmtree(node.home)
    node.home.mkdir(0o700)
    (node.home / "supervisor.lock").write_text("1")
    (node.home / "journal").mkdir(0o700)
    await node.until(has_problem("state_folder", "while shardd runs"))
    await node.until(has_problem("journal", "another state folder is in its place"))
    producer.add_jobs(4, 2)
    await node.until(lambda _: producer.states()["queued"] == 4)
    assert list((node.home / "journal").iterdir()) == []
    assert await node.stop() == 0
    assert producer.states() == {"queued": 4}


async def test_without_its_lock_a_state_folder_is_nobodys(node: Daemon, producer: Producer) -> None:
    """Another shardd could start on it."""
    producer.add_devices(4)
    await node.start()
    (node.home / "supervisor.lock").unlink()
    await node.until(has_problem("state_folder", "supervisor.lock was deleted or moved away"))
    producer.add_jobs(8, 4)
    await wait_without_a_message(node, producer, 0)
    assert await node.stop() == 0
    await node.start()
    assert await producer.until_finished(node, 8) == {"sent": 8}


async def test_a_journal_folder_that_was_deleted_is_shown_and_mended_by_making_it_again(
    node: Daemon, producer: Producer
) -> None:
    producer.add_devices(4)
    await node.start()
    folder = node.home / "journal"
    shutil.rmtree(folder)
    await node.until(
        has_problem(
            "journal", "the journals of shards 0, 1", f"{folder} was deleted or moved away: put it back, or make"
        )
    )
    producer.add_jobs(8, 4)
    await node.until(lambda _: producer.states()["queued"] == 8)
    assert (await held(node, "d1")).startswith("the journal of its shard: ")
    assert node.messages() == []
    folder.mkdir(0o700)
    await node.until(healthy)
    assert await producer.until_finished(node, 8) == {"sent": 8}
    assert sorted(path.name for path in folder.iterdir()) == ["shard-000.journal", "shard-001.journal"]
    assert await node.stop() == 0


async def test_a_folder_in_the_place_of_a_journal_is_named_and_a_restart_answers_why_it_cannot(
    node: Daemon, producer: Producer
) -> None:
    producer.add_devices(4)
    await node.start()
    journal = node.home / "journal" / "shard-000.journal"
    journal.unlink()
    journal.mkdir()
    await node.until(has_problem("journal", f"{journal} is a folder: move it away"))
    ran = await Command(node.config_file)("restart", 0)
    assert ran.code != 0
    assert f"shard 0 cannot start: {journal} is not a plain file: move it away" in ran.err
    await node.until(has_problem("shard", f"{journal} is not a plain file: move it away"))
    journal.rmdir()
    await node.until(healthy)
    producer.add_jobs(8, 4)
    assert await producer.until_finished(node, 8) == {"sent": 8}
    assert await node.stop() == 0


async def test_a_journal_that_was_deleted_is_written_anew_and_still_decides(node: Daemon, producer: Producer) -> None:
    """What hangs when its journal is deleted is in doubt after a crash, and what was never handed over goes out once."""
    node.write_config(transports={"sandbox": {"hang_rate": 1.0, "hang_for": "10m"}})
    producer.add_devices(4)
    producer.add_jobs(4, 4)
    await node.start()
    await node.until(lambda _: len(node.messages()) == 4)
    journals = sorted((node.home / "journal").iterdir())
    before = [path.stat().st_ino for path in journals]
    for path in journals:
        path.rename(path.with_suffix(".gone"))  # so that the new file has another inode
    await node.until(lambda _: all(path.exists() for path in journals))
    assert [path.stat().st_ino for path in journals] != before
    _kill_everything(node)
    await node.wait_end()
    node.write_config(transports={"sandbox": {"hang_rate": 0}})
    await node.start()
    assert await producer.until_finished(node, 4) == {"in_doubt": 4}
    assert len(node.messages()) == 4


# ---- a disk that is full


@pytest.fixture
def small_disk(node: Daemon) -> Iterator[Path]:
    """Where the journals of `node` will be: a disk of 2 MiB."""
    folder = node.home / "journal"
    folder.mkdir(0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


async def remount(folder: Path, how: str) -> None:
    process = await asyncio.create_subprocess_exec("mount", "-o", f"remount,{how}", folder)
    assert await process.wait() == 0


@as_root
async def test_a_full_disk_stops_sending_until_there_is_room(
    node: Daemon, small_disk: Path, producer: Producer
) -> None:
    producer.add_devices(10)
    producer.add_jobs(20, 10)
    await node.start()
    await producer.until_finished(node, 20)
    _fill(small_disk / "ballast")
    await node.until(has_problem("journal", "the journals of shards 0, 1", "its disk is full"))
    producer.add_jobs(40, 10)
    await node.until(lambda _: producer.states()["queued"] == 40)
    await wait_without_a_message(node, producer, 20)
    # Not even a crash makes it forget, nor does a start on a full disk fail.
    _kill_everything(node)
    await node.wait_end()
    await node.start()
    await node.until(has_problem("journal", "its disk is full"))
    await wait_without_a_message(node, producer, 20)
    (small_disk / "ballast").unlink()
    await node.until(healthy)
    assert await producer.until_finished(node, 60) == {"sent": 60}
    assert Counter(message["job"] for message in node.messages()).most_common(1)[0][1] == 1
    assert await node.stop() == 0


@as_root
async def test_a_start_on_a_journal_folder_that_is_read_only_waits_for_it(
    node: Daemon, small_disk: Path, producer: Producer
) -> None:
    producer.add_devices(4)
    producer.add_jobs(4, 4)
    await node.start()
    await producer.until_finished(node, 4)
    workers = node.worker_pids()
    _kill_everything(node)
    await node.wait_end()
    for pid in workers:
        await wait_gone(pid)  # until then their journals are open, and the disk is busy
    await remount(small_disk, "ro")
    producer.add_jobs(4, 4)
    await node.start()
    await node.until(
        has_problem("journal", "an earlier run of shard 0 left cannot be settled", "Read-only file system")
    )
    await remount(small_disk, "rw")
    await node.until(healthy)
    assert await producer.until_finished(node, 8) == {"sent": 8}
    assert await node.stop() == 0


# ---- what waits in the folder at a start


async def test_a_journal_that_is_a_link_blocks_its_shard_only_and_what_it_points_to_stays(
    node: Daemon, producer: Producer, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    node.write_config(transports={"sandbox": {"hang_rate": 1.0, "hang_for": "10m"}})
    producer.add_devices(8)
    producer.add_jobs(8, 8)
    await node.start()
    await node.until(lambda _: len(node.messages()) == 8)
    _kill_everything(node)
    await node.wait_end()
    journal = node.home / "journal" / "shard-000.journal"
    aside = journal.with_suffix(".aside")
    journal.rename(aside)
    journal.symlink_to(victim)
    node.write_config(transports={"sandbox": {"hang_rate": 0}})
    await node.start()
    status = await node.until(
        has_problem("journal", "an earlier run of shard 0 left cannot be settled", f"{journal} is a symbolic link")
    )
    assert [(shard["state"], shard["restarts"]) for shard in status["shards"]] == [("waiting", 0), ("running", 0)]
    claims = dict(producer.execute("SELECT state, count(*) FROM shardd.outcomes GROUP BY state"))
    assert set(claims) == {"sending", "in_doubt"}
    assert victim.read_text() == "precious"
    journal.unlink()
    aside.rename(journal)
    await node.until(lambda status: healthy(status) and all(s["state"] == "running" for s in status["shards"]))
    assert await producer.until_finished(node, 8) == {"in_doubt": 8}
    assert await node.stop() == 0
    assert len(node.messages()) == 8


def no_utf8(journal: Path, tmp_path: Path) -> None:
    """One byte in a string of its header, in place."""
    with journal.open("r+b") as file:
        file.seek(journal.read_bytes().index(b'"boot":"') + 8)
        file.write(b"\xff")


def earlier_version(journal: Path, tmp_path: Path) -> None:
    journal.write_bytes(b'{"boot":"x","pid":1,"shard":0,"fsync":true}\n{"s":[1,1,1]}\n')


def old_copy(journal: Path, tmp_path: Path) -> None:
    """As a backup of the state folder puts it back."""
    shutil.copy(journal, tmp_path / "backup")
    journal.unlink()
    shutil.copy(tmp_path / "backup", journal)
    journal.chmod(0o600)


def other_folder(journal: Path, tmp_path: Path) -> None:
    (journal.parent.parent / "state.id").unlink()


def gone(journal: Path, tmp_path: Path) -> None:
    journal.unlink()


@pytest.mark.parametrize(
    ("befall", "flaw"),
    [
        (no_utf8, "its header cannot be read"),
        (earlier_version, "it was written by an earlier version of shardd, without checksums"),
        (old_copy, "it is a copy, which may be older than what it was copied from"),
        (other_folder, "it is of another state folder"),
        (gone, "there is no journal"),
    ],
)
async def test_a_journal_that_proves_nothing_leaves_doubts_with_the_reason_and_stops_nobody(
    node: Daemon, producer: Producer, tmp_path: Path, befall: Callable[[Path, Path], None], flaw: str
) -> None:
    # What is never handed over, as far as a whole journal could tell: the sandbox is connecting.
    node.write_config(shards=1, transports={"sandbox": {"connect_for": "10m"}})
    producer.add_devices(4)
    producer.add_jobs(4, 4)
    await node.start()
    await node.until(lambda status: status["totals"]["in_flight"] == 4)
    _kill_everything(node)
    await node.wait_end()
    befall(node.home / "journal" / "shard-000.journal", tmp_path)
    node.write_config(transports={"sandbox": {"connect_for": 0}})
    await node.start()
    assert await producer.until_finished(node, 4) == {"in_doubt": 4}
    status = await node.until(healthy)
    note = f"4 jobs are in doubt, because the journal of shard 0 cannot prove whether they were handed over: {flaw}"
    assert note in status["notes"]
    assert flaw in node.log_file.read_text()
    assert "Traceback" not in node.log_file.read_text()
    producer.add_jobs(4, 4)
    assert await producer.until_finished(node, 8) == {"in_doubt": 4, "sent": 4}
    assert await node.stop() == 0


@pytest.mark.parametrize("where", ["supervisor.lock", "state.id", "beat"])
async def test_a_link_in_the_place_of_what_every_start_needs_refuses_it_in_one_line(
    node: Daemon, tmp_path: Path, where: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (node.home / where).symlink_to(victim)
    await node.start(wait=False)
    assert await node.wait_end() == 78
    assert f"{node.home / where} is a symbolic link, and shardd follows none here: remove it" in node.log_tail()
    assert "Traceback" not in node.log_file.read_text()
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("where", ["stderr/shard-000.txt", "sandbox/shard-000.jsonl"])
async def test_other_files_are_not_opened_through_a_link(
    node: Daemon, producer: Producer, tmp_path: Path, where: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    place = node.home / where
    place.parent.mkdir(0o700, exist_ok=True)
    place.symlink_to(victim)
    producer.add_devices(8)
    await node.start()
    if where != "sandbox/shard-000.jsonl":
        await node.until(lambda status: any(f"{place} is a symbolic link" in text for text in status["problems"]))
    else:
        await node.until(lambda _: f"{place} is a symbolic link" in node.log_file.read_text())
    assert victim.read_text() == "precious"
    place.unlink()
    assert await node.stop() == 0


@as_root
async def test_a_folder_of_another_account_refuses_the_start_of_root(node: Daemon) -> None:
    os.chown(node.home, 65534, 65534)
    await node.start(wait=False)
    assert await node.wait_end() == 78
    assert "belongs to nobody, and shardd runs as root: run shardd as nobody" in node.log_tail()


@as_root
async def test_without_a_boot_id_a_crash_leaves_doubts_and_no_second_message(node: Daemon, producer: Producer) -> None:
    hidden = 'mount -t proc -o subset=pid proc /proc && exec "$@"'
    node.inside = ("unshare", "--mount", "sh", "-c", hidden, "sh")
    producer.add_devices(10)
    producer.add_jobs(10, 10)
    await node.start()
    assert await producer.until_finished(node, 10) == {"sent": 10}
    status = await node.until(healthy)
    assert any("boot_id cannot be read" in note for note in status["notes"])
    node.kill(signal.SIGKILL)
    await node.wait_end()
    await node.start()
    producer.add_jobs(10, 10)
    assert await producer.until_finished(node, 20) == {"sent": 20}
    assert await node.stop() == 0
    assert "Traceback" not in node.log_file.read_text()


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (64 * 1024, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def _kill_everything(daemon: Daemon) -> None:
    """As when the machine ends all at once: no worker finishes what it has begun."""
    workers = daemon.worker_pids()
    daemon.kill(signal.SIGSTOP)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    daemon.kill(signal.SIGKILL)
