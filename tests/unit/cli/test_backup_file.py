"""The file of a backup while it is written: what is there already is never lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardd.cli.backup_file import ARCHIVE, new_file
from shardd.errors import UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shardd.dump"


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / ".shardd.dump.partial"


def test_what_a_killed_backup_left_is_written_over(file: Path, partial: Path) -> None:
    partial.touch(mode=0o600)
    partial.write_bytes(ARCHIVE + b" and more than the next one has")
    with new_file(file) as target:
        target.write(b"whole")
    assert file.read_bytes() == b"whole"
    assert not partial.exists()


@pytest.mark.parametrize(("content", "mode"), [(b"notes", 0o600), (ARCHIVE, 0o644)])
def test_what_no_backup_left_is_not_touched(file: Path, partial: Path, content: bytes, mode: int) -> None:
    partial.write_bytes(content)
    partial.chmod(mode)
    with pytest.raises(UsageError, match="was not left by a backup of yours"), new_file(file):
        pass
    assert (partial.read_bytes(), partial.stat().st_mode & 0o777, file.exists()) == (content, mode, False)


def test_a_file_system_need_not_keep_the_mode_of_a_new_file(file: Path) -> None:
    before = os.umask(0o200)  # one that gives every file the same mode cannot be mounted everywhere
    try:
        with new_file(file) as target:
            target.write(b"whole")
    finally:
        os.umask(before)
    assert file.read_bytes() == b"whole"


def test_no_link_is_followed_to_a_file_of_somebody_else(file: Path, partial: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch(mode=0o600)
    partial.symlink_to(other)
    with pytest.raises(UsageError, match="cannot be written"), new_file(file):
        pass
    partial.unlink()
    partial.hardlink_to(other)
    with pytest.raises(UsageError, match="was not left by a backup of yours"), new_file(file):
        pass
    assert other.read_bytes() == b""


def test_a_backup_to_the_same_file_at_the_same_time_is_refused(file: Path) -> None:
    with new_file(file) as target:
        target.write(ARCHIVE)
        target.flush()
        with pytest.raises(UsageError, match="another backup is being written there"), new_file(file):
            pass
    assert file.read_bytes() == ARCHIVE


def test_a_file_that_appears_meanwhile_is_not_replaced(file: Path, partial: Path) -> None:
    with pytest.raises(UsageError, match="is there already"), new_file(file):
        file.write_bytes(b"of somebody else")
    assert file.read_bytes() == b"of somebody else"
    assert not partial.exists()
