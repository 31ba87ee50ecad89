"""Every statement has a name, a description and a caller."""

import re
from pathlib import Path

import pytest

import shardd
from shardd.queue.queries import all_queries

PACKAGE = Path(shardd.__file__).parent
SOURCES = "\n".join(file.read_text() for file in PACKAGE.rglob("*.py"))
FILES = sorted((PACKAGE / "queue" / "sql").glob("*.sql"))


@pytest.mark.parametrize("name", sorted(all_queries()))
def test_a_statement_has_a_caller(name: str) -> None:
    assert re.search(rf"""["']{name}["']""", SOURCES), f"nobody runs {name}: delete it"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_statement_says_what_it_is_for(file: Path) -> None:
    undescribed = re.findall(r"^-- name: (\w+)\n(?!-- )", file.read_text(), re.MULTILINE)
    assert undescribed == []
