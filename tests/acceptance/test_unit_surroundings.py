"""shardd within the restrictions of the shipped systemd unit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Producer

UNIT = Path(__file__).parents[2] / "systemd" / "shardd.service"

# What systemd mounts on /proc for each value (systemd.exec(5)).
PROTECT_PROC = {"invisible": "hidepid=invisible", "noaccess": "hidepid=noaccess", "default": ""}
PROC_SUBSET = {"pid": "subset=pid", "all": ""}


def _proc_options(unit: str) -> str:
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    chosen = (PROTECT_PROC[settings["ProtectProc"]], PROC_SUBSET[settings["ProcSubset"]])
    return ",".join(option for option in chosen if option) or "rw"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a /proc of its own")
async def test_runs_crashes_and_recovers_with_the_proc_of_its_unit(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    options = _proc_options(UNIT.read_text(encoding="utf-8"))
    daemon.inside = ("unshare", "--mount", "sh", "-c", f'mount -t proc -o {options} proc /proc && exec "$@"', "sh")
    await daemon.start()
    producer.add_devices(10)
    producer.add_jobs(100, devices=10)
    assert await producer.until_finished(daemon, 100) == {"sent": 100}

    (worker, *_) = daemon.worker_pids()
    os.kill(worker, signal.SIGKILL)
    await daemon.until(lambda status: sum(shard["restarts"] for shard in status["shards"]) == 1 and status["healthy"])

    # The journals of this run are read by the next one.
    daemon.kill()
    await daemon.wait_end()
    await daemon.start()
    producer.add_jobs(100, devices=10)
    assert await producer.until_finished(daemon, 200) == {"sent": 200}
    assert await daemon.stop() == 0
