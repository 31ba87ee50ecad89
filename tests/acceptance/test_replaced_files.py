"""An upgrade replaces the files of shardd under a running supervisor, which starts workers from them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import shardd
from shardd.supervisor.workers.installed import REPLACED
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer


async def test_a_worker_that_dies_in_the_middle_of_an_upgrade_is_a_problem_that_says_so(
    make_daemon: Callable[..., Daemon], producer: Producer, tmp_path: Path
) -> None:
    package, module = tmp_path / "shardd", Path("worker") / "worker.py"
    shutil.copytree(Path(shardd.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    daemon = make_daemon(shards=1, supervisor={"breaker": {"crashes": 2}})
    # Both for the supervisor, which begins in this folder, and for its workers, which do not look there.
    daemon.inside = ("env", f"--chdir={tmp_path}")
    daemon.environ["PYTHONPATH"] = str(tmp_path)
    producer.add_devices(1)
    await daemon.start()
    content = (package / module).read_bytes()
    # Half of the new files are there: this one was written anew, that one is still missing.
    shutil.copyfile(package / "ipc.py", package / "ipc.py.new")
    (package / "ipc.py.new").rename(package / "ipc.py")
    (package / module).unlink()
    (worker,) = daemon.worker_pids()
    os.kill(worker, signal.SIGKILL)
    status = await daemon.until(lambda s: s["shards"][0]["state"] == "broken")
    (problem,) = status["problems"]
    assert "No module named 'shardd.worker.worker'" in problem
    assert REPLACED in problem

    # Once all files are there, its next worker runs, even before the restart.
    (package / module).write_bytes(content)
    ran = await Command(daemon.config_file)("restart", "0")
    assert ran.code == 0, ran.err
    producer.add_jobs(1, 1)
    await producer.until_finished(daemon, 1)
    assert producer.states() == {"sent": 1}
    assert await daemon.stop() == 0
