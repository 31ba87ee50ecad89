"""Jobs in the database, for the daemon and for operators: the statements of `sql/jobs.sql` and `sql/job_admin.sql`.

The operators' calls work with the daemon up or down; a running daemon finds jobs that came back with its scan. They never touch
a job that is in flight. Bulk actions run in chunks, one transaction each, in the order of the ids: finished chunks stay done
whatever happens later, and neither memory nor locks grow with the number of jobs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from psycopg.rows import TupleRow

from shardd.ipc import Outcome, Receipt
from shardd.queue.cycle import Cycle, OrderGroup, Settlement, group_arrays, run_cycle
from shardd.queue.database import Database, Params
from shardd.queue.records import ClaimRequest, WorkHint
from shardd.queue.settle import Claim
from shardd.queue.typed_rows import fetch_rows
from shardd.states import JobState, Verdict

BEHIND_EVERY_LANE: Final = "~"
"""A lane begins with a letter, a digit or a slash."""


class Jobs:
    """The queue's statements over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cycle(self, settlement: Settlement, requests: Sequence[ClaimRequest]) -> Cycle:
        """Settle, then claim: one round trip and one commit. Raises DatabaseError; then both may or may not have happened."""
        async with self._database.connection() as connection:
            return await run_cycle(connection, self._database.queries, settlement, requests)

    async def resolve_doubts(self, outcomes: Sequence[Outcome]) -> list[int]:
        """Give jobs in doubt the outcome that a journal knew. Returns the ids that changed."""
        states = {Verdict.SENT: JobState.SENT, Verdict.PERMANENT: JobState.FAILED}
        known = [
            (outcome, states[Verdict(outcome.verdict)]) for outcome in outcomes if Verdict(outcome.verdict) in states
        ]
        if not known:
            return []
        rows = await self._database.fetch_all(
            "resolve_doubts",
            {
                "ids": [o.id for o, _ in known],
                "epochs": [o.epoch for o, _ in known],
                "attempts": [o.attempt for o, _ in known],
                "tokens": [o.token for o, _ in known],
                "states": [state.value for _, state in known],
                "message_ids": [o.message_id for o, _ in known],
                "errors": [o.error for o, _ in known],
                "error_classes": [o.error_class for o, _ in known],
            },
        )
        return [row[0] for row in rows]

    async def promote_due(self, most: int) -> tuple[int, list[WorkHint]]:
        """Let due jobs join their lanes: how many did, and where those stand that have a device."""
        rows = await self._database.fetch_all("promote_due", {"most": most})
        return len(rows), [_hint(row) for row in rows if row[0] is not None]

    async def new_work(self, seen: int, most: int) -> tuple[list[WorkHint], int, int]:
        """Lanes of the next `most` jobs after the id `seen`, with where these begin; the highest id; how many jobs that were."""
        rows = await self._database.fetch_all("new_work", {"seen": seen, "most": most})
        newest, jobs = rows[0][4:6] if rows else (seen, 0)
        return [_hint(row) for row in rows if row[0] is not None], newest, jobs

    async def newest_id(self) -> int:
        """The highest id of a live job."""
        rows = await self._database.fetch_all("newest_id")
        return int(rows[0][0])

    async def find_work(self, per_device: int, page: int) -> AsyncGenerator[list[WorkHint]]:
        """The lanes that have jobs, with where they begin: of each device the first `per_device`, in pages of so many lanes."""
        device, lane = "", ""
        while True:
            params = {"after_device": device, "after_lane": lane, "per_device": per_device, "most": page}
            rows = await self._database.fetch_all("find_work", params)
            yield [_hint(row) for row in rows]
            if len(rows) < page:
                return
            device, lane, _, _, of_device = rows[-1]
            if of_device >= per_device:
                lane = BEHIND_EVERY_LANE

    async def find_lanes(self, device_id: str, after_lane: str, most: int) -> list[WorkHint]:
        """Up to `most` lanes of a device that have jobs, behind one of its lanes."""
        params = {"device_id": device_id, "after_lane": after_lane, "most": most}
        return [_hint(row) for row in await self._database.fetch_all("find_lanes", params)]

    async def expire(self, most: int) -> int:
        """End jobs whose time is over; returns how many did."""
        return len(await self._database.fetch_all("expire_jobs", {"most": most}))

    async def advance_order_groups(self, after: OrderGroup, most: int) -> tuple[list[WorkHint], OrderGroup | None]:
        """Let jobs join their lanes that wait for nobody any more; settling does so, too, but cannot see everything.

        Those that wait for a job that will never be sent end. Looks at up to `most` order groups behind one of them, and
        returns where the jobs stand, and the last group that it looked at; None: there are no more.
        """
        params = {"after_producer": after[0], "after_group": after[1], "most": most}
        held = [(row[0], row[1], row[2]) for row in await self._database.fetch_all("held_order_groups", params)]
        last = held[-1][:2] if len(held) == most else None
        stuck = group_arrays([(producer, group) for producer, group, is_stuck in held if is_stuck])
        if not stuck["groups"]:
            return [], last
        await self._database.fetch_all("end_dead_order_groups", stuck)
        rows = await self._database.fetch_all("advance_order_groups", stuck)
        return [_hint(row) for row in rows if row[0] is not None and not row[4]], last

    async def claims_of_epochs(self, epochs: Sequence[int]) -> list[Claim]:
        """What the database thinks is claimed under these epochs."""
        rows = await self._database.fetch_dicts("claims_of_epochs", {"epochs": list(epochs)})
        return [Claim(**row) for row in rows]

    async def live_claims(self, ids: Sequence[int]) -> list[Claim]:
        """Which of these jobs are claimed, and how."""
        return [Claim(**row) for row in await self._database.fetch_dicts("live_claims", {"ids": list(ids)})]

    async def old_claims(self, age: float, epochs: Sequence[int]) -> list[tuple[Claim, str, bool]]:
        """Claims of more than `age` seconds under these epochs or without a lease: (claim, node, whether there is a lease)."""
        rows = await self._database.fetch_dicts("old_claims", {"age": age, "epochs": list(epochs)})
        found = []
        for row in rows:
            node, leased = row.pop("node"), row.pop("leased")
            found.append((Claim(**row), node, leased))
        return found

    async def orphaned_claims(self, grace: float) -> list[tuple[Claim, str, int, bool]]:
        """Claims without a lease: (claim, node, shard, whether that node's same supervisor still lives)."""
        found = []
        for row in await self._database.fetch_dicts("orphaned_claims", {"grace": grace}):
            node, shard, alive = row.pop("node"), row.pop("shard"), row.pop("node_alive")
            found.append((Claim(**row), node, shard, alive))
        return found

    async def save_receipt(self, receipt: Receipt) -> int:
        """Note what became of sent messages. Returns how many have a finished job."""
        return await self._database.execute(
            "save_receipt",
            {
                "device_id": receipt.device_id,
                "message_ids": receipt.message_ids,
                "kind": receipt.kind,
                "at": receipt.at,
                "error": receipt.error,
                "error_class": receipt.error_class,
            },
        )

    async def prepare_archive(self) -> None:
        """Make the archive's next partitions."""
        await self._database.execute("prepare_archive")


def _hint(row: TupleRow) -> WorkHint:
    return row[0], row[1], (row[2], row[3])


class Counts:
    """The counting statements over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        """`database`: with the planner's own plans, because every row is read."""
        self._database = database

    async def depth(self, held: Sequence[str] = ()) -> dict[str, Any]:
        """Live jobs: queued, scheduled, sending, and oldest_due_age (seconds; None: none may be sent).

        `held`: devices whose jobs do not count as due, because a limit, quiet hours or a backoff holds them.
        """
        row = (await self._database.fetch_all("queue_depth", {"held": list(held)}))[0]
        oldest = None if row[3] is None else max(0.0, float(row[3]))
        return {"queued": row[0], "scheduled": row[1], "sending": row[2], "oldest_due_age": oldest}

    async def doubts(self) -> int:
        """Jobs in doubt, which wait for a person."""
        count: int = (await self._database.fetch_all("count_doubts"))[0][0]
        return count

    async def campaigns(self) -> dict[str, int]:
        """Of those with live jobs: running_campaigns, paused_campaigns, and paused_jobs, which are those of the paused."""
        running, paused, jobs = (await self._database.fetch_all("count_campaigns"))[0]
        return {"running_campaigns": running, "paused_campaigns": paused, "paused_jobs": jobs}


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
