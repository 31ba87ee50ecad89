"""Everything that the commands print: tables for people, JSON for programs, the same words for numbers and times everywhere.

Some of it was written by strangers. Here it is made visible (see `shardd.visible`), on a terminal and elsewhere: a line break in
a value starts no line, and `[red]` is a word in brackets. JSON keeps every text exactly. The linter allows `Text`, `Table`,
`Console` and `click.echo` of the libraries in no other module.

On a terminal a table fits its width. Elsewhere (a pipe, a file) it has 200 columns and no colours. `NO_COLOR` and `COLUMNS` are
respected.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import Any, Final, Self

import click
import rich.console
import rich.table
import rich.text
from rich.cells import cell_len
from rich.console import ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style

from shardd.plain import plain
from shardd.states import DeviceState, JobState, NodeState, ShardState
from shardd.visible import visible, visible_json

PIPE_WIDTH: Final = 200
"""Columns where there is no terminal."""
GAP: Final = 2
"""Spaces between two columns: a header may contain single ones."""
LEGIBLE: Final = 12
"""Width that a column keeps when it is cut, if that is enough."""
TIGHT: Final = 5
"""Width that it keeps at least, if an id or a time then fits uncut."""
LONGEST_LINE: Final = 2000
"""Characters of an error: an argument that it quotes may be much longer."""
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
    NodeState.SERVING: "green",
    NodeState.CORDONED: "yellow",
    NodeState.AWAY: "red",
    NodeState.LEAVING: "yellow",
    NodeState.SILENT: "red",
}
"""By state; the others are plain."""


class Text(rich.text.Text):
    """Rich's text, made visible, on one line."""

    _lines = False

    def __init__(self, text: str = "", style: str = "", **options: Any) -> None:
        """As in rich."""
        super().__init__(visible(text, lines=self._lines), style, **options)

    def append(self, text: rich.text.Text | str, style: Style | str | None = None) -> Self:
        """As in rich."""
        super().append(visible(text, lines=self._lines) if isinstance(text, str) else text, style)
        return self

    @classmethod
    def assemble(cls, *parts: Any, **options: Any) -> Self:
        """As in rich: of texts, strings, and pairs of a string and its style."""
        text = cls(**options)
        for part in parts:
            text.append(*(part if isinstance(part, tuple) else (part,)))
        return text


class Lines(Text):
    """A text that keeps its line breaks."""

    _lines = True


class Console(rich.console.Console):
    """Rich's console, which interprets no markup in a text."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As in rich; a text is one line."""
        super().print(*map(_one_line, objects), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As in rich. What no `Text` or `Table` of ours contains, however deep, is made visible here."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text, lines=True)
            yield segment if text == segment.text else Segment(text, segment.style)


def make_console() -> Console:
    """A console on stdout."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the encoding does not have becomes a question mark, not a traceback.
        sys.stdout.reconfigure(errors="replace")
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


class Table(rich.table.Table):
    """Rich's table; each cell is one line, unless it is `Lines`."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """As in rich."""
        super().add_row(*(cell if isinstance(cell, Lines) else _one_line(cell) for cell in cells), **options)


class _FittedTable(Table):
    """Where there is too little room, its widest columns are cut first; ids, times and numbers last."""

    whole: frozenset[int] = frozenset()
    """Columns that are cut last, of these the first column first."""

    def __rich_console__(self, console: rich.console.Console, options: ConsoleOptions) -> RenderResult:
        widths = [max(_width(cell) for cell in (column.header, *column.cells)) for column in self.columns]
        room = options.max_width - (len(widths) - 1) * self.padding[1]
        soft = [index for index in range(len(widths)) if index not in self.whole]
        for given, least in ((soft, LEGIBLE), (soft, TIGHT), ([0], LEGIBLE), (range(len(widths)), 1)):
            while sum(widths) > room and (wide := [index for index in given if widths[index] > least]):
                widths[max(wide, key=lambda index: (widths[index], index))] -= 1
        for column, width in zip(self.columns, widths, strict=True):
            column.max_width = width
        yield from super().__rich_console__(console, options)


def make_table(*headers: str, right: Iterable[str] = (), whole: Iterable[str] = ()) -> Table:
    """A table without rules; the columns `right` hold numbers. These, those in `whole`, and the first column are cut last."""
    table = _FittedTable(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    numbers, uncut = set(right), set(whole)
    table.whole = frozenset(
        index for index, header in enumerate(headers) if index == 0 or header in numbers or header in uncut
    )
    for header in headers:
        table.add_column(header, justify="right" if header in numbers else "left", no_wrap=True, overflow="ellipsis")
    return table


def make_grid(padding: int) -> Table:
    """Cells beside each other, with `padding` spaces between them; no headers."""
    return Table(
        box=None, padding=(0, padding, 0, 0), show_header=False, show_edge=False, pad_edge=False, collapse_padding=True
    )


Facts = list[tuple[str, RenderableType | None]]


def make_facts(rows: Iterable[tuple[RenderableType, RenderableType | None]]) -> Table:
    """What is known of one thing: names and values, without the empty ones. A value has one line, unless it is `Lines`."""
    table = make_grid(GAP)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(name, value)
    return table


def say(text: str, *, err: bool = False) -> None:
    """One line for people, on stdout or stderr."""
    click.echo(_folded(visible(text)) if err else visible(text), err=err)


def ask(question: str) -> None:
    """Ask a question on stderr. Raises click's Abort unless the answer is yes."""
    click.confirm(visible(question), abort=True, err=True)


def say_error(text: str) -> None:
    """One line of a sensible length on stderr, whatever the error quotes."""
    rest = f"… ({len(text):,} characters)" if len(text) > LONGEST_LINE else ""
    click.echo(_folded(visible(text[:LONGEST_LINE]) + rest), err=True)


def _folded(line: str) -> str:
    """On a terminal wrapped between words; elsewhere unchanged."""
    if not sys.stderr.isatty():
        return line
    width = max(LEGIBLE, shutil.get_terminal_size().columns)
    return "\n".join(textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)) or line


def print_exactly(line: str) -> None:
    """One line for programs; made visible on a terminal only."""
    # `click.echo` would remove escape sequences.
    sys.stdout.write(f"{visible(line) if sys.stdout.isatty() else line}\n")


def print_json(value: Any, *, compact: bool = False) -> None:
    """JSON for programs, indented or (`compact`) on one line; see `plain` for what `value` may contain."""
    # Whatever the encoding of stdout: ASCII can express all of JSON.
    ascii_only = codecs.lookup(getattr(sys.stdout, "encoding", None) or "ascii").name != "utf-8"
    text = json.dumps(plain(value), indent=None if compact else 2, ensure_ascii=ascii_only, allow_nan=False)
    click.echo(visible_json(text))


def state_text(state: str) -> Text:
    """A state's word in its colour."""
    return Text(state, STATE_STYLES.get(state, ""))


def transport_text(transport: str) -> Text:
    """A transport's name; the sandbox stands out."""
    return Text(transport, SANDBOX_STYLE if transport == SANDBOX else "")


def sandbox_text(sandbox: int, total: int, what: str) -> Text:
    """How many of the things shown are in the sandbox."""
    return Text(f"{sandbox} of {total} {what} are sandbox: their messages reach nobody", SANDBOX_STYLE)


def number_text(number: int, style: str = "") -> Text:
    """`6,000`, in `style` unless it is 0."""
    return Text(f"{number:,}", style if number else "")


def _one_line(cell: RenderableType | None) -> RenderableType | None:
    if isinstance(cell, str):
        return Text(cell)
    if isinstance(cell, rich.text.Text) and "\n" in cell.plain:
        return Text("\\n").join(cell.split("\n", allow_blank=True))
    return cell


def _width(cell: RenderableType) -> int:
    return max((cell_len(line) for line in str(cell).splitlines()), default=0)
