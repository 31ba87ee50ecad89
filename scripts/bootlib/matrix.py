"""`./scripts/test` on fresh systems: each Debian, as root and as another user, with each source of PostgreSQL.

A cell is a root of its own, booted, without a network. In it, somebody who has a clone does what a new contributor does: runs
`./scripts/test`, has the packages installed that it lists, and runs it again.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bootlib.fresh import Fresh, fresh_machine
from bootlib.machine import CLONE as COPIED_TO
from bootlib.machine import CommandError
from bootlib.outputs import LOG, REPORT, Kept, why_red
from bootlib.root import RELEASES, cache_folder
from bootlib.steps import Steps

USERS: Final = ("root", "user")
SOURCES: Final = ("wheel", "system")
"""Of PostgreSQL: the package of the Python index alone, or Debian's, too."""

EXAMPLE: Final = "trixie:user:wheel"

_LOCKS: Final = ("requirements.build.txt", "requirements.dev.txt")
_BASE: Final = ("git", "python3-venv")
"""What a contributor has before the clone."""
_SYSTEM: Final = "postgresql"
_USER: Final = "tester"
_BUSY: Final = 2
"""Processes for each processor that slow the tests down."""
_TIMEOUT: Final = 4 * 3600.0


class ChoiceError(Exception):
    """A choice that names no cell."""


@dataclass(frozen=True)
class Cell:
    """One way to run the tests."""

    release: str
    user: str
    source: str

    @property
    def name(self) -> str:
        """As it is chosen."""
        return f"{self.release}:{self.user}:{self.source}"


@dataclass(frozen=True)
class Result:
    """What came of a cell."""

    cell: Cell
    python: str
    postgres: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    error: str | None
    """Why it is red, in one line; None: it is green."""


def choose(choices: Sequence[str]) -> list[Cell]:
    """The cells that fit one of the choices, such as `trixie:wheel`; without a choice, all. Raises ChoiceError."""
    kinds = (RELEASES, USERS, SOURCES)
    known = set(itertools.chain(*kinds))
    wanted = [set(choice.split(":")) for choice in choices or [":".join(known)]]
    if unknown := sorted(set().union(*wanted) - known):
        raise ChoiceError(f"--tests: {unknown[0]!r} is none of {', '.join(itertools.chain(*kinds))}")
    return [
        Cell(*values)
        for values in itertools.product(*kinds)
        if any(
            all(value in (words & set(kind) or kind) for value, kind in zip(values, kinds, strict=True))
            for words in wanted
        )
    ]


def run_cell(clone: Path, cell: Cell, arguments: Sequence[str], *, slow: bool) -> Result:
    """`./scripts/test ARGUMENT…` in a cell; `slow`: beside busy processes. Raises ImpossibleError."""
    steps = Steps(cell.name)
    kept = Kept(cache_folder() / "tests", cell.name)
    packages, locks = [*_BASE, *needed(clone), _SYSTEM], [clone / name for name in _LOCKS]
    python = ""
    try:
        with fresh_machine(cell.release, packages, clone, locks, steps, purpose="tests") as fresh:
            python = fresh.python
            place = _Place(fresh, cell)
            try:
                place.prepare(steps)
                with _slowed() if slow else nullcontext():
                    error = place.test(steps, arguments)
            finally:  # what an interrupted run has printed, too
                kept.keep(place.on_host)
    except CommandError as failure:
        print(failure, flush=True)
        error = str(failure).splitlines()[0]
    passed, failed, skipped = kept.count()
    result = Result(cell, python, kept.postgres(), passed, failed, skipped, steps.total(), error)
    print(f"== {cell.name}: {error or 'all well'} after {result.seconds:.0f} s; its output: {kept.log}", flush=True)
    return result


def table(results: Sequence[Result]) -> str:
    """One line a cell."""
    head = ("Debian", "Python", "PostgreSQL", "user", "passed", "failed", "skipped", "seconds", "result")
    rows = [
        (
            *(result.cell.release, result.python, f"{result.postgres} {result.cell.source}".strip(), result.cell.user),
            *(str(number) for number in (result.passed, result.failed, result.skipped)),
            *(f"{result.seconds:.0f}", result.error or "ok"),
        )
        for result in results
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    aligned = [
        "  ".join(
            text.rjust(width) if 4 <= place <= 7 else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join(aligned)


def needed(clone: Path) -> list[str]:
    """The Debian packages in the list of scripts/test."""
    (listed,) = re.findall(r"^NEEDED=\(\n(.*?)^\)$", (clone / "scripts/test").read_text(), re.MULTILINE | re.DOTALL)
    return sorted(set(re.findall(r'^ *"\w+:\S+ +(\S+)"', listed, re.MULTILINE)) - {*_BASE, "systemd"})


class _Place:
    """Where the clone is in the machine, and who works there."""

    def __init__(self, fresh: Fresh, cell: Cell) -> None:
        self._machine = fresh.machine
        self._cell = cell
        self._user = "root" if cell.user == "root" else _USER
        self._home = "/root" if cell.user == "root" else f"/home/{_USER}"
        self.on_host = fresh.root / self._home.lstrip("/")

    def prepare(self, steps: Steps) -> None:
        """Install what a contributor has, and make the clone. Raises CommandError."""
        packages = [*_BASE, *([_SYSTEM] if self._cell.source == "system" else [])]
        with steps.step(f"has {', '.join(packages)}"):
            self._as_root(f"apt-get install --yes --no-install-recommends {' '.join(packages)}")
        with steps.step(f"has a clone in {self._home}"):
            if self._user != "root":
                self._as_root(f"useradd --create-home --shell /bin/bash {self._user}")
            who = "-c user.name=me -c user.email=me@localhost"
            self._as_root(
                f"mv {COPIED_TO} {self._home}/shardd\ncd {self._home}/shardd\ngit init --quiet\ngit add --all\n"
                f"git {who} commit --quiet --message=all\nchown --recursive {self._user}: ."
            )

    def test(self, steps: Steps, arguments: Sequence[str]) -> str | None:
        """Run the tests; returns why they are red. Raises CommandError."""
        if self._user != "root":
            with steps.step("./scripts/test lists the packages that are missing"):
                self._run_script("./scripts/test --collect-only", "first.log", fails=True)
                said = (self.on_host / "first.log").read_text()
                found = re.search(r"^ *As root: (apt-get install .*)$", said, re.MULTILINE)
                if found is None:
                    raise CommandError(f"./scripts/test as {self._user}: no list of packages\n{said}")
                self._as_root(f"{found[1]} --yes --no-install-recommends")
        command = f"./scripts/test --junitxml=$HOME/{REPORT} {shlex.join(arguments)}"
        print(f"        its output: {self.on_host / LOG}", flush=True)
        try:
            with steps.step(command):
                self._run_script(command, LOG)
        except CommandError:
            log = self.on_host / LOG
            printed = log.read_text(errors="replace").strip() if log.exists() else ""
            print(why_red(printed), flush=True)
            return printed.splitlines()[-1] if printed else "./scripts/test printed nothing"
        return None

    def _as_root(self, command: str) -> None:
        self._machine.run(command, folder="/", timeout=1800)

    def _run_script(self, command: str, log: str, *, fails: bool = False) -> None:
        whole = f"cd {self._home}/shardd && {command} > {self._home}/{log} 2>&1"
        self._machine.run(whole, user=self._user, folder="/", timeout=_TIMEOUT, fails=fails)


@contextmanager
def _slowed() -> Iterator[None]:
    """With busy processes on all processors."""
    busy = [
        subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "sh", "-c", "while :; do :; done"], stdin=subprocess.DEVNULL
        )
        for _ in range(_BUSY * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
