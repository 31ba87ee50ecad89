"""Removes what is over: jobs of cancelled campaigns, expired jobs, and rows older than the config keeps them.

Nothing waits for it. No claim takes a job of a cancelled campaign or one past its deadline, and the outcomes already show them as
ended; cleaning up keeps the tables small. Each chunk is a transaction of its own that may be interrupted anywhere. After a chunk
it pauses as long as the chunk took, so that it takes at most half of the database's time, however much there is. Several
nodes may do it at once: what one has removed, the other does not find.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from shardd.config.inbox import InboxConfig
from shardd.config.sections import RetentionConfig
from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from shardd.queue.queries import Record, first

log = get_logger(__name__)

CANCELLED_CHUNK: Final = 2000
"""Jobs that end in one transaction, so that no row stays locked for long."""
EXPIRED_CHUNK: Final = 2000
RETENTION_CHUNK: Final = 5000
"""Rows that are examined in one transaction."""
DAYS: Final = 400
"""Days for which the daily counts of devices are kept: no limit looks back further, and a warm-up is far shorter."""


async def in_chunks(size: int, chunk: Callable[[], Awaitable[tuple[int, int]]]) -> int:
    """Repeat `chunk` until it examines less than `size` rows; it returns how many it examined and changed.

    Returns how many were changed in all.
    """
    total = 0
    while True:
        began = time.monotonic()
        examined, changed = await chunk()
        total += changed
        if examined < size:
            return total
        await asyncio.sleep(time.monotonic() - began)


async def end_expired(jobs: Jobs) -> None:
    """End the jobs whose deadline has passed. Raises DatabaseError."""
    while await jobs.expire(EXPIRED_CHUNK) == EXPIRED_CHUNK:
        pass


async def end_cancelled(database: Database) -> int:
    """End the jobs of cancelled campaigns that are not in flight; returns how many. Raises DatabaseError."""
    ended = 0
    for cancelled in await database.rows(Record, "cancelled_campaigns"):
        campaign, why = cancelled["id"], cancelled["why"]
        error = "its campaign was cancelled" + (f": {why}" if why else "")
        params = {"campaign": campaign, "after": 0, "most": CANCELLED_CHUNK, "error": error}
        jobs = await in_chunks(CANCELLED_CHUNK, partial(_end_campaign_jobs, database, params))
        if jobs:
            log.info("jobs of a cancelled campaign ended", action="campaign", campaign=campaign, jobs=jobs)
        ended += jobs
    return ended


async def _end_campaign_jobs(database: Database, params: dict[str, Any]) -> tuple[int, int]:
    ids = await database.column("end_cancelled_jobs", params)
    params["after"] = max(ids, default=0)
    return len(ids), len(ids)


async def delete_old(database: Database, keep: RetentionConfig, inbox: InboxConfig) -> None:
    """Delete everything older than `keep` says. Raises DatabaseError when something could not be deleted.

    A failing step does not stop the others: a long transaction that reads old jobs keeps their month, and nothing else.
    """
    ages = {
        "finished": keep.finished,
        "dedupe_keys": keep.dedupe_keys,
        "contacts": keep.contacts,
        "acts": keep.acts,
        "days": DAYS,
        "most": RETENTION_CHUNK,
        "inbox": inbox.keep,
        "messages": inbox.most,
    }
    # In the order in which they free each other: a key goes when its job is gone.
    steps: dict[str, Callable[[], Awaitable[int]]] = {
        "months": partial(_delete_months, database, ages),
        "jobs": partial(_delete, "forget_strays", database, ages),
        "dedupe_keys": partial(_delete_keys, database, ages),
        "revocations": partial(_delete, "forget_revocations", database, ages),
        "accounts": partial(_delete, "forget_accounts", database, ages),
        "contacts": partial(_delete, "forget_contacts", database, ages),
        "order_groups": partial(_delete, "forget_order_groups", database, ages),
        "days": partial(_delete, "forget_days", database, ages),
        "messages": partial(_delete, "forget_messages", database, ages),
        "acts": partial(_delete, "forget_acts", database, ages),
        "nodes": partial(_delete, "forget_nodes", database, ages),
        "epochs": partial(_delete, "forget_epochs", database, ages),
    }
    deleted: dict[str, int] = {}
    refused: DatabaseError | None = None
    for name, step in steps.items():
        try:
            deleted[name] = await step()
        except DatabaseError as error:
            refused = refused or error
    if any(deleted.values()):
        log.info("old rows deleted", action="retention", **deleted)
    if refused is not None:
        raise refused


async def _delete(query: str, database: Database, ages: dict[str, Any]) -> int:
    async def chunk() -> tuple[int, int]:
        count = int(await database.value(query, ages))
        return count, count

    return await in_chunks(RETENTION_CHUNK, chunk)


async def _delete_months(database: Database, ages: dict[str, Any]) -> int:
    """Months of the archive go as a whole."""
    months = 0
    while found := await database.rows(Record, "forget_month", ages):
        log.info("a month of finished jobs deleted", action="retention", **found[0])
        months += 1
    return months


async def _delete_keys(database: Database, ages: dict[str, Any]) -> int:
    after = {"after_at": datetime(1970, 1, 1, tzinfo=UTC), "after_key": "", "after_producer": ""}

    async def chunk() -> tuple[int, int]:
        found = first(await database.rows(Record, "forget_dedupe_keys", {**ages, **after}))
        if found is None:
            return 0, 0
        after.update({name: found[name] for name in after})
        return found["examined"], found["deleted"]

    return await in_chunks(RETENTION_CHUNK, chunk)
