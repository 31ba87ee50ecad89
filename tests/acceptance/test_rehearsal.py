"""The rehearsal: a message's whole way without a phone, in 60 columns, and nothing is left of it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.marked import Mark
from tests.support.terminal_qr import scan_lines

PROGRAM = Path(__file__).parents[2] / "scripts" / "rehearse_run.py"
COLUMNS = 60
INTERRUPTED_START = """
import signal, subprocess

class Popen(subprocess.Popen):
    def __init__(self, args, *rest, **more):
        if {command!r} in " ".join(map(str, args)):
            super().__init__(["sleep", "infinity"], *rest, **more)
            signal.raise_signal(signal.SIGINT)
        else:
            super().__init__(args, *rest, **more)

subprocess.Popen = Popen
"""
"""A `sitecustomize` of Python: an interrupt right after a command was started, which never ends by itself."""
PATIENCE = 240.0
"""Seconds after which the rehearsal is called hung."""


class Rehearsal:
    """Runs the rehearsal, with a folder for its files."""

    def __init__(self, folder: Path) -> None:
        self._mark = Mark()
        self._folder = folder

    def start(self, **environ: str) -> subprocess.Popen[str]:
        environ = {**self._mark.environ, "COLUMNS": str(COLUMNS), "TMPDIR": str(self._folder), **environ}
        return subprocess.Popen(
            [sys.executable, "-u", str(PROGRAM)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ,
        )  # fmt: skip

    def processes(self) -> list[str]:
        return self._mark.processes(self._folder)


@pytest.fixture
def rehearsal(state_dir: Path) -> Iterator[Rehearsal]:
    """Nothing is left of it: no process, and no file."""
    rehearsal = Rehearsal(state_dir)
    yield rehearsal
    assert (rehearsal.processes(), list(state_dir.iterdir())) == ([], [])


@pytest.mark.timeout(PATIENCE + 60)
def test_a_message_goes_all_the_way_and_its_answer_comes_back(rehearsal: Rehearsal) -> None:
    with rehearsal.start() as process:
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    lines = said.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    assert [command.split(" --")[0].split(" +")[0] for command in commands] == [
        "shardd start &",
        "shardd device add shop",
        "shardd device pair shop",
        "shardd send shop",
        "shardd job show 1 | grep -E '^(state|delivered|read) '",
        "shardd inbox list",
    ]
    # The code on the screen is one that a camera can read.
    assert len(scan_lines(lines)) == 1
    text = " ".join(said.replace("\n# ", " ").split())
    for words in (
        r"device shop is paired with \+6281100000001",
        r"job 1 state sent device shop recipient \+4915112345678 message id \w+",
        r"The phone of \+4915112345678 decrypts and shows: Your table is ready\.",
        r"state sent delivered 20\d\d-\d\d-\d\d .* read 20\d\d-\d\d-\d\d ",
        r"shop +\+?4915112345678 .*Thank you!",
    ):
        assert re.search(words, text), (words, said)


@pytest.mark.timeout(PATIENCE + 60)
def test_an_interrupt_ends_everything(rehearsal: Rehearsal) -> None:
    with rehearsal.start() as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("$ shardd device pair"):  # as it starts that
                break
        assert len(rehearsal.processes()) > 3
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said.splitlines()[-1]) == (130, "stopped")


@pytest.mark.parametrize("command", ["shardd device add shop", "shardd device pair shop"])
@pytest.mark.timeout(PATIENCE + 60)
def test_an_interrupt_at_the_very_start_of_a_process_ends_that_one_too(
    rehearsal: Rehearsal, tmp_path: Path, command: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED_START.format(command=command.removeprefix("shardd ")))
    with rehearsal.start(PYTHONPATH=str(tmp_path)) as process:
        said, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said.splitlines()[-1]) == (130, "stopped")
    assert [line for line in said.splitlines() if line.startswith("$ ")][-1].startswith(f"$ {command}")
