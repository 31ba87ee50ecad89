"""Which tests `./scripts/boot --tests` runs, and how it reports them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))  # as scripts/boot sets PYTHONPATH

from bootlib.matrix import Cell, Result, choose, count, needed, table  # noqa: E402


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


def test_the_table_has_one_line_for_each_cell(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    assert count(report) == (0, 0, 0)
    report.write_text(
        '<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/><testsuite tests="1"/></testsuites>'
    )
    red = Result(Cell("trixie", "user", "wheel"), "3.13.5", "18", *count(report), 61.4, "test: FAILED: pytest")
    green = Result(Cell("bookworm", "root", "system"), "3.11.2", "15", 4000, 0, 10, 1800.0, None)
    assert table([red, green]).splitlines() == [
        "Debian    Python  PostgreSQL  user  passed  failed  skipped  seconds",
        "trixie    3.13.5  18 wheel    user       4       3        3       61  test: FAILED: pytest",
        "bookworm  3.11.2  15 system   root    4000       0       10     1800  ok",
    ]
