"""A page of the guide on a terminal: Markdown by rich, but readable with 60 columns.

Where a table's last column would become narrow, each row is a name with its text below it. Commands are indented and never
wrapped by us, so that they can be copied; where comments do not fit behind them, they are placed before them.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from rich.cells import cell_len
from rich.console import ConsoleOptions, Group, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement, TableElement
from rich.padding import Padding
from rich.theme import Theme

from shardd.cli.guide.library import GuidePage
from shardd.cli.output import Lines, Text, make_grid

MOST_COLUMNS: Final = 100
"""Width of a page, at most: longer lines are hard to read."""
INDENT: Final = 4
"""Spaces before commands, and before the text of a row that does not fit into a table."""
THEME: Final = Theme({"markdown.code": "bold cyan", "markdown.h1": "", "markdown.h2": "", "markdown.h3": ""})
"""Legible on dark and light terminals: rich's own has a black background for code."""
_ROOM: Final = 40
"""Columns that the last column of a table needs."""
_GAP: Final = 2

_FENCED: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_NOT_SHOWN: Final = re.compile(r"<!--.*?-->\n?|</?details[^>]*>\n?", re.DOTALL)
_SUMMARY: Final = re.compile(r"<summary>(.*?)</summary>")
_CODE: Final = re.compile(r"`([^`]+)`")
_LINK: Final = re.compile(r"\[([^]]+)\]\(([^)]+)\)")
_OF_OUTPUT: Final = "←"
"""Marks a remark on output."""
_REMARK: Final = re.compile(rf"^(?P<indent> *)(?:(?P<code>\S.*?) {{2,}})??(?P<mark>#|--|{_OF_OUTPUT}) (?P<remark>.*)$")


def view(page: GuidePage, commands: Mapping[str, str], *, coloured: bool) -> RenderableType:
    """The page, and below it its commands, each with its help, and the pages that it refers to."""
    return Group(_Page(_readable(page.text, coloured=coloured)), *_footer(commands, page.others))


def _readable(text: str, *, coloured: bool) -> str:
    """Without what only a browser shows: comments, foldable parts, and links but for external addresses, which are written out.

    Where there are no colours, code in a sentence keeps its backticks.
    """
    parts = _FENCED.split(text)
    for index in range(0, len(parts), 2):  # the others are fenced
        prose = _LINK.sub(_address, _SUMMARY.sub(r"**\1**", _NOT_SHOWN.sub("", parts[index])))
        parts[index] = prose if coloured else _CODE.sub(r"`` `\1` ``", prose)
    return "".join(parts)


def _address(link: re.Match[str]) -> str:
    text, target = link[1], link[2]
    return f"{text} ({target})" if "://" in target else text


def _footer(commands: Mapping[str, str], others: Sequence[str]) -> Iterator[RenderableType]:
    if commands:
        grid = make_grid(_GAP)
        grid.add_column(no_wrap=True)
        grid.add_column()
        for name, words in commands.items():
            grid.add_row(Text(f"shardd {name}", "bold"), Text(words))
        yield Text()
        yield Text("Commands on this page (--help has their options)", "bold")
        yield Padding(grid, (0, 0, 0, _GAP))
    if others:
        yield Text()
        yield Text.assemble(("See also ", "bold"), ", ".join(f"shardd guide {name}" for name in others))


class _Heading(Heading):
    def __rich_console__(self, console: Any, options: ConsoleOptions) -> RenderResult:
        text = self.text.copy()
        text.justify = "left"
        text.stylize("bold underline" if self.tag in {"h1", "h2"} else "bold")
        yield text
        if console.color_system is None:
            yield Text(("=" if self.tag == "h1" else "-") * text.cell_len)


class _Code(CodeBlock):
    def __rich_console__(self, console: Any, options: ConsoleOptions) -> RenderResult:
        lines = _fitted(str(self.text).rstrip().expandtabs(INDENT).split("\n"), options.max_width - INDENT)
        text = Lines("\n".join(f"{'':{INDENT}}{line}".rstrip() for line in lines), "cyan")
        # As long as they are: the terminal breaks them, and does not add a line break to what is copied.
        text.no_wrap, text.overflow = True, "ignore"
        yield text


def _fitted(lines: list[str], room: int) -> Iterator[str]:
    """The lines; if one with a remark is too long, each remark is on lines of its own, before what it explains."""
    if not any(cell_len(line) > room and _REMARK.match(line) for line in lines):
        yield from lines
        return
    for line in lines:
        found = _REMARK.match(line)
        if found is None:
            yield line
            continue
        begin = f"{found['indent']}{found['mark']} "
        remark = textwrap.wrap(found["remark"], max(room - len(begin), 1), break_long_words=False)
        parts = [[begin + part for part in remark], [found["indent"] + found["code"]] if found["code"] else []]
        for part in reversed(parts) if found["mark"] == _OF_OUTPUT else parts:
            yield from part


class _Table(TableElement):
    def __rich_console__(self, console: Any, options: ConsoleOptions) -> RenderResult:
        assert self.header is not None
        assert self.header.row is not None
        header = [Text.assemble(cell.content) for cell in self.header.row.cells]
        rows = [[Text.assemble(cell.content) for cell in row.cells] for row in (self.body.rows if self.body else [])]
        widths = [max(cell.cell_len for cell in column) for column in zip(header, *rows, strict=True)]
        room = options.max_width - sum(width + _GAP for width in widths[:-1])
        yield from (_as_columns if room >= min(_ROOM, widths[-1]) else _as_entries)(header, rows)


def _as_columns(header: list[Text], rows: list[list[Text]]) -> Iterator[RenderableType]:
    grid = make_grid(_GAP)
    for _ in header[:-1]:
        grid.add_column(no_wrap=True)
    grid.add_column()
    if any(cell.plain for cell in header):
        grid.add_row(*map(_bold, header))
    for row in rows:
        grid.add_row(*row)
    yield grid


def _as_entries(header: list[Text], rows: list[list[Text]]) -> Iterator[RenderableType]:
    for first, *cells in rows:
        yield _bold(first)
        for name, cell in zip(header[1:], cells, strict=True):
            if cell.plain:
                label = f"{name.plain}: " if name.plain and len(cells) > 1 else ""
                yield Padding(Text.assemble(label, cell), (0, 0, 0, INDENT))


def _bold(text: Text) -> Text:
    text.stylize("bold")
    return text


class _Page(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _Code,
        "table_open": _Table,
    }
