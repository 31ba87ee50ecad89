"""Each removed safety is where it was, and its copy can be read."""

from __future__ import annotations

import compileall
from pathlib import Path

import pytest
from stormlib.mutants import MUTANTS, Mutant
from stormlib.place import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_safety_is_removed_and_the_rest_is_unchanged(mutant: Mutant, tmp_path: Path) -> None:
    mutant.plant(tmp_path)
    changed = [
        path.relative_to(tmp_path / "shardd")
        for path in (tmp_path / "shardd").rglob("*")
        if path.is_file()
        and path.read_bytes() != (ROOT / "shardd" / path.relative_to(tmp_path / "shardd")).read_bytes()
    ]
    assert [str(path) for path in changed] == [mutant.file]
    if mutant.file.endswith(".py"):
        assert compileall.compile_file(tmp_path / "shardd" / mutant.file, quiet=2)


def test_a_safety_that_has_moved_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 0 times"):
        Mutant("moved", "journal.py", "no such text", "", "").plant(tmp_path)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_test_is_there(mutant: Mutant) -> None:
    file, _, name = mutant.test.partition("::")
    assert f"def {name}(" in (ROOT / "tests" / file).read_text()
