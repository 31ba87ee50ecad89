"""Receipts on their way to the job's row.

A receipt can arrive before the job is settled: the phone of a friend answers within milliseconds. So receipts are
gathered and written once a second, and one that finds no row is tried a few more times.
"""

from __future__ import annotations

import asyncio
from typing import Final

from shardd import ipc
from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.jobs import Jobs

log = get_logger(__name__)

EVERY: Final = 1.0
"""Seconds between writes."""
TRIES: Final = 5
MOST: Final = 100_000
"""Receipts kept while the database is away; more than these are dropped, oldest first."""


class Receipts:
    """Gathers and writes."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._waiting: list[tuple[ipc.Receipt, int]] = []

    def add(self, receipt: ipc.Receipt) -> None:
        """Keep a receipt for the next write."""
        self._waiting.append((receipt, TRIES))
        del self._waiting[:-MOST]

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Write what is there; what finds no row, or no database, waits for the next time."""
        batch, self._waiting = self._waiting, []
        for index, (receipt, tries) in enumerate(batch):
            try:
                found = await self._jobs.save_receipt(receipt.device_id, receipt.message_ids, receipt.kind, receipt.at)
            except DatabaseError:
                self._waiting = batch[index:] + self._waiting
                return
            if found < len(receipt.message_ids) and tries > 1:
                self._waiting.append((receipt, tries - 1))
