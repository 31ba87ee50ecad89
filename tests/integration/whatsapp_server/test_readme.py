"""The server's README describes its use in another project: its example runs with a copy of the folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.whatsapp_server import launch

PACKAGE = Path(launch.__file__).parent
README = (PACKAGE / "README.md").read_text()


def test_the_example_runs_with_a_copy_under_another_name(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "whatsapp_server", ignore=shutil.ignore_patterns("__pycache__"))
    program, output = re.findall(r"```(?:python)?\n(.*?)```", README, re.DOTALL)[1:3]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (run.stdout, run.returncode) == (output, 0), run.stderr


def test_what_the_readme_names_exists() -> None:
    rows = [line for line in README.splitlines() if line.startswith("|")]
    assert rows
    commands = re.findall(r"`(?:seed\.)?(\w+)[(`]", "\n".join(rows))
    sources = "".join((PACKAGE / name).read_text() for name in ("control_client.py", "seed.py"))
    assert [command for command in commands if f"def {command}(" not in sources] == []
