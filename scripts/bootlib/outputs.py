"""What `./scripts/test` in a cell printed and reported, kept on this system for whoever looks for the reason."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

LOG: Final = "tests.log"
REPORT: Final = "tests.xml"
"""In the home of whoever runs the tests: the output, and pytest's report in JUnit's format."""

_LAST_LINES: Final = 40


class Kept:
    """The output and the report of a cell's last run, in a folder that outlives its machine."""

    def __init__(self, folder: Path, cell: str) -> None:
        """`cell`: its name. What an earlier run left is removed."""
        folder.mkdir(parents=True, exist_ok=True)
        prefix = cell.replace(":", "-")
        self.log = folder / f"{prefix}.{LOG}"
        self._report = folder / f"{prefix}.{REPORT}"
        for file in (self.log, self._report):
            file.unlink(missing_ok=True)

    def keep(self, home: Path) -> None:
        """Copy from the home folder of the machine what is there by now."""
        for name, copy in ((LOG, self.log), (REPORT, self._report)):
            if (home / name).exists():
                shutil.copyfile(home / name, copy)

    def printed(self) -> str:
        """What `./scripts/test` has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def count(self) -> tuple[int, int, int]:
        """Passed, failed and skipped tests; without a report, none."""
        if not self._report.exists():
            return 0, 0, 0
        suites = ET.parse(self._report).getroot().iter("testsuite")
        totals = [
            tuple(int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")) for suite in suites
        ]
        tests, failures, errors, skipped = (sum(column) for column in zip(*totals, strict=True))
        return tests - failures - errors - skipped, failures + errors, skipped

    def postgres(self) -> str:
        """The major version of the PostgreSQL that pytest named; empty: it named none."""
        found = re.search(r"^PostgreSQL: (\d+)", self.printed(), re.MULTILINE)
        return found[1] if found else ""


def why_red(printed: str) -> str:
    """Of a red run: the output of each check that failed, pytest's summary without what was skipped, and the last line."""
    lines = printed.splitlines()
    verdict = next((line for line in reversed(lines) if "FAILED: " in line), "")
    checks = [name.strip() for name in verdict.partition("FAILED: ")[2].split(";")]
    parts = [part for name in checks for part in _section(lines, name)]
    return "\n".join([*parts, *lines[-1:]] if parts else lines[-_LAST_LINES:])


def _section(lines: list[str], check: str) -> list[str]:
    """What a check printed; of pytest, its summary."""
    begin = next((at for at, line in enumerate(lines) if check and line.startswith(f"== {check}")), None)
    if begin is None:
        return []
    end = next((at for at in range(begin + 1, len(lines)) if re.match(r"== \w|test: FAILED: ", lines[at])), len(lines))
    section = lines[begin:end]
    if not check.startswith("pytest"):
        return section
    first = next((at for at, line in enumerate(section) if "short test summary info" in line), -_LAST_LINES)
    return [line for line in section[first:] if not line.startswith("SKIPPED")]
