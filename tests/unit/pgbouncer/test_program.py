"""Finding the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardd.pgbouncer import NotInstalledError, PgBouncerError, find_program


def make_program(folder: Path, prints: str, code: int = 0) -> str:
    program = folder / "pgbouncer"
    program.write_text(f"#!/bin/sh\necho '{prints}'\nexit {code}\n")
    program.chmod(0o755)
    return str(program)


def test_it_tells_its_version(tmp_path: Path) -> None:
    assert find_program(make_program(tmp_path, "PgBouncer 1.24.1")).version == "1.24.1"


def test_one_that_is_not_there_is_called_not_installed(tmp_path: Path) -> None:
    with pytest.raises(NotInstalledError, match="apt-get install pgbouncer"):
        find_program(str(tmp_path / "pgbouncer"))


@pytest.mark.parametrize(
    ("prints", "code", "error"),
    [
        ("PgBouncer 1.17.0", 0, "older than 1.18: install a newer one"),
        ("PgBouncer 0.99", 0, "older than 1.18"),
        ("psql 15", 0, "is not a PgBouncer"),
        ("PgBouncer 1.18.0", 1, "is not a PgBouncer"),
    ],
)
def test_another_program_is_refused(tmp_path: Path, prints: str, code: int, error: str) -> None:
    with pytest.raises(PgBouncerError, match=error):
        find_program(make_program(tmp_path, prints, code))


def test_one_that_may_not_be_run_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(PgBouncerError, match="cannot be run: Permission denied"):
        find_program(str(tmp_path))
