"""Lists of rows: a noun declares its columns once, and whether a remark about the sandbox belongs below its table.

JSON needs no declaration: `print_json` writes the fields of a row under their own names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from shardd.cli.output import SANDBOX, Table, Text, make_console, make_table, print_json, sandbox_text
from shardd.words import count

Row = TypeVar("Row")

WIDE: Final = 110
"""Width of a console from which on a list shows more columns."""
AIRY: Final = 140
"""Width from which on it shows them all."""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column of a table; `right`: it holds numbers, `whole`: it is cut last."""

    heading: str
    cell: Callable[[Row], Text | str]
    right: bool = False
    whole: bool = False
    at_least: int = 0
    """Width of a console from which on the column is shown."""
    below: int | None = None
    """Width from which on it is not."""


@dataclass(frozen=True)
class Listing(Generic[Row]):
    """How rows of one kind are listed. Without slots, which `Listing[Row](...)` of a frozen class cannot have."""

    one: str
    columns: Sequence[Column[Row]]
    none: str
    """Printed instead of an empty table."""
    transport: Callable[[Row], str | None] | None = None
    """For the remark that counts what is in the sandbox."""

    def show(
        self,
        rows: Sequence[Row],
        *,
        as_json: bool = False,
        limit: int | None = None,
        more: str = "older ones: --limit",
        total: str = "",
        counted: bool = True,
        plain: Callable[[Row], Any] | None = None,
    ) -> None:
        """Print the rows, and (`counted`) below the table their number.

        `more` is added to the number when there may be more rows than the `limit`, `total` in any case. `plain`: what JSON has
        of a row, instead of its fields.
        """
        if as_json:
            print_json(rows if plain is None else [plain(row) for row in rows])
            return
        console = make_console()
        if not rows:
            console.print(self.none)
            return
        console.print(table_of(self.columns, rows, console.width))
        if counted:
            words = f"{count(len(rows), self.one)}{total}"
            console.print(Text(f"{words}; {more}" if len(rows) == limit else words, "dim"))
        if self.transport is not None and (sandbox := sum(self.transport(row) == SANDBOX for row in rows)):
            console.print(sandbox_text(sandbox, len(rows), f"{self.one}s"))


def table_of(columns: Iterable[Column[Row]], rows: Iterable[Row], width: int) -> Table:
    """The rows in the columns that a console of this width shows."""
    shown = [one for one in columns if one.at_least <= width and (one.below is None or width < one.below)]
    table = make_table(
        *(one.heading for one in shown),
        right=[one.heading for one in shown if one.right],
        whole=[one.heading for one in shown if one.whole],
    )
    for row in rows:
        table.add_row(*(one.cell(row) for one in shown))
    return table
