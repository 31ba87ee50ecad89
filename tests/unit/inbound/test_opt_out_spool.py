"""The opt-out spool: entries survive damage to the file, and a loss is a problem that a person resolves."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardd.ipc import OptedOut
from shardd.supervisor.inbound.opt_out_spool import DAMAGED, NAME, SPARE, OptOutSpool

FIRST = OptedOut("d1", ("+6281234567890", "77@lid"), "Stop ☝\n", 5.5)
SECOND = OptedOut("d2", ("+6281234567891",), "stop", 6.5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    spool = OptOutSpool(tmp_path)
    assert spool.load() == []
    spool.keep(FIRST)
    spool.keep(SECOND)
    return tmp_path / NAME


def test_opt_outs_are_read_back_until_they_are_stored(file: Path) -> None:
    spool = OptOutSpool(file.parent)
    assert spool.load() == [FIRST, SECOND]
    assert file.stat().st_mode & 0o777 == 0o600
    spool.keep(FIRST)
    assert OptOutSpool(file.parent).load() == [FIRST, SECOND, FIRST]
    spool.empty()
    assert OptOutSpool(file.parent).load() == []
    assert list(spool.problems()) == []


def test_a_truncated_line_costs_only_itself_and_is_reported(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    spool = OptOutSpool(file.parent)
    assert spool.load() == [FIRST]
    (problem,) = spool.problems()
    assert (problem.kind, str(file.parent / DAMAGED) in problem.text) == ("opt_outs", True)
    assert (file.parent / DAMAGED).read_bytes() == whole[:-9] + b"\n"
    spool.keep(SECOND)
    # What was read is whole again, and the copy stays for a person until it is deleted.
    again = OptOutSpool(file.parent)
    assert again.load() == [FIRST, SECOND]
    assert len(list(again.problems())) == 1
    (file.parent / DAMAGED).unlink()
    assert list(again.problems()) == []


def test_a_flipped_bit_opts_nobody_else_out(file: Path) -> None:
    whole = file.read_bytes()
    for place in range(len(whole) * 8):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        file.write_bytes(data)
        spool = OptOutSpool(file.parent)
        found = spool.load()
        assert [one for one in (FIRST, SECOND) if one in found] == found, place
        assert found == [FIRST, SECOND] or list(spool.problems()), place
        (file.parent / DAMAGED).unlink(missing_ok=True)


def test_a_lost_end_is_reported(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.rindex(b"\n", 0, -1)])
    spool = OptOutSpool(file.parent)
    assert spool.load() == [FIRST]
    assert list(spool.problems())


def test_a_file_that_cannot_be_opened_is_a_problem_until_it_can(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    spool = OptOutSpool(tmp_path)
    assert spool.load() == []
    (problem,) = spool.problems()
    assert f"{tmp_path / NAME} is not a plain file: move it away" in problem.text
    spool.keep(FIRST)
    assert list(spool.problems())
    (tmp_path / NAME).rmdir()
    spool.keep(FIRST)
    assert list(spool.problems()) == []
    assert OptOutSpool(tmp_path).load() == [FIRST]


def test_stored_opt_outs_leave_the_file_while_a_few_wait(tmp_path: Path) -> None:
    spool = OptOutSpool(tmp_path)
    for _ in range(SPARE + 2):
        spool.keep(SECOND)
    spool.keep(FIRST)
    spool.shorten(1, [FIRST])
    assert OptOutSpool(tmp_path).load() == [FIRST]
    spool.keep(SECOND)
    again = OptOutSpool(tmp_path)
    assert again.load() == [FIRST, SECOND]
    assert list(again.problems()) == []
