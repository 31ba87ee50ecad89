"""Lists of recipients in files: one per line, or a table with a header."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Final

from shardd.errors import UsageError
from shardd.queue.opt_outs import NewOptOut

_RECIPIENT: Final = ("recipient", "number", "phone", "address")


def read_lines(text: str, note: str | None) -> list[tuple[str, NewOptOut]]:
    """Line numbers and recipients; empty lines, lines with # and a header are skipped."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        recipient = line.strip()
        if recipient and not recipient.startswith("#") and recipient.lower() not in _RECIPIENT:
            rows.append((str(number), NewOptOut(recipient, note)))
    return rows


def read_table(text: str, note: str | None) -> list[tuple[str, NewOptOut]]:
    """Line numbers and recipients of a CSV, with commas or semicolons. Raises UsageError."""
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
    except csv.Error as error:
        raise UsageError(f"line 1: this is no CSV: {error}") from None
    recipient = next((columns[name] for name in _RECIPIENT if name in columns), None)
    if recipient is None:
        raise UsageError(
            "the table has no column recipient: begin it with a line such as recipient,note,said_at; "
            f"it has {', '.join(columns)}"
        )
    # What `export` writes can be read: of its other columns nothing is needed.
    note_column, time_column = columns.get("note"), columns.get("said_at")
    rows = []
    try:
        for row in reader:
            if not (text := (row[recipient] or "").strip()):
                continue
            line = str(reader.line_num)
            own_note = (row[note_column] or "").strip() if note_column else ""
            said_at = _moment((row[time_column] or "").strip(), line) if time_column else None
            rows.append((line, NewOptOut(text, own_note or note, said_at)))
    except csv.Error as error:
        raise UsageError(f"line {reader.line_num}: this is no CSV: {error}") from None
    return rows


def _moment(text: str, line: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"line {line}: said_at {text!r} is no time: write 2026-05-01T12:30:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
