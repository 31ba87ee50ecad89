"""See ./scripts/boot --help."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from bootlib.container import try_container
from bootlib.fresh import fresh_machine
from bootlib.machine import CommandError, Machine
from bootlib.matrix import EXAMPLE, Cell, ChoiceError, Result, choose, run_cell, table
from bootlib.page import Pages
from bootlib.root import RELEASES, ImpossibleError
from bootlib.steps import Steps
from bootlib.story import Story

CLONE: Final = Path(__file__).parents[2]
GUIDE: Final = CLONE / "shardd/guide"
LOCKS: Final = [CLONE / "requirements.build.txt", CLONE / "requirements.extras.txt"]
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STATE: Final = (
    "systemctl status shardd || true; journalctl --unit=shardd --boot | tail --lines=40; shardd status || true"
)
"""Prints what helps to understand a failure."""


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="./scripts/boot")
    parser.add_argument("releases", nargs="*", metavar="RELEASE", help=f"{' or '.join(RELEASES)}; without one, both")
    parser.add_argument(
        "--if-possible", action="store_true", help="succeed where this machine cannot boot another system"
    )
    parser.add_argument("--container", action="store_true", help="build and run the container image instead")
    parser.add_argument(
        "--tests",
        nargs="*",
        metavar="CELL",
        help=f"run ./scripts/test instead, for example in {EXAMPLE}; without one, in all. Arguments for pytest follow --",
    )
    parser.add_argument("--slow", action="store_true", help="with --tests: beside busy processes")
    boundary = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:boundary])
    if unknown := sorted({*options.releases} - {*RELEASES}):
        parser.error(f"unknown release: {', '.join(unknown)}")
    for number in ENDING:
        signal.signal(number, _end)
    try:
        if options.tests is not None:
            return tests(choose(options.tests), sys.argv[boundary + 1 :], slow=options.slow)
        results = [container()] if options.container else [boot(release) for release in options.releases or RELEASES]
    except ChoiceError as error:
        parser.error(str(error))
    except ImpossibleError as error:
        print(f"boot: not run: {error}")
        return 0 if options.if_possible else 1
    return 0 if all(results) else 1


def _end(number: int, _: FrameType | None) -> NoReturn:
    """End with what was mounted, made and started; a second signal must not leave half of it."""
    for other in ENDING:
        signal.signal(other, signal.SIG_IGN)
    print(f"boot: {signal.Signals(number).name}: removing what was started", file=sys.stderr, flush=True)
    sys.exit(128 + number)


def boot(release: str) -> bool:
    """Whether every step on one release succeeds. Raises ImpossibleError."""
    steps = Steps(release)
    pages = Pages(GUIDE / "install.md", GUIDE / "upgrade.md", GUIDE / "backup.md")
    with fresh_machine(release, pages.packages(), CLONE, LOCKS, steps, purpose="shardd") as fresh:
        succeeded = _play(fresh.machine, pages, steps)
    print(f"== {release}: {'all well' if succeeded else 'FAILED'} after {steps.total():.0f} s", flush=True)
    return succeeded


def container() -> bool:
    """Whether the image can be built and does what it should. Raises ImpossibleError."""
    try:
        try_container(CLONE, LOCKS)
    except (CommandError, TimeoutError, AssertionError) as error:
        _explain(error)
        return False
    return True


def tests(cells: Sequence[Cell], arguments: Sequence[str], *, slow: bool) -> int:
    """The exit code after `./scripts/test` in each cell. Raises ImpossibleError."""
    results: list[Result] = []
    try:
        for cell in cells:
            results.append(run_cell(CLONE, cell, arguments, slow=slow))  # noqa: PERF401 — kept when the next one raises
    finally:  # a run of hours may be interrupted
        if results:
            print(table(results), flush=True)
    return 1 if any(result.error for result in results) else 0


def _explain(error: Exception) -> None:
    for frame in traceback.extract_tb(error.__traceback__):
        print(f"  {Path(frame.filename).name}:{frame.lineno}: {frame.line}")
    print(error, flush=True)


def _play(machine: Machine, pages: Pages, steps: Steps) -> bool:
    try:
        Story(machine, pages, steps).play()
    except (CommandError, TimeoutError, AssertionError) as error:
        _explain(error)
        print(machine.run(_STATE), flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
