"""What an operator asks and does about jobs: the statements of `sql/job_admin.sql` as typed calls.

They work with the daemon up or down; a daemon that runs learns of jobs that came back by its scan. Nothing here touches a
job that a worker has in hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

from shardd.queue.database import Database
from shardd.queue.typed_rows import fetch_rows
from shardd.states import JobState

CHUNK: Final = 2000
"""Jobs that are moved in one transaction, so that no row stays locked for long."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as a list shows it; `transport` is None when its device is unknown."""

    id: int
    state: str
    device_id: str
    transport: str | None
    recipient: str
    kind: str
    reference: str | None
    waits_for: str | None
    failures: int
    max_attempts: int
    priority: int
    run_at: datetime
    due_at: datetime | None
    created_at: datetime
    settled_at: datetime | None
    message_id: str | None
    error: str | None
    delivered_at: datetime | None
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class WholeJob(JobRow):
    """A job with its content and its last claim; `node` and `shard` made that claim."""

    body: str
    media: str | None
    file_name: str | None
    mime_type: str | None
    details: dict[str, Any] | None
    on_doubt: str
    dedupe_key: str | None
    claims: int
    claimed_at: datetime | None
    node: str | None
    shard: int | None


@dataclass(frozen=True, slots=True)
class WeighedJob:
    """What decides about what can be done with a job; `orphaned`: its device was removed."""

    id: int
    state: str
    device_id: str
    transport: str | None
    orphaned: bool


class JobAdmin:
    """Jobs, over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(
        self, most: int, *, state: JobState | None = None, device_id: str | None = None, reference: str | None = None
    ) -> list[JobRow]:
        """Up to `most` jobs, newest first."""
        params = {"most": most, "state": state, "device_id": device_id, "reference": reference}
        return await fetch_rows(self._database, JobRow, "list_jobs", params)

    async def show(self, job_id: int) -> WholeJob | None:
        """One job, or None when there is none of this id."""
        rows = await fetch_rows(self._database, WholeJob, "show_job", {"id": job_id})
        return rows[0] if rows else None

    async def weigh(self, ids: Sequence[int]) -> list[WeighedJob]:
        """Those of these jobs that exist."""
        return await fetch_rows(self._database, WeighedJob, "weigh_jobs", {"ids": list(ids)})

    async def weigh_finished(self, state: JobState, device_id: str | None = None) -> list[WeighedJob]:
        """Every finished job in this state."""
        params = {"state": state, "device_id": device_id}
        return await fetch_rows(self._database, WeighedJob, "weigh_finished_jobs", params)

    async def weigh_live(
        self, *, device_ids: Sequence[str] | None = None, reference: str | None = None
    ) -> list[WeighedJob]:
        """Every live job of these devices, with this reference."""
        params = {"device_ids": None if device_ids is None else list(device_ids), "reference": reference}
        return await fetch_rows(self._database, WeighedJob, "weigh_live_jobs", params)

    async def retry(self, ids: Sequence[int]) -> set[int]:
        """Bring finished jobs back into the queue; returns those that came back, which no sent one does."""
        back: set[int] = set()
        for chunk in _chunks(ids):
            back.update(row[0] for row in await self._database.fetch_all("retry_jobs", {"ids": chunk}))
        return back

    async def cancel(self, ids: Sequence[int], why: str) -> set[int]:
        """End jobs that nobody has in hand; returns those that ended. `why` becomes their error."""
        gone: set[int] = set()
        for chunk in _chunks(ids):
            gone.update(row[0] for row in await self._database.fetch_all("cancel_jobs", {"ids": chunk, "why": why}))
        return gone

    async def move(self, ids: Sequence[int], *, old: str, new: str) -> set[int]:
        """Give jobs of device `old` that nobody has in hand to `new`; returns those that moved."""
        moved: set[int] = set()
        for chunk in _chunks(ids):
            params = {"ids": chunk, "old": old, "new": new}
            moved.update(row[0] for row in await self._database.fetch_all("hand_over_jobs", params))
        return moved


def _chunks(ids: Sequence[int]) -> Iterator[list[int]]:
    rest = iter(ids)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
