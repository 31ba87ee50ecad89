"""Jobs in the database, for operators: the statements of `sql/job_admin.sql`.

They work with the daemon up or down; a running daemon finds jobs that came back with its scan. They never touch a job that is in
flight. Bulk actions run in chunks, one transaction each, in the order of the ids: finished chunks stay done whatever happens
later, and neither memory nor locks grow with the number of jobs. They are counted in windows of ids, so that no statement reads
all jobs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from shardd.queue.queries import Params, Record, Statements, first
from shardd.queue.records import JobRow, WholeJob
from shardd.queue.windows import Window
from shardd.states import JOB_TRANSITIONS, JobState

CHUNK: Final = 2000
"""Jobs of one transaction of a bulk action, at most, so that no row stays locked for long."""
FIRST_CHUNK: Final = 200
"""Jobs of the first one: how long an action takes, and whether the server is busy, is not known before."""
CHUNK_STEP: Final = 0.5
"""Seconds that a later one may take."""
FIRST_WINDOW: Final = 20_000
"""Ids of the first statement that counts: some milliseconds."""
FIRST_REVOCATIONS: Final = 2000
"""Ids of the first one that looks, for each revocation among them, for the message that it deletes."""
STEP: Final = 0.1
"""Seconds that a later one may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Filters of jobs, all of which must match; None: any."""

    state: JobState | None = None
    device_ids: Sequence[str] | None = None
    campaign: str | None = None
    job_class: str | None = None
    error_class: str | None = None
    order_group: str | None = None
    reference: str | None = None
    kind: str | None = None
    revokes_campaign: str | None = None
    """Only revocations of messages of this campaign; they themselves are in none."""
    as_of: datetime | None = None
    """Only jobs that were finished then, or live ones that were there: those that a person was shown. The list ignores it."""
    snapshot: str | None = None
    """The same for a snapshot of `JobAdmin.snapshot`: those that a person saw counted. The list ignores it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that a person writes by hand; `media` unless the kind is `text`."""

    device_id: str
    recipient: str
    kind: str
    body: str
    media: str | None
    job_class: str


@dataclass(frozen=True, slots=True)
class JobCount:
    """The number of jobs with the same state, class and campaign; `obstacle`: why the action cannot be done, None: it can."""

    state: str
    job_class: str
    campaign: str | None
    obstacle: str | None
    jobs: int


@dataclass(frozen=True, slots=True)
class JobResult:
    """The result for one job; neither done nor with an obstacle or a refusal: it changed in the meantime."""

    id: int
    state: str
    obstacle: str | None
    done: bool
    refusal: str | None = None
    """Why the table's trigger refused it."""


@dataclass(frozen=True, slots=True)
class Unmovable:
    """How many jobs only their own device can send."""

    answers: int
    """To messages that were written to it."""
    revocations: int
    """Of messages that it sent."""


Progress = Callable[[list[JobCount]], None]
"""Is told what was counted so far."""


class JobAdmin(Statements):
    """What an operator asks and does about jobs."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    async def newest(
        self,
        most: int,
        traits: Traits,
        *,
        unreadable: bool = False,
        address: str | None = None,
        waits_for: str | None = None,
    ) -> list[JobRow]:
        """Up to `most` jobs, newest first; `unreadable`: only those whose message a device of the recipient could not decrypt.

        `address`: only those to this person or group; `waits_for`: only queued ones that wait for this, as the status counts
        them. For these, all jobs are read; `shardd.queue.job_search` bounds that.
        """
        params = {**asdict(traits), "unreadable": unreadable, "address": address, "device_group": None}
        params |= {"ids": None, "most": most, "first": None, "last": None, "waits_for": waits_for}
        return await self._database.rows_for(JobRow, "list_jobs", params)

    async def show(self, job_id: int) -> WholeJob | None:
        """One job, or None when there is none of this id."""
        return first(await self._database.rows_for(WholeJob, "show_job", {"id": job_id}))

    async def is_opted_out(self, job_id: int) -> bool:
        """Whether the opt-out of its recipient stops a live job."""
        return bool(await self._database.value("is_opted_out", {"id": job_id}))

    async def insert(self, new: NewJob) -> int:
        """Insert a job, by the rules of everybody's; returns its id. Raises RowRefusedError."""
        return int(await self._database.value("insert_job", asdict(new)))

    async def snapshot(self) -> str:
        """What is visible now, for `Traits.snapshot`: not the rows of a transaction that is still open."""
        return str(await self._database.value("snapshot"))

    async def states(self, ids: Sequence[int]) -> dict[int, JobState]:
        """The states of those of these jobs that exist."""
        found: dict[int, JobState] = {}
        for chunk in _chunks(ids):
            rows = await self._database.rows(Record, "states_of_jobs", {"ids": chunk})
            found.update((row["id"], JobState(row["state"])) for row in rows)
        return found

    async def count_retries(
        self, traits: Traits, ids: Sequence[int] | None = None, progress: Progress = lambda _: None
    ) -> list[JobCount]:
        """What `retry` would find, with the obstacles."""
        return await self._count("count_retries", traits, ids, progress, live=False)

    async def count_cancels(
        self, traits: Traits, ids: Sequence[int] | None = None, progress: Progress = lambda _: None
    ) -> list[JobCount]:
        """What `cancel` would find, with the obstacles."""
        return await self._count("count_cancels", traits, ids, progress, live=True)

    def retry(self, traits: Traits, ids: Sequence[int] | None = None) -> AsyncGenerator[list[JobResult]]:
        """Bring finished jobs back into the queue, chunk by chunk; sent ones are left out."""
        return self._handle("retry_jobs", traits, ids, {}, live=False)

    def cancel(self, traits: Traits, why: str, ids: Sequence[int] | None = None) -> AsyncGenerator[list[JobResult]]:
        """End live jobs that are not in flight, chunk by chunk. `why` becomes their error."""
        return self._handle("cancel_jobs", traits, ids, {"why": why}, live=True)

    async def count_decisions(
        self, traits: Traits, ids: Sequence[int] | None = None, progress: Progress = lambda _: None
    ) -> list[JobCount]:
        """What `decide` would find."""
        return await self._count("count_decisions", traits, ids, progress, live=False)

    async def count_doubts(self) -> int:
        """How many jobs are in doubt."""
        return int(await self._database.value("count_doubts"))

    def decide(
        self, traits: Traits, ids: Sequence[int] | None = None, *, sent: bool, by: str
    ) -> AsyncGenerator[list[JobResult]]:
        """Give jobs in doubt the outcome that a person found out, chunk by chunk; `by`: that person."""
        state = JOB_TRANSITIONS[JobState.IN_DOUBT]["decide_sent" if sent else "decide_not_sent"]
        more = {"decided": state.value, "words": "sent" if sent else "not sent", "decided_by": by}
        return self._handle("decide_jobs", traits, ids, more, live=False)

    async def count_revocations(
        self, traits: Traits, ids: Sequence[int] | None = None, progress: Progress = lambda _: None
    ) -> list[JobCount]:
        """What `revoke` would find, with the obstacles."""
        return await self._count("count_revocations", traits, ids, progress, live=False)

    def revoke(self, traits: Traits, ids: Sequence[int] | None = None) -> AsyncGenerator[list[JobResult]]:
        """Add jobs that delete the messages of these for everyone, chunk by chunk, ahead of what waits."""
        return self._handle("revoke_jobs", traits, ids, {}, live=False)

    async def cancel_all(self, traits: Traits, why: str) -> int:
        """Like `cancel`; returns how many ended."""
        return sum([one.done async for handled in self.cancel(traits, why) for one in handled])

    async def move(self, *, old: str, new: str) -> int:
        """Give the jobs of device `old` that are not in flight, and that others can send, to `new`; returns how many moved."""
        return await self._repeat("move_jobs", {"old": old, "new": new})

    async def count_unmovable(self, device_id: str) -> Unmovable:
        """Jobs of a device that are not in flight, and that no other device can send."""
        (found,) = await self._database.rows_for(Unmovable, "count_unmovable", {"device_id": device_id})
        return found

    async def return_to_pools(self, device_ids: Sequence[str]) -> int:
        """Let other devices of their groups have the groups' jobs that these devices were given; returns how many."""
        return await self._repeat("return_jobs_to_pools", {"device_ids": list(device_ids)})

    async def _repeat(self, name: str, params: Params) -> int:
        """Run a statement until it finds nothing more; returns how many rows it changed."""
        changed = 0
        while rows := await self._database.execute(name, {**params, "most": CHUNK}):
            changed += rows
        return changed

    async def _count(
        self, name: str, traits: Traits, ids: Sequence[int] | None, progress: Progress, *, live: bool
    ) -> list[JobCount]:
        """`live`: whether live jobs are counted, or finished ones."""
        counts: Counter[tuple[str, str, str | None, str | None]] = Counter()
        found: list[JobCount] = []

        async def add(params: Params) -> None:
            for some in await self._database.rows_for(JobCount, name, {**asdict(traits), **params}):
                counts[(some.state, some.job_class, some.campaign, some.obstacle)] += some.jobs
            found[:] = [JobCount(*key, jobs) for key, jobs in counts.items()]

        if ids is not None:
            for chunk in _chunks(ids):
                await add({"ids": chunk, "first": None, "last": None})
            return found
        low, last = await self._bounds(live=live)
        window = Window(_first_window(traits, last - low + 1))
        while low <= last:
            began, high = self.clock(), min(last, low + window.size - 1)
            await add({"ids": None, "first": low, "last": high})
            progress(found)
            low = high + 1
            window.adapt(self.clock() - began, STEP)
        return found

    async def _handle(
        self, name: str, traits: Traits, ids: Sequence[int] | None, more: Params, *, live: bool
    ) -> AsyncGenerator[list[JobResult]]:
        """What became of the jobs of each statement; of some, nothing was to be done."""
        chunk = Window(FIRST_CHUNK)

        async def handle(params: Params) -> list[JobResult]:
            began, given = self.clock(), {**asdict(traits), **more, **params, "most": min(chunk.size, CHUNK)}
            async with self._database.transaction() as one:
                handled = await one.rows_for(JobResult, name, given)
            if len(handled) == given["most"]:
                chunk.adapt(self.clock() - began, CHUNK_STEP)
            return handled

        if ids is not None:
            start = 0
            while start < len(ids):
                named = list(ids[start : start + min(chunk.size, CHUNK)])
                start += len(named)
                yield await handle({"ids": named, "after": 0, "last": None})
            return
        low, last = await self._bounds(live=live)
        window = Window(_first_window(traits, last - low + 1))
        while low <= last:
            began, high, most = self.clock(), min(last, low + window.size - 1), min(chunk.size, CHUNK)
            handled = await handle({"ids": None, "after": low - 1, "last": high})
            yield handled
            if len(handled) == most:
                low = handled[-1].id + 1
            else:
                low = high + 1
                window.adapt(self.clock() - began, STEP)

    async def _bounds(self, *, live: bool) -> tuple[int, int]:
        """The first and the last id of live, or of finished jobs; without any, the first is after the last."""
        (bounds,) = await self._database.rows(Record, "bounds_of_jobs")
        what = "live" if live else "finished"
        return (1, 0) if bounds[f"first_{what}"] is None else (bounds[f"first_{what}"], bounds[f"last_{what}"])


def _first_window(traits: Traits, ids: int) -> int:
    """Everything, where an index has what is asked for."""
    if traits.reference is not None:
        return max(1, ids)
    return FIRST_WINDOW if traits.revokes_campaign is None else FIRST_REVOCATIONS


def _chunks(ids: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), CHUNK):
        yield list(ids[start : start + CHUNK])
