"""What an operator asks and does about jobs: the statements of `sql/job_admin.sql` as typed calls.

They work with the daemon up or down; a daemon that runs learns of jobs that came back by its scan. Nothing here touches a
job that a worker has in flight. Work on many jobs goes in chunks, one transaction each, in the order of the ids: what was
done stays done, whatever becomes of the rest, and neither memory nor locks grow with the number.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from shardd.queue.database import Database, Params
from shardd.queue.typed_rows import fetch_rows
from shardd.states import JobState

CHUNK: Final = 2000
"""Jobs that are looked at in one transaction, so that no row stays locked for long."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as a list shows it; `transport` is None when it has no device yet, or an unknown one."""

    id: int
    state: str
    device_id: str | None
    device_group: str | None
    transport: str | None
    recipient: str
    kind: str
    job_class: str
    campaign: str | None
    order_group: str | None
    reference: str | None
    waits_for: str | None
    failures: int
    max_attempts: int
    priority: int
    run_at: datetime
    expires_at: datetime | None
    due_at: datetime | None
    created_at: datetime
    settled_at: datetime | None
    message_id: str | None
    error: str | None
    error_class: str | None
    delivered_at: datetime | None
    read_at: datetime | None
    metadata: Any


@dataclass(frozen=True, slots=True)
class WholeJob(JobRow):
    """A job with its content and its last claim; `node` and `shard` made that claim. The body has its variables put in.

    `producer`: the bound role whose dedupe key and order group these are; empty: everybody else's.
    """

    body: str
    variables: dict[str, Any] | None
    media: str | None
    file_name: str | None
    mime_type: str | None
    details: dict[str, Any] | None
    on_doubt: str
    dedupe_key: str | None
    producer: str
    claims: int
    claimed_at: datetime | None
    node: str | None
    shard: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What jobs are asked for by, everything at once; None: by anything."""

    state: JobState | None = None
    device_ids: Sequence[str] | None = None
    campaign: str | None = None
    job_class: str | None = None
    error_class: str | None = None
    order_group: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class JobCount:
    """Jobs that are alike: `obstacle` names what keeps them from what was asked, None for nothing."""

    state: str
    job_class: str
    campaign: str | None
    obstacle: str | None
    jobs: int


@dataclass(frozen=True, slots=True)
class JobResult:
    """What became of one job; neither done nor with an obstacle or a refusal: it changed in that moment."""

    id: int
    state: str
    obstacle: str | None
    done: bool
    refusal: str | None = None
    """What the gate of the table found wrong with it."""


class JobAdmin:
    """Jobs, over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, most: int, traits: Traits, *, device_id: str | None = None) -> list[JobRow]:
        """Up to `most` jobs, newest first."""
        return await fetch_rows(
            self._database, JobRow, "list_jobs", {**asdict(traits), "most": most, "device_id": device_id}
        )

    async def show(self, job_id: int) -> WholeJob | None:
        """One job, or None when there is none of this id."""
        rows = await fetch_rows(self._database, WholeJob, "show_job", {"id": job_id})
        return rows[0] if rows else None

    async def states(self, ids: Sequence[int]) -> dict[int, JobState]:
        """Where those of these jobs are that exist."""
        found: dict[int, JobState] = {}
        for chunk in _chunks(ids):
            rows = await self._database.fetch_all("states_of_jobs", {"ids": chunk})
            found.update((number, JobState(state)) for number, state in rows)
        return found

    async def count_retries(self, traits: Traits, ids: Sequence[int] | None = None) -> list[JobCount]:
        """What `retry` would find, and what would keep it from some of them."""
        return await self._count("count_retries", traits, ids)

    async def count_cancels(self, traits: Traits, ids: Sequence[int] | None = None) -> list[JobCount]:
        """What `cancel` would find, and what would keep it from some of them."""
        return await self._count("count_cancels", traits, ids)

    async def retry(self, traits: Traits, ids: Sequence[int] | None = None) -> AsyncGenerator[list[JobResult]]:
        """Bring finished jobs back into the queue, chunk by chunk; no sent one is looked at."""
        async for handled in self._handle("retry_jobs", traits, ids, {}):
            yield handled

    async def cancel(
        self, traits: Traits, why: str, ids: Sequence[int] | None = None
    ) -> AsyncGenerator[list[JobResult]]:
        """End live jobs that nobody has in flight, chunk by chunk. `why` becomes their error."""
        async for handled in self._handle("cancel_jobs", traits, ids, {"why": why}):
            yield handled

    async def cancel_all(self, traits: Traits, why: str) -> int:
        """Like `cancel`; returns how many ended."""
        return sum([one.done async for handled in self.cancel(traits, why) for one in handled])

    async def move(self, *, old: str, new: str) -> int:
        """Give the jobs of device `old` that nobody has in flight to `new`; returns how many moved."""
        moved = 0
        while got := await self._database.fetch_all("hand_over_jobs", {"old": old, "new": new, "most": CHUNK}):
            moved += len(got)
        return moved

    async def give_back(self, device_ids: Sequence[str]) -> int:
        """Let other devices of their groups have the jobs of groups that these devices got; returns how many."""
        given = 0
        params = {"device_ids": list(device_ids), "most": CHUNK}
        while got := await self._database.fetch_all("give_back_jobs", params):
            given += len(got)
        return given

    async def _count(self, name: str, traits: Traits, ids: Sequence[int] | None) -> list[JobCount]:
        counts: dict[tuple[str, str, str | None, str | None], int] = {}
        for chunk in _chunks(ids):
            for count in await fetch_rows(self._database, JobCount, name, {**asdict(traits), "ids": chunk}):
                key = (count.state, count.job_class, count.campaign, count.obstacle)
                counts[key] = counts.get(key, 0) + count.jobs
        return [JobCount(*key, jobs) for key, jobs in counts.items()]

    async def _handle(
        self, name: str, traits: Traits, ids: Sequence[int] | None, more: Params
    ) -> AsyncGenerator[list[JobResult]]:
        for chunk in _chunks(ids):
            after = 0
            while True:
                params = {**asdict(traits), **more, "ids": chunk, "after": after, "most": CHUNK}
                handled = await fetch_rows(self._database, JobResult, name, params)
                if handled:
                    yield handled
                    after = handled[-1].id
                if len(handled) < CHUNK:
                    break


def _chunks(ids: Sequence[int] | None) -> Iterator[list[int] | None]:
    """The ids in chunks; once None when jobs are not asked for by id."""
    if ids is None:
        yield None
        return
    for start in range(0, len(ids), CHUNK):
        yield list(ids[start : start + CHUNK])
