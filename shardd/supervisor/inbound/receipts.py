"""Writes receipts to the rows of their jobs.

A receipt can arrive before its job is settled: a recipient's phone answers within milliseconds, and WhatsApp may confirm a send
late. So receipts are collected and written once a second, and one that matches no row is retried at growing intervals, for
longer than a send can take. Most that never match belong to messages written on the phone itself.

Receipts of platforms are on the disk before the platform is told that they arrived. A receipt that asks for a message, because a
phone could not decrypt it, is written to the disk, too: a message may depend on it. One that names its claim also settles it:
the job whose answer was lost was sent, or was not.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from shardd import ipc
from shardd.errors import DatabaseError, RefusedDataError
from shardd.logs import get_logger
from shardd.queue.jobs import Jobs
from shardd.supervisor.inbound.receipt_spool import ReceiptSpool
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.services import Service

log = get_logger(__name__)

EVERY: Final = 1.0
"""Seconds between writes."""
FIRST_WAIT: Final = 1.0
"""Seconds until a receipt that matched no row is retried; doubled with each try."""
TRIES: Final = 8
"""The last one comes two minutes after the first."""
CLAIM_TRIES: Final = 13
"""Of one that names a claim of ours: for an hour, because its job is in flight until a send ends."""
MOST: Final = 100_000
"""Receipts kept while the database is unreachable; beyond that the oldest are dropped, of platforms the newest refused."""
REPORT_AFTER: Final = 30.0
"""Seconds for which the database may refuse to take receipts before that is a problem."""


@dataclass(slots=True)
class _Waiting:
    """A receipt that is not written yet. `due`: when to try it, on the monotonic clock; `spooled`: it is on the disk."""

    receipt: ipc.Receipt
    due: float = 0.0
    tries: int = 0
    spooled: bool = False


class TooManyError(Exception):
    """So many receipts wait for the database that no more are taken."""


class Receipts(Service):
    """Collects and writes receipts."""

    def __init__(self, jobs: Jobs, spool: ReceiptSpool) -> None:
        self._jobs = jobs
        self._spool = spool
        self._waiting = [_Waiting(receipt, spooled=True) for receipt in spool.load()]
        self._failing_since: float | None = None
        self._error = ""

    def add(self, receipt: ipc.Receipt) -> None:
        """Keep a receipt for the next write; one that asks for a message is written to the disk, too: WhatsApp sends it once."""
        asks = receipt.kind == "unreadable"
        self._waiting.append(_Waiting(receipt, spooled=asks))
        if asks:
            self._spool.note(receipt)
        if len(self._waiting) > MOST:
            oldest = next((one for one in self._waiting if not one.spooled), self._waiting[0])
            self._waiting.remove(oldest)

    async def keep(self, receipts: Sequence[ipc.Receipt]) -> None:
        """Keep receipts of a platform, on the disk, too. Raises OSError, UnsafeFileError, TooManyError: it must repeat them."""
        if not receipts:
            return
        if len(self._waiting) + len(receipts) > MOST:
            raise TooManyError(f"{len(self._waiting):,} receipts wait for the database: {self._error}")
        # In memory first: the spool is emptied when nothing waits.
        added = [_Waiting(receipt, spooled=True) for receipt in receipts]
        self._waiting += added
        await self._spool.keep(receipts)

    async def serve(self) -> None:
        """Write periodically."""
        while True:
            await asyncio.sleep(EVERY)
            await self._write(time.monotonic())
            await self._spool.check()

    async def close(self) -> None:
        """Write everything that matches a row now."""
        await self._write(float("inf"))
        await self._spool.flush()

    def problems(self) -> Iterator[Problem]:
        """Receipts that wait for long, and a disk that takes none."""
        yield from self._spool.problems()
        if self._failing_since is not None and (seconds := time.monotonic() - self._failing_since) >= REPORT_AFTER:
            yield Problem(
                ProblemKind.INBOX,
                f"receipts that wait to be stored: {len(self._waiting):,}, for {seconds:.0f} s: {self._error}",
            )

    async def _write(self, now: float) -> None:
        """Write what is due; what matches no row, or finds no database, waits."""
        due = deque(waiting for waiting in self._waiting if waiting.due <= now)
        self._waiting = [waiting for waiting in self._waiting if waiting.due > now]
        try:
            while due:
                found = await self._save(due[0].receipt)
                waiting = due.popleft()
                waiting.tries += 1
                most = TRIES if waiting.receipt.claim is None else CLAIM_TRIES
                if not found and waiting.tries < most:
                    waiting.due = now + FIRST_WAIT * 2 ** (waiting.tries - 1)
                    self._waiting.append(waiting)
        except DatabaseError as error:
            self._failing_since, self._error = self._failing_since or time.monotonic(), str(error)
            return
        finally:
            # Also when this is cancelled: the spool forgets what does not wait.
            self._waiting[:0] = due
        self._failing_since = None
        await self._spool.stored([waiting.receipt for waiting in self._waiting if waiting.spooled])

    async def _save(self, receipt: ipc.Receipt) -> bool:
        """Whether nothing is left to do for it. Raises DatabaseError: another try may succeed."""
        try:
            return await self._jobs.save_receipt(receipt) >= len(receipt.message_ids)
        except RefusedDataError as error:
            log.error("the database refuses a receipt", action="receipt", device=receipt.device_id, error=str(error))
            return True
