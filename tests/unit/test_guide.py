"""The first page of the guide: its diagrams match the tables, and everything that it names exists."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "shardd/guide/how-it-works.md").read_text(encoding="utf-8")
WALK = PAGE.partition("## One job")[2].partition("## Where things are")[0]
CODE = "\n".join(
    file.read_text(encoding="utf-8") for end in ("py", "sql") for file in sorted((ROOT / "shardd").rglob(f"*.{end}"))
)


def test_the_diagrams_are_those_of_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts/lib"))
    monkeypatch.delitem(sys.modules, "state_diagrams", raising=False)
    drawn = import_module("state_diagrams")
    found = drawn.SECTION.search(PAGE)
    assert found is not None
    assert found[0] == f"{found[1]}{drawn.section()}{found[2]}", "run: python scripts/lib/state_diagrams.py"


def test_the_walk_has_at_most_fifteen_stops_in_order() -> None:
    stops = [int(number) for number in re.findall(r"^([0-9]+)\. ", WALK, re.MULTILINE)]
    assert stops == list(range(1, len(stops) + 1))
    assert 0 < len(stops) <= 15


def test_every_path_of_the_page_exists() -> None:
    paths = set(re.findall(r"`((?:shardd/|scripts/)?[a-z_]+(?:/[a-z_0-9]+)*(?:/|\.py|\.sql))`", PAGE))
    assert len(paths) > 20
    for path in paths:
        places = [ROOT / path, ROOT / "shardd" / path, ROOT / "shardd/queue" / path]
        assert any(place.exists() for place in places), path


def test_every_name_of_the_walk_is_in_the_code() -> None:
    names = {
        part
        for name in re.findall(r"`([A-Za-z_]+(?:\.[A-Za-z_]+)?)`", WALK)
        if not name.endswith((".py", ".sql"))
        for part in name.split(".")
    }
    assert len(names) > 25
    for name in names:
        assert re.search(rf"\b{name}\b", CODE), name


def test_every_name_beside_a_path_is_in_that_file() -> None:
    places = re.findall(r"`([A-Za-z_]+(?:\.[A-Za-z_]+)?)`(?:\*\*)?\s\(`([a-z_0-9/]+\.(?:py|sql))`\)", WALK)
    assert len(places) > 12
    for name, path in places:
        text = (ROOT / "shardd" / path).read_text(encoding="utf-8")
        for part in name.split("."):
            assert re.search(rf"\b(?:class|def|FUNCTION shardd\.|TRIGGER|-- name:)\s*{part}\b", text), (name, path)
