"""The facts of the WhatsApp library: each module that relies on the library has some; and the report about them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.facts import ROOM

ROOT = Path(__file__).parents[2]
NO_FACTS = {
    f"{ROOM}__init__.py",  # describes its rooms
    f"{ROOM}clients/__init__.py",  # likewise
    f"{ROOM}media/recording.py",  # where a fact about WhatsApp's apps was found
    f"{ROOM}messages/history.py",  # its source is the library's, the rest is in the inbox's tests
    f"{ROOM}messages/quotes.py",  # builds messages of the protocol
    f"{ROOM}version.py",
}
"""Files that name the library and rely on nothing that another version could change unnoticed."""


def facts() -> dict[str, list[str]]:
    """The files that rely on each fact, by fact, from the tests' sources."""
    found: dict[str, list[str]] = {}
    for file in (ROOT / "tests").rglob("test_*.py"):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "@fact(" in text else ():
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "fact":
                    words = [one.value for one in ast.walk(mark) if isinstance(one, ast.Constant)]
                    files = [one if one.startswith(("shardd/", "tests/")) else ROOM + one for one in words[1:]]
                    found.setdefault(words[0], []).extend(files)
    return found


def test_every_file_that_a_fact_names_exists() -> None:
    assert len(facts()) > 40
    for what, files in facts().items():
        assert files, what
        assert all((ROOT / file).exists() for file in files), (what, files)


def test_every_module_that_relies_on_the_library_has_a_fact() -> None:
    named = {file for files in facts().values() for file in files}
    speaking = {
        str(file.relative_to(ROOT))
        for end in ("py", "sql")
        for file in (ROOT / ROOM).rglob(f"*.{end}")
        if re.search("neonize|whatsmeow", file.read_text(encoding="utf-8"))
    }
    assert speaking - named - NO_FACTS == set()
    assert speaking - named >= NO_FACTS, "it has a fact now"


CASE = '<testcase classname="tests.integration.test_x" name="{name}">{inside}</testcase>'
FACT = (
    '<properties><property name="fact" value="the sky is blue"/>'
    '<property name="relied_on_in" value="shardd/sky.py"/></properties>'
)
FAILURE = '<failure message="AssertionError: it is green&#10;more">long</failure>'


def write(folder: Path, name: str, **cases: str) -> None:
    inside = "".join(CASE.format(name=case, inside=content) for case, content in cases.items())
    (folder / f"{name}.xml").write_text(f"<testsuites><testsuite>{inside}</testsuite></testsuites>")


@pytest.fixture
def reporting(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts/lib"))
    monkeypatch.delitem(sys.modules, "library_report", raising=False)
    return import_module("library_report")


def test_a_report_without_a_difference_says_that_it_works(reporting: Any, tmp_path: Path) -> None:
    write(tmp_path, "first", test_sky=FACT, test_other="")
    lines, works = reporting.report("neonize", "0.5.2", "0.5.3", tmp_path)
    assert works
    assert lines[0] == "neonize 0.5.2 is locked; neonize 0.5.3 was tested: 2 tests."
    assert "Facts that are as they were: 1" in lines
    assert "Facts that shardd relies on and that are different: 0" in lines


def test_a_report_tells_facts_from_other_failures_and_both_from_those_that_have_other_causes(
    reporting: Any, tmp_path: Path
) -> None:
    write(tmp_path, "first", sky=FACT + FAILURE, other=FAILURE, slow=FAILURE, broken=FAILURE, fine="")
    write(tmp_path, "again", sky=FACT + FAILURE, other=FAILURE, slow="", broken=FAILURE)
    write(tmp_path, "locked", sky=FACT, other="", broken=FAILURE)
    lines, works = reporting.report("neonize", "0.5.2", "0.5.3", tmp_path)
    assert not works
    text = "\n".join(lines)
    assert re.search(
        r"are different: 1\n  - the sky is blue\n      relied on in shardd/sky.py\n"
        r"      tests/integration/test_x.py::sky\n        AssertionError: it is green\n",
        text,
    )
    assert "Facts that are as they were: 0" in text
    assert "fail with neonize 0.5.3: 1\n  - tests/integration/test_x.py::other" in text
    assert "fail with neonize 0.5.2, too: 1\n  - tests/integration/test_x.py::broken" in text
    assert "passed when they ran alone: 1\n  - tests/integration/test_x.py::slow" in text


def test_a_report_names_the_one_cause_of_many_failures(reporting: Any, tmp_path: Path) -> None:
    cause = '<error message="TypeError: NewAClient.__init__() got an unexpected keyword argument">long</error>'
    write(tmp_path, "first", **{f"fact_{number}": FACT + cause for number in range(5)}, other=FAILURE, fine="")
    lines, works = reporting.report("neonize", "0.5.2", "0.4.3", tmp_path)
    assert not works
    assert lines[1] == (
        "5 of the 6 tests that it fails have one cause: TypeError: NewAClient.__init__() got an unexpected keyword argument"
    )


@pytest.mark.parametrize("version", ["latest", "0.0.1"])
def test_an_index_that_cannot_be_reached_is_one_plain_line(tmp_path: Path, version: str) -> None:
    script = """
        set -euo pipefail
        . scripts/lib/setup.sh; . scripts/lib/library.sh
        prepare_venv() { :; }
        LIBRARY_VENV=$1
        cat pyproject.toml requirements.build.txt requirements.dev.txt | sha256sum | tr -d '\\n' > "$1/.installed"
        mkdir "$1/bin"; touch "$1/constraints.txt"
        printf '#!/bin/sh\\nexec %s/bin/python "$@"\\n' "$VENV" > "$1/bin/python"; chmod +x "$1/bin/python"
        test_library "$2"
    """
    ran = subprocess.run(
        ["bash", "-c", script, "./scripts/test", str(tmp_path), version],
        cwd=ROOT,
        env={**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1
    said = [line for line in ran.stderr.splitlines() if line.startswith("test: ")]
    assert len(said) == 1, ran.stderr
    assert said[0].startswith("test: the package index does not answer: ")
