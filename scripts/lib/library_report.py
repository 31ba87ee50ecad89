"""What is different with another version of the WhatsApp library: made from pytest's results.

Usage: python scripts/lib/library_report.py NAME LOCKED TESTED FOLDER. The folder has first.xml; again.xml, of what had failed
there, if anything had; locked.xml, of what failed twice, with the locked version. Exit code 1: shardd does not work with the
tested version.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

MANY: Final = 5
"""Tests with one cause."""


@dataclass(frozen=True)
class Result:
    """Of one test."""

    test: str
    outcome: str
    """passed, failed or skipped."""
    why: str
    facts: tuple[str, ...]
    relied_on_in: tuple[str, ...]


def read(file: Path) -> dict[str, Result]:
    """Results by test."""
    return {result.test: result for result in map(_result, ET.parse(file).getroot().iter("testcase"))}


def _result(case: ET.Element) -> Result:
    module = case.get("classname", "")
    test = f"{module.replace('.', '/')}.py::{case.get('name')}" if module else str(case.get("name"))
    bad = case.find("failure")
    if bad is None:
        bad = case.find("error")
    outcome = "failed" if bad is not None else "skipped" if case.find("skipped") is not None else "passed"
    why = "" if bad is None else (bad.get("message") or "").strip().partition("\n")[0]
    marks = [(one.get("name"), str(one.get("value"))) for one in case.iter("property")]
    return Result(
        test,
        outcome,
        why,
        tuple(value for name, value in marks if name == "fact"),
        tuple(value for name, value in marks if name == "relied_on_in"),
    )


def report(name: str, locked: str, tested: str, folder: Path) -> tuple[list[str], bool]:
    """The lines, and whether shardd works with the tested version."""
    first = read(folder / "first.xml")
    failed = {test: one for test, one in first.items() if one.outcome == "failed"}
    again = read(folder / "again.xml") if failed and (folder / "again.xml").exists() else failed
    twice = {test: first[test] for test in failed if test not in again or again[test].outcome == "failed"}
    anyway = read(folder / "locked.xml") if twice and (folder / "locked.xml").exists() else {}
    same = {test for test in twice if test in anyway and anyway[test].outcome == "failed"}
    changed = [one for test, one in twice.items() if test not in same]
    facts = {what for one in first.values() if one.outcome != "skipped" for what in one.facts}
    broken: dict[str, list[Result]] = {}
    for one in changed:
        for what in one.facts:
            broken.setdefault(what, []).append(one)
    others = [one for one in changed if not one.facts]
    lines = [
        f"{name} {locked} is locked; {name} {tested} was tested: {len(first)} tests.",
        *_common_cause(changed),
        "",
        f"Facts that shardd relies on and that are different: {len(broken)}",
        *_facts(broken),
        f"Facts that are as they were: {len(facts - broken.keys())}",
        f"Other tests that fail with {name} {tested}: {len(others)}",
        *_tests(others),
        f"Tests that fail with {name} {locked}, too: {len(same)}",
        *_tests(twice[test] for test in sorted(same)),
        f"Tests that failed at first, and passed when they ran alone: {len(failed) - len(twice)}",
        *_tests(failed[test] for test in sorted(failed.keys() - twice.keys())),
        "",
        "How to move to it: shardd/guide/library.md."
        if not changed
        else "Fix what relies on these facts before you move to it.",
    ]
    return lines, not changed


def _common_cause(changed: list[Result]) -> Iterator[str]:
    """The error of most of them: then it is probably not these facts that are different, but how the library is called."""
    counted = Counter(one.why for one in changed).most_common(1)
    if counted and (number := counted[0][1]) >= MANY and 2 * number >= len(changed):
        yield f"{number} of the {len(changed)} tests that it fails have one cause: {counted[0][0]}"


def _facts(broken: dict[str, list[Result]]) -> Iterator[str]:
    for what, results in sorted(broken.items()):
        yield f"  - {what}"
        yield f"      relied on in {', '.join(dict.fromkeys(file for one in results for file in one.relied_on_in))}"
        for one in results:
            yield f"      {one.test}"
            yield f"        {one.why}"


def _tests(results: Iterable[Result]) -> Iterator[str]:
    for one in results:
        yield f"  - {one.test}"
        yield f"      {one.why}"


def main() -> None:
    """Print the report."""
    name, locked, tested, folder = sys.argv[1:]
    lines, works = report(name, locked, tested, Path(folder))
    print("\n".join(lines))
    sys.exit(0 if works else 1)


if __name__ == "__main__":
    main()
