"""How the commands speak: tables for people, JSON for programs, numbers and times in the same words everywhere.

On a terminal a table fits its width. Elsewhere (a pipe, a file) it has 200 columns, because a program or a pager reads it, and
nothing is coloured. `NO_COLOR` and `COLUMNS` are respected.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

import click
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from shardd.states import DeviceState, JobState, ShardState

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
PIPE_WIDTH: Final = 200
"""Columns where there is no terminal to fit."""
LEGIBLE: Final = 12
"""Columns that what is cut keeps, if the first column then fits as it is."""
SANDBOX: Final = "sandbox"
SANDBOX_STYLE: Final = "bold magenta"

STATE_STYLES: Final[dict[str, str]] = {
    ShardState.RUNNING: "green",
    ShardState.STARTING: "yellow",
    ShardState.DRAINING: "yellow",
    ShardState.DRAINED: "dim",
    ShardState.WAITING: "dim",
    ShardState.STOPPED: "dim",
    ShardState.BACKOFF: "red",
    ShardState.BROKEN: "bold red",
    JobState.SENDING: "cyan",
    JobState.SENT: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "dim",
    JobState.EXPIRED: "red",
    JobState.OPTED_OUT: "dim",
    JobState.IN_DOUBT: "bold yellow",
    DeviceState.READY: "green",
    DeviceState.RESTRICTED: "yellow",
    DeviceState.UNPAIRED: "yellow",
    DeviceState.BANNED: "red",
    DeviceState.LOGGED_OUT: "red",
    DeviceState.REPLACED: "red",
    DeviceState.CLIENT_OUTDATED: "red",
    "paused": "yellow",
}
"""The styles of the states' words; what is not here is shown plain."""


def make_console() -> Console:
    """A console on stdout."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot spell a character shows a question mark, not a traceback.
        sys.stdout.reconfigure(errors="replace")
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


class _FittedTable(Table):
    """Where there is too little room, its widest columns give way, and not all of them alike; the first, an id, last."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [max(_width(cell) for cell in (column.header, *column.cells)) for column in self.columns]
        room = options.max_width - len(widths) + 1  # a space between two columns
        while sum(widths) > room and max(widths) > 1:
            others = widths[1:] if max(widths[1:], default=0) > LEGIBLE else widths
            widths[widths.index(max(others), len(widths) - len(others))] -= 1
        for column, width in zip(self.columns, widths, strict=True):
            column.max_width = width
        yield from super().__rich_console__(console, options)


def make_table(*headers: str, right: Iterable[str] = ()) -> Table:
    """A table without lines; the columns named in `right` hold numbers."""
    table = _FittedTable(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    numbers = set(right)
    for header in headers:
        table.add_column(header, justify="right" if header in numbers else "left", no_wrap=True, overflow="ellipsis")
    return table


def print_json(value: Any) -> None:
    """For programs: indented JSON; times in ISO 8601."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def state_text(state: str) -> Text:
    """A state's word in its colour."""
    return Text(state, STATE_STYLES.get(state, ""))


def sandbox_line(sandbox: int, all_of_them: int, what: str) -> str:
    """The sentence that tells which of the things shown are only for trying."""
    return f"{sandbox} of {all_of_them} {what} are sandbox: their messages reach nobody"


def span(seconds: float) -> str:
    """A duration in at most two units: `12ms`, `0.9s`, `42s`, `3m 5s`, `2h 10m`, `5d 3h`."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for (size, unit), (small, small_unit) in pairwise(_UNITS):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size}{unit} {rest}{small_unit}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago, or how soon, in one unit; empty when there is no moment."""
    if moment is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    # The database's clock may be a little ahead of ours.
    if abs(seconds) < 1:
        return "now"
    whole = next(f"{abs(seconds) // size:.0f}{unit}" for size, unit in _UNITS if abs(seconds) >= size)
    return f"{whole} ago" if seconds > 0 else f"in {whole}"


def moment_text(moment: datetime | None) -> str:
    """A moment, absolute and relative; empty when there is none."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({ago(moment)})"


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 job`, `6,000 jobs`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _width(cell: RenderableType) -> int:
    return max((cell_len(line) for line in str(cell).splitlines()), default=0)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
