"""The demonstration with few jobs: it shows what it promises, and leaves no process behind however it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.guide import pictures
from tests.support.marked import Mark
from tests.support.visitor import visitor_of

SCRIPTS = Path(__file__).parents[2] / "scripts"
LINK = re.compile(r"^(http://127\.0\.0\.1:[0-9]+)(/sign-in/[A-Za-z0-9_-]{43})$", re.MULTILINE)
"""Unbroken, and with nothing else on its line."""
PATIENCE = 100.0
"""Seconds after which the demonstration is called hung."""


class Demo:
    """Runs the demonstration on a state folder, and finds the processes that come of it."""

    def __init__(self, folder: Path, state_dir: Path, port: int) -> None:
        self.state_dir = state_dir
        self._mark = Mark()
        self._config = folder / "demo.yaml"
        self._config.write_text(
            f"node: demo\nstate_dir: {state_dir}\nshards: 2\n"
            "pacing: {gap_min: 0, gap_max: 0, hourly_limit: 0, daily_limit: 0}\n"
            "supervisor: {spawn_every: 10ms}\ntransports: {sandbox: {latency_min: 1ms, latency_max: 5ms}}\n"
            f"dashboard: {{listen: '127.0.0.1:${{SHARDD_DEMO_PORT:-{port}}}'}}\nlog: {{level: warning}}\n"
        )

    @contextmanager
    def start(self, *options: str, program: str = "demo_run.py") -> Iterator[subprocess.Popen[str]]:
        """On a narrow screen. The block ends when it has ended, for which it is asked if the block fails."""
        with subprocess.Popen(
            [sys.executable, "-u", str(SCRIPTS / program), f"--config={self._config}", *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**self._mark.environ, "COLUMNS": "60"},
        ) as process:  # fmt: skip
            try:
                yield process
            except BaseException:
                process.terminate()
                raise

    def processes(self) -> list[str]:
        """Command lines of everything that lives of this demonstration, its PostgreSQL too."""
        return self._mark.processes(self.state_dir)


def read_until(demo: subprocess.Popen[str], pattern: str | re.Pattern[str]) -> str:
    """What it says, to the end of the line in which this is found."""
    assert demo.stdout is not None
    seen = ""
    for line in demo.stdout:
        seen += line
        if re.search(pattern, line):
            return seen
    pytest.fail(f"ended without saying {pattern!r}: {seen}")


async def leads_to_its_devices(said: str) -> None:
    """The link that was said opens the dashboard of this demonstration."""
    link = LINK.search(said)
    assert link is not None, said
    async with visitor_of(link[1]) as visitor:
        await visitor.open_link(link[2])
        for page, shown in (("devices", "demo-0029"), ("devices?state=paused", "paused-01"), ("campaigns", "spring")):
            assert shown in await (await visitor.get(f"/{page}")).text()


@pytest.fixture
def demo(tmp_path: Path, state_dir: Path) -> Iterator[Demo]:
    """The port of its config is in use."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        demo = Demo(tmp_path, state_dir, taken.getsockname()[1])
        yield demo
        assert demo.processes() == []


@pytest.mark.timeout(2 * PATIENCE)
def test_every_run_begins_anew_sends_every_job_once_and_can_be_drawn(demo: Demo, tmp_path: Path) -> None:
    """`./scripts/draw` runs it twice."""
    folder = tmp_path / "pictures"
    options = [f"--folder={folder}", "--devices=30", "--jobs=60", "--seconds=0.1", "--gap=0s..0s"]
    with demo.start(*options, program="draw_run.py") as process:
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    for words in (
        "60 jobs: 60 sent",
        "messages that reached the sandbox: 60, twice: 0",
        "every job was sent exactly once",
    ):
        assert said.count(f"{words}\n") == 2, said
    assert {file.name for file in folder.iterdir()} == {file.name for file in pictures()}
    drawn = (folder / "terminal.svg").read_text()
    assert "of&#160;60" in drawn
    assert not re.search(r"href=|src=|url\((?!#)|@import", drawn), "it loads something from elsewhere"


@pytest.mark.timeout(2 * PATIENCE)
async def test_it_stays_if_asked_and_its_link_opens_the_dashboard_then(demo: Demo) -> None:
    with demo.start("--devices=30", "--jobs=60", "--seconds=0.1", "--stay") as process:
        said = read_until(process, "every job was sent exactly once")
        await leads_to_its_devices(read_until(process, LINK))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said


@pytest.mark.timeout(2 * PATIENCE)
async def test_its_link_opens_the_dashboard_and_an_interrupt_stops_everything(demo: Demo) -> None:
    with demo.start("--devices=30", "--jobs=100000", "--seconds=500") as process:
        await leads_to_its_devices(read_until(process, " s  inserted"))
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
