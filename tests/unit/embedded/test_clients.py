"""Which client program of PostgreSQL is run, where a machine has several, or only Debian's wrapper."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardd.embedded import binaries
from shardd.embedded.binaries import BIN_VARIABLE, find_client, find_newest_client
from shardd.errors import DatabaseError


def put_program(folder: Path, major: int | None) -> Path:
    """A pg_restore of this version; None: as Debian's wrapper is without a program behind it."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "pg_restore"
    says = (
        f"echo 'pg_restore (PostgreSQL) {major}.1'" if major else "echo 'Error: install postgresql-client' >&2; exit 1"
    )
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """15 and 17 are packaged, and the wheel has 18; on PATH is Debian's wrapper."""
    monkeypatch.delenv(BIN_VARIABLE, raising=False)
    wrapper = put_program(tmp_path / "path", None)
    wrapper.rename(wrapper.with_name("pg_wrapper"))
    wrapper.symlink_to("pg_wrapper")
    monkeypatch.setenv("PATH", str(wrapper.parent))
    for place in (15, 17, 18):
        put_program(tmp_path / str(place), place)
    monkeypatch.setattr(binaries, "_packaged", lambda: iter([tmp_path / "17", tmp_path / "15"]))
    monkeypatch.setattr(binaries, "_in_wheel", lambda: iter([tmp_path / "18"]))
    return tmp_path


@pytest.mark.parametrize(("server", "chosen"), [(14, 15), (15, 15), (16, 17), (17, 17), (18, 18)])
def test_the_same_version_or_the_next_newer_one(machine: Path, server: int, chosen: int) -> None:
    assert find_client("pg_restore", server) == machine / str(chosen) / "pg_restore"


def test_an_older_one_does_not_do(machine: Path) -> None:
    with pytest.raises(DatabaseError, match="there is no pg_restore of PostgreSQL 19 on this machine"):
        find_client("pg_restore", 19)


def test_archives_are_read_with_the_newest(machine: Path) -> None:
    assert find_newest_client("pg_restore") == machine / "18" / "pg_restore"


def test_a_folder_that_is_named_goes_before_all_others_if_it_fits(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = put_program(machine / "named", 16)
    monkeypatch.setenv(BIN_VARIABLE, str(named.parent))
    assert find_client("pg_restore", 15) == find_newest_client("pg_restore") == named
    assert find_client("pg_restore", 17) == machine / "17" / "pg_restore"
    named.unlink()  # such as a folder with the programs of a server only
    assert find_client("pg_restore", 15) == machine / "15" / "pg_restore"
    assert find_newest_client("pg_restore") == machine / "18" / "pg_restore"


def test_debians_wrapper_without_a_program_behind_it_is_none(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_packaged", lambda: iter(()))
    monkeypatch.setattr(binaries, "_in_wheel", lambda: iter(()))
    assert find_newest_client("pg_restore") is None
