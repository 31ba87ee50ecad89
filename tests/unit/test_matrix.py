"""Which tests `./scripts/boot --tests` runs, and how it reports them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))  # as scripts/boot sets PYTHONPATH

from bootlib.matrix import Cell, Result, choose, needed, table  # noqa: E402
from bootlib.outputs import Kept, why_red  # noqa: E402


@pytest.mark.parametrize(
    ("choices", "names"),
    [
        (["trixie:user:wheel"], ["trixie:user:wheel"]),
        (["wheel:root"], ["bookworm:root:wheel", "trixie:root:wheel"]),
        (["bookworm:root:user:system"], ["bookworm:root:system", "bookworm:user:system"]),
        (["trixie:user:wheel", "trixie:system"], ["trixie:root:system", "trixie:user:wheel", "trixie:user:system"]),
    ],
)
def test_a_word_restricts_its_kind(choices: list[str], names: list[str]) -> None:
    assert [cell.name for cell in choose(choices)] == names


def test_without_a_choice_it_is_the_whole_matrix() -> None:
    assert len({cell.name for cell in choose([])}) == 8


def test_an_unknown_word_is_refused_with_those_there_are() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bootlib", "--tests", "trixie:nobody"],
        env={"PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "--tests: 'nobody' is none of bookworm, trixie, root, user, wheel, system" in ran.stderr


def test_a_contributor_needs_what_scripts_test_lists() -> None:
    assert {"libmagic1", "pgbouncer", "mariadb-server-core"} <= set(needed(ROOT))
    assert not {"systemd", "git"} & set(needed(ROOT))


def test_the_table_has_one_line_for_each_cell() -> None:
    red = Result(Cell("trixie", "user", "wheel"), "3.13.5", "18", 4, 3, 3, 61.4, "test: FAILED: pytest")
    green = Result(Cell("bookworm", "root", "system"), "3.11.2", "15", 4000, 0, 10, 1800.0, None)
    assert table([red, green]).splitlines() == [
        "Debian    Python  PostgreSQL  user  passed  failed  skipped  seconds  result",
        "trixie    3.13.5  18 wheel    user       4       3        3       61  test: FAILED: pytest",
        "bookworm  3.11.2  15 system   root    4000       0       10     1800  ok",
    ]


def test_what_a_cell_printed_is_kept_in_place_of_what_an_earlier_run_left(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "kept"
    home.mkdir()
    (home / "tests.log").write_text("header\nPostgreSQL: 18 in /somewhere\n")
    (home / "tests.xml").write_text(
        '<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/><testsuite tests="1"/></testsuites>'
    )
    kept = Kept(folder, "trixie:user:wheel")
    kept.keep(home)
    assert kept.log == folder / "trixie-user-wheel.tests.log"
    assert (kept.count(), kept.postgres()) == ((4, 3, 3), "18")

    again = Kept(folder, "trixie:user:wheel")
    assert (again.printed(), again.count(), again.postgres()) == ("", (0, 0, 0), "")


RUFF = ["== ruff check ", "F401 unused import", "Found 1 error."]
MYPY = ["== mypy ", "Success: no issues found"]
PYTEST = ["== pytest -n 2", "=== test session starts ===", "........F..s", "=== FAILURES ===", "long trace"]
SUMMARY = ["=== short test summary info ===", "FAILED tests/a.py::test_one", "=== 1 failed ==="]
SKIPPED = ["SKIPPED [1] tests/b.py:3: needs root"]


def test_why_red_shows_each_check_that_failed_and_the_tests_by_name() -> None:
    last = ["test: FAILED: ruff check; pytest -n"]
    printed = [*RUFF, *MYPY, *PYTEST, SUMMARY[0], *SKIPPED, *SUMMARY[1:], *last]
    assert why_red("\n".join(printed)).splitlines() == [*RUFF, *SUMMARY, *last]


def test_why_red_shows_the_last_lines_of_a_run_without_a_verdict() -> None:
    printed = [*MYPY, *PYTEST, *(f"line {number}" for number in range(100)), "the kernel killed it"]
    assert why_red("\n".join(printed)).splitlines()[-2:] == ["line 99", "the kernel killed it"]
    assert len(why_red("\n".join(printed)).splitlines()) == 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_mmdebstrap_leaves_no_process_and_no_folder(number: signal.Signals, tmp_path: Path) -> None:
    """The stand-in has a child, as mmdebstrap has its apt-get."""
    programs, cache = tmp_path / "bin", tmp_path / "cache"
    programs.mkdir()
    pipe = tmp_path / "alive"
    os.mkfifo(pipe)
    (programs / "mmdebstrap").write_text(
        f"#!/bin/sh\nmktemp -d > {tmp_path}/made\n(echo started; exec sleep 300) > {pipe} &\nwait\n"
    )
    (programs / "mmdebstrap").chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-m", "bootlib", "--tests", "trixie:user:wheel"],
        env={
            "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}", "PATH": f"{programs}:/usr/bin:/bin", "XDG_CACHE_HOME": str(cache)
        },
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as boot, pipe.open() as alive:  # fmt: skip
        assert alive.readline() == "started\n"
        boot.send_signal(number)
        _, errors = boot.communicate(timeout=60)
        assert alive.read() == "", "the end of the pipe: the child has ended"
    assert boot.returncode == 128 + number
    assert errors == f"boot: {number.name}: removing what was started\n"
    assert not Path((tmp_path / "made").read_text().strip()).exists()
    assert [path.name for path in (cache / "shardd/boot").iterdir()] == ["tests"]
