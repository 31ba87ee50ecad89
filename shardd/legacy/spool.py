"""Sorts the messages on disk between reading and inserting them.

The queue keeps the order of insertion within an order group, but the rows of a dump are in any order. A temporary SQLite database
(in $SQLITE_TMPDIR, otherwise /var/tmp or /tmp) keeps millions of messages out of memory, and ends with the process.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from datetime import UTC
from typing import Final

import msgspec

from shardd.errors import SourceError
from shardd.legacy.messages import Unsent, order_group
from shardd.legacy.tables import Row
from shardd.postgres.sql_files import query_text
from shardd.queue.imports import ImportedJob

READ_AT_ONCE: Final = 500


class Spool:
    """The messages; written first, then read."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        self._database.execute(query_text("shardd.legacy", "spool_create"))
        self._decoder = msgspec.json.Decoder(ImportedJob)

    def add(self, row: Row, message: ImportedJob | Unsent) -> None:
        """Add a message; an unsent one only if it has an order group. Raises SourceError."""
        group = order_group(row)
        if isinstance(message, Unsent):
            if group is None:
                return
            run_at, old_id, job = "", message.row, None
        else:
            run_at, old_id = message.run_at.astimezone(UTC).isoformat(), message.reference
            job = msgspec.json.encode(message)
        try:
            values = (group or "", _place(row.get("group_order")), run_at, old_id, job)
            self._database.execute(query_text("shardd.legacy", "spool_add"), values)
        except sqlite3.Error as error:
            raise SourceError(
                f"the messages cannot be written to disk: {error}; set SQLITE_TMPDIR to a folder with free space"
            ) from error

    def jobs(self) -> Iterator[tuple[str | None, ImportedJob | None]]:
        """Order group and job of each message in the order of insertion; the job is None for an unsent message."""
        cursor = self._database.execute(query_text("shardd.legacy", "spool_read"))
        cursor.arraysize = READ_AT_ONCE
        for group, job in cursor:
            yield group or None, None if job is None else self._decoder.decode(job)

    def close(self) -> None:
        """Delete the temporary database."""
        self._database.close()


def _place(text: str | None) -> float:
    try:
        place = float(text or "nan")
    except ValueError:
        place = math.nan
    return math.inf if math.isnan(place) else place
