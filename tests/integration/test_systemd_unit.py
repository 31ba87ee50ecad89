from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from shardd.config import SupervisorConfig
from shardd.errors import ConfigError, UsageError

UNIT = Path(__file__).parents[2] / "systemd" / "shardd.service"
SYSUSERS = UNIT.with_name("shardd.sysusers.conf")
PROGRAM = "/opt/shardd/bin/shardd"
LARGEST_EXPOSURE = 2.0


def _systemd(tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which(tool) is None:
        pytest.fail(f"{tool} is missing: install the Debian package `systemd` (nothing needs to run as PID 1)")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=60, check=False)


def _directives() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def _seconds(value: str) -> float:
    match = re.fullmatch(r"(\d+)(s|min)", value)
    assert match, f"a time without a unit, or in another one: {value}"
    return int(match[1]) * {"s": 1, "min": 60}[match[2]]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the unit whose program exists: `verify` looks for it, and it is not in /opt on this machine."""
    program = tmp_path / "shardd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text(encoding="utf-8")
    assert f"ExecStart={PROGRAM} start --config=/etc/shardd/shards.yaml\n" in text
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(PROGRAM, str(program)))
    return copy


def test_systemd_finds_nothing_wrong_with_the_unit(installed: Path) -> None:
    done = _systemd("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", installed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("Type=notify", "Typ=notify"), ("OOMPolicy=continue", "OOMPolicy=go-on"), ("ExecStart=/", "ExecStart=/missing/")],
)
def test_systemd_would_find_a_mistake(installed: Path, right: str, wrong: str) -> None:
    text = installed.read_text()
    assert right in text
    installed.write_text(text.replace(right, wrong))
    done = _systemd("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", installed)
    assert done.stderr


def test_the_service_is_hardened() -> None:
    threshold = f"--threshold={LARGEST_EXPOSURE * 10:.0f}"  # systemd counts in tenths
    done = _systemd("systemd-analyze", "security", "--no-pager", "--offline=true", threshold, UNIT)
    found = re.search(r"Overall exposure level for shardd\.service: (\d+\.\d)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= LARGEST_EXPOSURE, done.stdout
    assert done.returncode == 0


def test_the_service_s_user_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    done = _systemd("systemd-sysusers", f"--root={tmp_path}", SYSUSERS)
    assert done.returncode == 0, done.stderr
    users = [line.split(":") for line in (tmp_path / "etc" / "passwd").read_text().splitlines()]
    (user,) = [entry for entry in users if entry[0] == "shardd"]
    unit = _directives()
    assert unit["User"] == unit["Group"] == ["shardd"]
    assert user[5] == f"/var/lib/{unit['StateDirectory'][0]}"


def test_errors_that_stay_errors_are_not_tried_again() -> None:
    (codes,) = _directives()["RestartPreventExitStatus"]
    assert sorted(map(int, codes.split())) == sorted([UsageError.exit_code, ConfigError.exit_code])


def test_the_unit_runs_only_programs_that_are_on_every_system() -> None:
    commands = [value for key, values in _directives().items() if key.startswith("Exec") for value in values]
    assert {command.split()[0] for command in commands} == {PROGRAM, "/bin/sh"}


def test_a_stop_has_time_to_drain() -> None:
    grace = 30  # for workers that must be killed, and for the embedded PostgreSQL's last checkpoint
    (timeout,) = _directives()["TimeoutStopSec"]
    assert _seconds(timeout) >= SupervisorConfig().drain_timeout + grace
