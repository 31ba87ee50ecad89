"""Commands on many things at once: their ids, from arguments or stdin, a confirmation, and the report of what was done."""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import click

from shardd.cli.completion import complete_devices
from shardd.cli.options import Decorator
from shardd.cli.output import ask, say, say_error
from shardd.errors import UsageError
from shardd.words import count

SHOWN: Final = 10
"""Names that an error lists; the rest is counted."""
_SHORT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+@-]{0,63}")
_JOB_ID: Final = re.compile(r"[0-9]{1,19}")
_BIGGEST_ID: Final = 2**63 - 1
LONGEST_NAME: Final = 100
"""Characters of a name that are shown."""
LONGEST_LINE: Final = 4096
"""Bytes of a line of stdin; no name is longer."""


COMPLETE: Final = {"device": complete_devices}
"""By what the ids are of."""


def read_names(arguments: Iterable[str]) -> list[str]:
    """The arguments without duplicates; `-` stands for the lines of stdin, of which empty ones and those with # are skipped."""
    names: dict[str, None] = {}
    for argument in arguments:
        lines: Iterable[str] = _stdin_lines() if argument == "-" else [argument]
        for line in lines:
            if (name := line.strip()) and not name.startswith("#"):
                names[name] = None
    return list(names)


def _stdin_lines() -> Iterator[str]:
    """Raises UsageError for a line that cannot be a name: the input is a wrong file."""
    stream = sys.stdin.buffer
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UsageError(f"line {number} of stdin is longer than {LONGEST_LINE} bytes: write one id per line")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"line {number} of stdin is not UTF-8: write one id per line, in UTF-8") from None


def short_names(arguments: Iterable[str], one: str) -> list[str]:
    """Ids of things called `one`. Raises UsageError when there is none, or an invalid one."""
    ids = read_names(arguments)
    if not ids:
        raise UsageError(f"no {one} is named: write its id, several, or - for ids on stdin, one per line")
    return checked_names(ids, one)


def checked_names(ids: list[str], one: str) -> list[str]:
    """The ids of things called `one`. Raises UsageError for an invalid one."""
    bad = [name for name in ids if not _SHORT_NAME.fullmatch(name)]
    if bad:
        raise UsageError(
            f"{some(bad)}: not {f'a {one} id' if len(bad) == 1 else f'{one} ids'}; write at most 64 of the characters "
            "A-Z a-z 0-9 . _ : + @ -, the first a letter or a digit"
        )
    return ids


def ids_argument(one: str, name: str = "ids", metavar: str = "ID...", *, required: bool = True) -> Decorator:
    """Ids of things called `one`, as a list."""
    return click.argument(
        name,
        nargs=-1,
        required=required,
        metavar=metavar,
        shell_complete=COMPLETE.get(one),
        # Not while a shell completes the line, whose stdin is the terminal.
        callback=lambda context, _option, given: (
            short_names(given, one) if (given or required) and not context.resilient_parsing else []
        ),
    )


def id_argument(one: str, name: str, metavar: str = "ID") -> Decorator:
    """The id of one thing called `one`."""
    return click.argument(
        name,
        metavar=metavar,
        shell_complete=COMPLETE.get(one),
        callback=lambda _context, _option, given: checked_names([given.strip()], one)[0],
    )


def job_ids(arguments: Sequence[str]) -> list[int]:
    """Ids of jobs. Raises UsageError for an invalid one, and when stdin has none."""
    names = read_names(arguments)
    if arguments and not names:
        raise UsageError("no job is named: write its id, several, or - for ids on stdin, one per line")
    bad = [one for one in names if not (_JOB_ID.fullmatch(one) and 0 < int(one) <= _BIGGEST_ID)]
    if bad:
        raise UsageError(f"{some(bad)}: not {'a job id' if len(bad) == 1 else 'job ids'}; write numbers such as 42")
    return [int(one) for one in names]


def some(names: Sequence[object], number: int | None = None) -> str:
    """The names in one line: all, or the first ones and how many more. `number`: of how many `names` are the first."""
    shown = ", ".join(_shortened(str(name)) for name in names[:SHOWN])
    more = (len(names) if number is None else number) - len(names[:SHOWN])
    return f"{shown} and {more:,} more" if more else shown


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless `yes`. Raises UsageError when stdin is not a terminal, click's Abort when the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"this needs a confirmation, and stdin is not a terminal: add --yes ({question})")
    ask(question)


def unknown(noun: str, name: str) -> UsageError:
    """The error for one thing that does not exist."""
    return UsageError(f"{noun} {name} is unknown; the others: shardd {noun} list")


class Refusals:
    """What could not be done, reported line by line while the rest is done; `finish` sets the exit code."""

    def __init__(self) -> None:
        self._any = False

    def add(self, names: Sequence[object], one: str, why: str, *, number: int | None = None) -> None:
        """Report things called `one`, if there are any; the line reads `device d1: WHY`.

        `number`: how many there are, where `names` are only some of them, or none.
        """
        many = len(names) if number is None else number
        if many:
            self._any = True
            who = f" {some(names, many)}" if names else ""
            say_error(f"{one if many == 1 and names else count(many, one)}{who}: {why}")

    def finish(self) -> None:
        """Exit with UsageError's code if anything was reported."""
        if self._any:
            raise click.exceptions.Exit(UsageError.exit_code)


def refuse(one: str, refused: Mapping[str, Sequence[str]]) -> None:
    """Report the names of things called `one` that were refused, by reason; if there are any, exit with UsageError's code."""
    refusals = Refusals()
    for why, names in refused.items():
        refusals.add(names, one, why)
    refusals.finish()


def report(past: str, one: str, done: Collection[str], refused: Mapping[str, Sequence[str]]) -> None:
    """Report `paused 2 devices`, then as `refuse` does."""
    if done:
        say(f"{past} {count(len(done), one)}")
    refuse(one, refused)


def without(names: Iterable[str], *others: Collection[str]) -> list[str]:
    """The names that none of the others contains, in their order."""
    return [name for name in names if not any(name in other for other in others)]


def login_name() -> str:
    """Who runs the command."""
    number = os.geteuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
