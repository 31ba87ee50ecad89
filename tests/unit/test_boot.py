"""Why a machine cannot boot another system: one line, and no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASK = "import sys; from pathlib import Path; from bootlib.machine import why_not; print(why_not(Path(sys.argv[1])))"


def why_not(root: Path, path: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", ASK, root],
        env={**os.environ, "PATH": path, "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}"},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return ran.stdout.removesuffix("\n")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("exit 0", "None"),
        ("echo first >&2; echo 'Failed to mount: Operation not permitted' >&2; exit 1",
         "systemd-nspawn: Failed to mount: Operation not permitted"),
        ("exit 3", "systemd-nspawn: it ended with code 3"),
        (None, "systemd-nspawn is not installed"),
    ],
)  # fmt: skip
def test_what_systemd_nspawn_says_last_is_the_reason(program: str | None, reason: str, tmp_path: Path) -> None:
    if program is not None:
        fake = tmp_path / "systemd-nspawn"
        fake.write_text(f"#!/bin/sh\n{program}\n")
        fake.chmod(0o755)
    assert why_not(tmp_path, str(tmp_path)) == reason


@pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="needs systemd-container")
def test_the_real_one_refuses_a_folder_that_has_no_system(tmp_path: Path) -> None:
    reason = why_not(tmp_path, os.environ["PATH"])
    assert reason.startswith("systemd-nspawn: ")
    assert "\n" not in reason


def test_a_user_who_cannot_install_gets_one_line_and_success_if_that_was_asked(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    for options, code in ((["--if-possible"], 0), ([], 1)):
        ran = subprocess.run(
            [tmp_path / "scripts" / "boot", *options],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ran.returncode == code
        assert ran.stderr == "boot: not run: it boots systems of its own, which needs root on Debian or Ubuntu\n"
