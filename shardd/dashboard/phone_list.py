"""Lists of devices that operators paste or upload, and lists of links that they take away: CSV, as spreadsheets have it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from shardd.dashboard.fields import LinesError
from shardd.errors import UsageError
from shardd.words import count

MOST: Final = 5000
"""Devices of one list."""
SHOWN: Final = 20
"""Mistakes of a list that are named."""
HEADS: Final = ("device", "id")
"""Names of the column with the ids."""
TRANSPORT: Final = "transport"
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+@-]{0,63}")
_BY_SIGNS: Final = ("\t", ";", ",")


@dataclass(frozen=True, slots=True)
class PhoneList:
    """What a list says."""

    ids: list[str]
    """In its order, each once."""
    new: dict[str, str]
    """Transports of those that are to be added if they do not exist."""
    unused: list[str]
    """Columns that mean nothing here."""


def read_phone_list(text: str, transports: Collection[str]) -> PhoneList:
    """Read ids, one a line, or CSV with a first line that names the columns. Raises UsageError, which names line and fix.

    `transports`: those that the column of this name may have.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    first = next((line for line in lines if line.strip()), "")
    delimiter = next((sign for sign in _BY_SIGNS if sign in first), ",")
    rows = [
        (number, [cell.strip() for cell in row])
        for number, row in enumerate(csv.reader(lines, delimiter=delimiter), start=1)
        if any(cell.strip() for cell in row) and not row[0].startswith("#")
    ]
    names = [cell.lower() for cell in rows[0][1]] if rows else []
    heads = [name for name in names if name in HEADS]
    if heads:
        rows, columns = rows[1:], {name: place for place, name in enumerate(names)}
        id_at, transport_at = columns[heads[0]], columns.get(TRANSPORT)
        unused = [name for name in names if name and name not in (heads[0], TRANSPORT)]
    else:
        id_at, transport_at, unused = 0, None, []
    if len(rows) > MOST:
        raise UsageError(f"the list has {len(rows):,} devices: split it into lists of at most {MOST:,}")
    mistakes: list[str] = []
    ids: dict[str, None] = {}
    new: dict[str, str] = {}
    for number, row in rows:
        one = row[id_at] if id_at < len(row) else ""
        transport = row[transport_at] if transport_at is not None and transport_at < len(row) else ""
        if mistake := _mistake(one, transport, transports, alone=bool(heads) or len(row) == 1):
            mistakes.append(f"line {number}: {mistake}")
            continue
        ids[one] = None
        if transport:
            new[one] = transport
    if mistakes:
        wrong = f"{count(len(mistakes), 'line')} of the list {'is' if len(mistakes) == 1 else 'are'} wrong"
        raise LinesError(
            f"{wrong}, and nothing was done: correct the list, and press the button again", first_of(mistakes)
        )
    if not ids:
        raise UsageError("the list names no device: write one id a line, or CSV whose first line has the column device")
    return PhoneList(list(ids), new, unused)


def first_of(lines: Sequence[str]) -> list[str]:
    """Those that are shown, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"and {count(more, 'more line')}"] if more > 0 else [])]


def _mistake(one: str, transport: str, transports: Collection[str], *, alone: bool) -> str | None:
    if not alone:
        return "has several columns, and the first line does not name them: write device, transport above"
    if not _ID.fullmatch(one):
        shown = one if len(one) <= 70 else f"{one[:70]}…"
        return f"{shown!r} is not the id of a device: letters, digits and . _ : + @ -, at most 64"
    if transport and transport not in transports:
        return f"transport {transport[:40]!r} has no phone to link: write {' or '.join(transports)}, or leave it empty"
    return None


def write_csv(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """With the line ends that RFC 4180 asks for."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
