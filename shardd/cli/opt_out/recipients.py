"""Recipients as people write them: one by one, one per line of a file, or in a CSV file with a header."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Final

from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.opt_outs import NewOptOut
from shardd.spelling import Spelling

MOST_NOTE: Final = 1000
"""Characters of a note, as the database accepts them."""
_RECIPIENT: Final = ("recipient", "number", "phone", "address")

Row = NewOptOut | UsageError
"""An opt-out, or what is wrong with its line."""


def spelling_of(config: Config) -> Spelling:
    """With the default region of the config."""
    return Spelling(config.transports.whatsapp.default_region)


def read_file(name: str, text: str, note: str | None) -> list[tuple[str, Row]]:
    """Line numbers and opt-outs; `note` is for those without one. Raises UsageError for a file that has none."""
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UsageError(f"{name}: line {line} has a NUL byte, which no text has; save it as UTF-8")
    first = text.partition("\n")[0]
    return _read_table(text, note) if "," in first or ";" in first else _read_lines(text, note)


def _read_lines(text: str, note: str | None) -> list[tuple[str, Row]]:
    """Empty lines, lines with # and a header are skipped."""
    rows: list[tuple[str, Row]] = []
    for number, line in enumerate(text.splitlines(), 1):
        recipient = line.strip()
        if recipient and not recipient.startswith("#") and recipient.lower() not in _RECIPIENT:
            rows.append((str(number), make_row(recipient, note)))
    return rows


def _read_table(text: str, note: str | None) -> list[tuple[str, Row]]:
    """CSV, with commas or semicolons; of what `shardd opt-out export` writes, the other columns are not needed."""
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[tuple[str, Row]] = []
    try:
        columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
        recipient = next((columns[name] for name in _RECIPIENT if name in columns), None)
        if recipient is None:
            raise UsageError(
                "the table has no column recipient: begin it with a line such as recipient,note,said_at; "
                f"it has {', '.join(columns)}"
            )
        note_column, time_column = columns.get("note"), columns.get("said_at")
        for row in reader:
            if not (text := (row[recipient] or "").strip()):
                continue
            line = str(reader.line_num)
            own_note = (row[note_column] or "").strip() if note_column else ""
            said_at = (row[time_column] or "").strip() if time_column else ""
            rows.append((line, make_row(text, own_note or note, said_at)))
    except csv.Error as error:
        raise UsageError(f"line {max(1, reader.line_num)}: this is not CSV: {error}") from None
    return rows


def make_row(recipient: str, note: str | None, said_at: str = "") -> Row:
    """An opt-out from the texts of its fields."""
    if note is not None and len(note) > MOST_NOTE:
        return UsageError(f"the note has {len(note):,} characters: use at most {MOST_NOTE:,}")
    try:
        moment = datetime.fromisoformat(said_at) if said_at else None
    except ValueError:
        return UsageError(f"said_at {said_at!r} is not a time: write 2026-05-01T12:30:00Z, or nothing")
    return NewOptOut(recipient, note, moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC))
