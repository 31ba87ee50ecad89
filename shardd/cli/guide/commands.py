"""`shardd guide`: its pages, on the terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from typing import Final

import click
from rich.console import Group, RenderableType

from shardd.cli.guide.library import CHAPTERS, GuidePage, page_names, read_page
from shardd.cli.guide.page_view import MOST_COLUMNS, THEME, view
from shardd.cli.help import examples
from shardd.cli.output import Console, Text, make_console, make_grid

_WHOLE: Final = 200
"""Characters of a short help, which click would cut otherwise."""


def _completions(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    return [name for name in page_names() if name.startswith(begun)]


@click.command(epilog=examples("shardd guide", "shardd guide pace"))
@click.argument("page", required=False, metavar="[PAGE]", shell_complete=_completions)
@click.pass_context
def guide(context: click.Context, page: str | None) -> None:
    """Show a page of the guide, or list its pages.

    On a terminal with your pager ($PAGER, otherwise less); elsewhere as plain text.
    """
    console = make_console()
    console.width = min(console.width, MOST_COLUMNS)
    if page is None:
        lines = _lines(console, _list())
    else:
        found = read_page(page)
        lines = _lines(
            console, view(found, _commands(context.find_root(), found), coloured=console.color_system is not None)
        )
    if sys.stdout.isatty():
        # Colours, and no screen of its own for a page that fits the terminal's.
        os.environ.setdefault("LESS", "-FRX")
        click.echo_via_pager(lines)
    else:
        for line in lines:
            sys.stdout.write(line)


def _list() -> RenderableType:
    grid = make_grid(2)
    grid.add_column(no_wrap=True)
    grid.add_column()
    for chapter, names in CHAPTERS.items():
        grid.add_row(Text(chapter, "bold"))
        for name in names:
            grid.add_row(Text(f"  {name}"), Text(read_page(name).summary.replace("`", "")))
    return Group(grid, Text("shardd guide PAGE shows one", "dim"))


def _lines(console: Console, page: RenderableType) -> Iterator[str]:
    """As printed, without the spaces that rich adds at the ends of lines."""
    with console.use_theme(THEME), console.capture() as captured:
        console.print(page, crop=False)
    for line in io.StringIO(captured.get()):
        yield line.rstrip() + "\n"


def _commands(context: click.Context, page: GuidePage) -> dict[str, str]:
    """The help of each command that the page names, such as `device set`."""
    root = context.command
    assert isinstance(root, click.Group)
    names = {*root.list_commands(context)} - {"guide"}
    found: dict[str, str] = {}
    for name, part in page.mentioned:
        command = root.get_command(context, name) if name in names else None
        inner = command.get_command(context, part) if isinstance(command, click.Group) else None
        if inner is not None:
            found[f"{name} {part}"] = inner.get_short_help_str(_WHOLE)
        elif command is not None and not isinstance(command, click.Group):
            found[name] = command.get_short_help_str(_WHOLE)
    return found
