"""Forgets what is older than the config wants it kept: finished jobs, dedupe keys, contacts, the counts of old days.

Months of the archive go as a whole, everything else in chunks with rests between them, so that forgetting takes at most
half of the database's time, however much there is. Each step is a transaction of its own that may be cut off anywhere.
Several nodes may do it at once: what one has forgotten, the other does not find.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from shardd.config.sections import RetentionConfig
from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.database import Database

log = get_logger(__name__)

CHUNK: Final = 5000
"""Rows that are looked at in one transaction."""
DAYS: Final = 400
"""Days for which what devices sent is remembered: no limit looks back further, and a warm-up is far shorter."""


class Retention:
    """The steps, in the order in which they free each other: a key goes when its job is gone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sweep(self, keep: RetentionConfig) -> None:
        """Forget everything that is old enough. Raises DatabaseError when something could not be forgotten.

        That costs only itself: somebody who reads old jobs in a long transaction keeps their month, and nothing else.
        """
        ages = {"finished": keep.finished, "dedupe_keys": keep.dedupe_keys, "contacts": keep.contacts, "days": DAYS}
        steps: dict[str, Callable[[], Awaitable[int]]] = {
            "months": lambda: self._forget_months(ages),
            "jobs": lambda: self._repeat("forget_strays", ages),
            "dedupe_keys": lambda: self._forget_keys(ages),
            "contacts": lambda: self._repeat("forget_contacts", ages),
            "order_groups": lambda: self._repeat("forget_order_groups", ages),
            "days": lambda: self._forget_days(ages),
        }
        forgotten: dict[str, int] = {}
        refused: DatabaseError | None = None
        for name, forget in steps.items():
            try:
                forgotten[name] = await forget()
            except DatabaseError as error:
                refused = refused or error
        if any(forgotten.values()):
            log.info("forgotten", action="retention", **forgotten)
        if refused is not None:
            raise refused

    async def _forget_days(self, ages: dict[str, Any]) -> int:
        return int((await self._database.fetch_all("forget_days", ages))[0][0])

    async def _forget_months(self, ages: dict[str, Any]) -> int:
        forgotten = 0
        while months := await self._database.fetch_all("forget_month", ages):
            ((month, jobs, kept),) = months
            log.info("forgot a month of finished jobs", action="retention", month=month, jobs=jobs, kept=kept)
            forgotten += 1
        return forgotten

    async def _forget_keys(self, ages: dict[str, Any]) -> int:
        forgotten: int = 0
        after: dict[str, Any] = {"after_at": datetime(1970, 1, 1, tzinfo=UTC), "after_key": "", "after_producer": ""}
        while True:
            began = time.monotonic()
            found = await self._database.fetch_all("forget_dedupe_keys", {**ages, **after, "most": CHUNK})
            if not found:
                return forgotten
            ((looked_at, gone, created_at, key, producer),) = found
            forgotten += gone
            if looked_at < CHUNK:
                return forgotten
            after = {"after_at": created_at, "after_key": key, "after_producer": producer}
            await asyncio.sleep(time.monotonic() - began)

    async def _repeat(self, name: str, ages: dict[str, Any]) -> int:
        forgotten = 0
        while True:
            began = time.monotonic()
            gone = int((await self._database.fetch_all(name, {**ages, "most": CHUNK}))[0][0])
            forgotten += gone
            if gone < CHUNK:
                return forgotten
            await asyncio.sleep(time.monotonic() - began)
