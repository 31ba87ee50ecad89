"""The demonstration with few jobs: it shows what it promises, and leaves no process behind however it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.marked import Mark

PROGRAM = Path(__file__).parents[2] / "scripts" / "demo_run.py"
PATIENCE = 100.0
"""Seconds after which the demonstration is called hung."""


class Demo:
    """Runs the demonstration on a state folder, and finds the processes that come of it."""

    def __init__(self, folder: Path, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._mark = Mark()
        self._config = folder / "demo.yaml"
        self._config.write_text(
            f"node: demo\nstate_dir: {state_dir}\nshards: 2\n"
            "pacing: {gap_min: 0, gap_max: 0, hourly_limit: 0, daily_limit: 0}\n"
            "supervisor: {spawn_every: 10ms}\ntransports: {sandbox: {latency_min: 1ms, latency_max: 5ms}}\n"
            "log: {level: warning}\n"
        )

    def start(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-u", str(PROGRAM), f"--config={self._config}", *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self._mark.environ,
        )  # fmt: skip

    def processes(self) -> list[str]:
        """Command lines of everything that lives of this demonstration, its PostgreSQL too."""
        return self._mark.processes(self.state_dir)


def read_until(demo: subprocess.Popen[str], word: str) -> None:
    assert demo.stdout is not None
    seen = []
    for line in demo.stdout:
        seen.append(line)
        if word in line:
            return
    pytest.fail(f"ended without saying {word!r}: {''.join(seen)}")


@pytest.fixture
def demo(tmp_path: Path, state_dir: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path, state_dir)
    yield demo
    assert demo.processes() == []


@pytest.mark.timeout(3 * PATIENCE)
def test_every_run_begins_anew_and_sends_every_job_once(demo: Demo, tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    for jobs in (60, 90):
        with demo.start("--devices=30", f"--jobs={jobs}", "--seconds=0.1", f"--svg={picture}") as process:
            said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        assert f"{jobs} jobs: {jobs} sent" in said
        assert f"messages that reached the sandbox: {jobs}, twice: 0" in said
        assert "every job was sent exactly once" in said
        assert demo.processes() == []
        drawn = picture.read_text()
        assert f"of&#160;{jobs}" in drawn
        assert not re.search(r"href=|src=|url\((?!#)|@import", drawn), "it loads something from elsewhere"


@pytest.mark.timeout(2 * PATIENCE)
def test_an_interrupt_stops_everything(demo: Demo) -> None:
    with demo.start("--devices=30", "--jobs=100000", "--seconds=500") as process:
        read_until(process, " s  inserted")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said.endswith("stopped\n")


@pytest.mark.timeout(2 * PATIENCE)
def test_a_killed_demonstration_takes_everything_along(demo: Demo) -> None:
    with demo.start("--devices=30", "--jobs=100000", "--seconds=500") as process:
        read_until(process, " s  inserted")
        assert len(demo.processes()) > 3
        process.kill()
    deadline = time.monotonic() + PATIENCE
    while demo.processes() and time.monotonic() < deadline:
        time.sleep(0.1)


def test_a_folder_of_somebody_else_is_left_alone(demo: Demo) -> None:
    precious = demo.state_dir / "precious"
    precious.touch()
    with demo.start() as process:
        said, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, precious.exists()) == (1, True)
    assert said.startswith(f"demo: {demo.state_dir} was not created by the demonstration")
