"""The scripts of the clone: asking for help does nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["-k", "router", "--help"]])
@pytest.mark.parametrize("script", ["bench", "boot", "build", "demo", "draw", "lock", "storm", "test"])
def test_a_script_that_is_asked_for_help_installs_and_runs_nothing(
    script: str, arguments: list[str], tmp_path: Path
) -> None:
    # In a copy without a virtual environment, and with no Python to make one: whatever it began would end in an error.
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    ran = subprocess.run(
        [tmp_path / "scripts" / script, *arguments],
        env={"PATH": "/usr/bin:/bin", "PYTHON": "/bin/false"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"./scripts/{script}" in ran.stdout
    assert "set -euo" not in ran.stdout
    assert sorted(one.name for one in tmp_path.iterdir()) == ["scripts"]


@pytest.mark.parametrize("script", ["demo", "draw"])
def test_the_help_of_a_script_names_every_option_of_its_program(script: str) -> None:
    options = re.findall(r'add_argument\(\s*"(--\w+)"', (ROOT / "scripts" / f"{script}_run.py").read_text())
    ran = subprocess.run([ROOT / "scripts" / script, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert sorted(set(re.findall(r"--\w+", ran.stdout)) - {"--help"}) == sorted(options)


def test_programs_that_cannot_be_taken_from_debian_are_named(tmp_path: Path) -> None:
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    ran = subprocess.run(
        ["/bin/bash", "-euc", f". {ROOT}/scripts/lib/setup.sh; take_programs prometheus no-such-program; echo went on"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "these programs are needed on the PATH: no-such-program" in ran.stderr
    assert "in the package prometheus" in ran.stderr
