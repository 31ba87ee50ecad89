"""Every statement has a name, a description and a caller."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import shardd
from shardd.postgres.sql_files import queries_of

PACKAGE = Path(shardd.__file__).parent
SOURCES = "\n".join(file.read_text() for file in PACKAGE.rglob("*.py"))
PACKAGES = (
    "shardd.embedded",
    "shardd.postgres",
    "shardd.queue",
    "shardd.transports.whatsapp.sessions",
    "shardd.legacy",
    "shardd.pgbouncer",
)
FILES = sorted(PACKAGE.rglob("sql/*.sql"))


@pytest.mark.parametrize("name", sorted(name for package in PACKAGES for name in queries_of(package)))
def test_a_statement_has_a_caller(name: str) -> None:
    assert re.search(rf"""["']{name}["']""", SOURCES), f"nobody runs {name}: delete it"


def test_the_benchmark_of_bare_sql_knows_every_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE.parent / "scripts"))
    script = import_module("benchlib.sql_limit")._script()
    assert "DELETE FROM shardd.jobs" in script
    assert "FOR UPDATE SKIP LOCKED" in script


def test_every_file_is_read() -> None:
    folders = {file.parent.parent.relative_to(PACKAGE.parent).as_posix().replace("/", ".") for file in FILES}
    assert folders == set(PACKAGES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_statement_says_what_it_is_for(file: Path) -> None:
    undescribed = re.findall(r"^-- name: (\w+)\n(?!-- )", file.read_text(), re.MULTILINE)
    assert undescribed == []
