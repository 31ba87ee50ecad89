"""The messages between the old system and the queue, on disk and sorted.

Within an order group the queue goes by the order of insertion, and a dump has its rows in any order. SQLite's temporary database
(in $SQLITE_TMPDIR, else /var/tmp or /tmp) keeps millions of them out of memory and is gone with the process.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from datetime import UTC
from typing import Final

import msgspec

from shardd.errors import SourceError
from shardd.legacy.messages import Unsent, Waiting, order_group
from shardd.legacy.tables import Row
from shardd.postgres.sql_files import query_text
from shardd.queue.imports import ImportedJob

READ_AT_ONCE: Final = 500


class Spool:
    """Written first, then read."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        self._database.execute(query_text("shardd.legacy", "spool_create"))
        self._decoder = msgspec.json.Decoder(ImportedJob)

    def add(self, row: Row, message: Waiting | Unsent) -> None:
        """Keep a message that becomes a job, and one that does not if others may have to wait for it. Raises SourceError."""
        group = order_group(row)
        if isinstance(message, Unsent):
            if group is None:
                return
            run_at, old_id, job = "", message.row, None
        else:
            run_at, old_id = message.job.run_at.astimezone(UTC).isoformat(), message.job.reference
            job = msgspec.json.encode(message.job)
        try:
            values = (group or "", _place(row.get("group_order")), run_at, old_id, job)
            self._database.execute(query_text("shardd.legacy", "spool_add"), values)
        except sqlite3.Error as error:
            raise SourceError(
                f"the messages cannot be kept on disk: {error}; name a folder with room: SQLITE_TMPDIR=…"
            ) from error

    def jobs(self) -> Iterator[tuple[str | None, ImportedJob | None]]:
        """Order group and job of each message in the order of insertion; None for the job: one that was not sent."""
        cursor = self._database.execute(query_text("shardd.legacy", "spool_read"))
        cursor.arraysize = READ_AT_ONCE
        for group, job in cursor:
            yield group or None, None if job is None else self._decoder.decode(job)

    def close(self) -> None:
        """Throw it away."""
        self._database.close()


def _place(text: str | None) -> float:
    try:
        place = float(text or "nan")
    except ValueError:
        place = math.nan
    return math.inf if math.isnan(place) else place
