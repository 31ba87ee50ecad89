"""Writes receipts to the rows of their jobs.

A receipt can arrive before its job is settled: a recipient's phone answers within milliseconds, and WhatsApp may confirm a send
late. So receipts are collected and written once a second, and one that matches no row is retried at growing intervals, for
longer than a send can take. Most that never match belong to messages written on the phone itself.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from shardd import ipc
from shardd.errors import DatabaseError, RefusedDataError
from shardd.logs import get_logger
from shardd.queue.jobs import Jobs
from shardd.supervisor.services import Service

log = get_logger(__name__)

EVERY: Final = 1.0
"""Seconds between writes."""
FIRST_WAIT: Final = 1.0
"""Seconds until a receipt that matched no row is retried; doubled with each try."""
TRIES: Final = 8
"""The last one comes two minutes after the first."""
MOST: Final = 100_000
"""Receipts kept while the database is unreachable; beyond that the oldest are dropped."""


@dataclass(slots=True)
class _Waiting:
    """A receipt that is not written yet. `due`: when to try it, on the monotonic clock."""

    receipt: ipc.Receipt
    due: float = 0.0
    tries: int = 0


class Receipts(Service):
    """Collects and writes receipts."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._waiting: list[_Waiting] = []

    def add(self, receipt: ipc.Receipt) -> None:
        """Keep a receipt for the next write."""
        self._waiting.append(_Waiting(receipt))
        del self._waiting[:-MOST]

    async def serve(self) -> None:
        """Write periodically."""
        while True:
            await asyncio.sleep(EVERY)
            await self._write(time.monotonic())

    async def close(self) -> None:
        """Write everything that matches a row now."""
        await self._write(float("inf"))

    async def _write(self, now: float) -> None:
        """Write what is due; what matches no row, or finds no database, waits."""
        due = [waiting for waiting in self._waiting if waiting.due <= now]
        self._waiting = [waiting for waiting in self._waiting if waiting.due > now]
        for index, waiting in enumerate(due):
            receipt = waiting.receipt
            try:
                found = await self._jobs.save_receipt(receipt)
            except RefusedDataError as error:
                log.error(
                    "the database refuses a receipt", action="receipt", device=receipt.device_id, error=str(error)
                )
                continue
            except DatabaseError:
                self._waiting = due[index:] + self._waiting
                return
            waiting.tries += 1
            if found < len(receipt.message_ids) and waiting.tries < TRIES:
                waiting.due = now + FIRST_WAIT * 2 ** (waiting.tries - 1)
                self._waiting.append(waiting)
