"""Jobs in the database: the statements of `sql/jobs.sql` as typed calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Annotated, Any

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from shardd.ipc import JobSpec, Outcome
from shardd.queue.arrays import integers, texts
from shardd.queue.database import Database
from shardd.queue.settle import Claim, Finish, Release
from shardd.states import JobState, Verdict

Place = tuple[int, int]
"""(ord, id): where a job stands in its device's line."""

_Bigint = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_notification = msgspec.json.Decoder(tuple[str, _Bigint, _Bigint])


@dataclass(frozen=True, slots=True)
class Ask:
    """A device that can send now, and how many of its jobs may be claimed."""

    device_id: str
    epoch: int
    low: Place
    room: int


@dataclass(frozen=True, slots=True)
class Count:
    """What a device sent on a day."""

    device_id: str
    day: date
    sent: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Settlement:
    """Everything that is written in one go."""

    finishes: list[Finish] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.finishes or self.releases)


@dataclass(frozen=True, slots=True)
class Cycle:
    """What one round trip brought."""

    settled: set[int]
    """Ids of settled claims that were the rows' present ones."""
    jobs: list[tuple[JobSpec, Claim]]
    """In the order of each device's line."""


class Jobs:
    """The queue's statements over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cycle(self, settlement: Settlement, asks: Sequence[Ask]) -> Cycle:
        """Settle, then claim: one round trip and one commit. Raises DatabaseError; then both may or may not have happened."""
        async with self._database.connection() as connection:
            results = await _run_cycle(connection, self._database.queries, settlement, asks)
        settled = {row[0] for rows in results[:-1] for row in rows}
        jobs = [(JobSpec(*row[:11]), _claim(row)) for row in results[-1]]
        jobs.sort(key=lambda job: (job[1].ord, job[1].id))
        return Cycle(settled=settled, jobs=jobs)

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
                "states": [state.value for _, state in known],
                "message_ids": [o.message_id for o, _ in known],
                "errors": [o.error for o, _ in known],
            },
        )
        return [row[0] for row in rows]

    async def promote_due(self, most: int) -> list[tuple[str, Place]]:
        """Let due jobs join their lines: (device, place) of each."""
        rows = await self._database.fetch_all("promote_due", {"most": most})
        return [(row[0], (row[1], row[2])) for row in rows]

    async def new_work(self, seen: int) -> tuple[list[tuple[str, Place]], int]:
        """Devices that got jobs since the id `seen`, with where their new jobs begin; and the highest id seen now."""
        rows = await self._database.fetch_all("new_work", {"seen": seen})
        return [(row[0], (row[1], row[2])) for row in rows], rows[0][3] if rows else seen

    async def newest_id(self) -> int:
        """The highest id of a live job."""
        rows = await self._database.fetch_all("newest_id")
        return int(rows[0][0])

    async def find_work(self) -> list[tuple[str, Place]]:
        """Every device that has jobs in line, with where its line begins."""
        rows = await self._database.fetch_all("find_work")
        return [(row[0], (row[1], row[2])) for row in rows]

    async def claims_of_epochs(self, epochs: Sequence[int]) -> list[Claim]:
        """What the database thinks is claimed under these epochs."""
        rows = await self._database.fetch_all("claims_of_epochs", {"epochs": list(epochs)})
        return [Claim(*row) for row in rows]

    async def orphaned_claims(self, grace: float) -> list[tuple[Claim, str, int, bool]]:
        """Claims without a lease: (claim, node, shard, whether that node's same supervisor still lives)."""
        rows = await self._database.fetch_all("orphaned_claims", {"grace": grace})
        return [(Claim(*row[:7]), row[7], row[8], row[9]) for row in rows]

    async def save_receipt(self, device_id: str, message_ids: Sequence[str], kind: str, at: float) -> int:
        """Note that messages were delivered or read; `at` in POSIX seconds. Returns how many have a finished job."""
        return await self._database.execute(
            "save_receipt", {"device_id": device_id, "message_ids": list(message_ids), "kind": kind, "at": at}
        )

    async def depth(self) -> dict[str, Any]:
        """Live jobs: queued, scheduled, sending, and oldest (seconds; None when nothing waits)."""
        row = (await self._database.fetch_all("queue_depth"))[0]
        oldest = None if row[3] is None else max(0.0, float(row[3]))
        return {"queued": row[0], "scheduled": row[1], "sending": row[2], "oldest_due_age": oldest}

    async def prepare_archive(self) -> None:
        """Make the archive's next partitions."""
        await self._database.execute("prepare_archive")


def read_place(notification: str) -> tuple[str, Place] | None:
    """The (device, place) that a notification of new work names; None: it names none.

    Every role of the database may notify, so nonsense is no error.
    """
    try:
        device_id, place, job_id = _notification.decode(notification)
    except msgspec.DecodeError:
        return None
    return device_id, (place, job_id)


async def _run_cycle(
    connection: AsyncConnection[TupleRow], queries: Mapping[str, bytes], settlement: Settlement, asks: Sequence[Ask]
) -> list[list[TupleRow]]:
    """The rows of finish, release and claim; the claim's come last."""
    cursors = []
    async with connection.pipeline():
        if settlement.finishes:
            cursors.append(await connection.execute(queries["finish_jobs"], _finish_arrays(settlement.finishes)))
        if settlement.releases:
            cursors.append(await connection.execute(queries["release_jobs"], _release_arrays(settlement.releases)))
        if settlement.counts:
            await connection.execute(queries["count_sends"], _count_arrays(settlement.counts))
        if asks:
            cursors.append(await connection.execute(queries["claim_jobs"], _claim_arrays(asks)))
    rows = [await cursor.fetchall() for cursor in cursors]
    return rows if asks else [*rows, []]


def _finish_arrays(finishes: list[Finish]) -> dict[str, str]:
    claims = [f.claim for f in finishes]
    return {
        "ids": integers([c.id for c in claims]),
        "epochs": integers([c.epoch for c in claims]),
        "attempts": integers([c.attempt for c in claims]),
        "states": texts([f.state.value for f in finishes]),
        "failures": integers([f.failures for f in finishes]),
        "message_ids": texts([f.message_id for f in finishes]),
        "errors": texts([f.error for f in finishes]),
    }


def _release_arrays(releases: list[Release]) -> dict[str, list[Any]]:
    return {
        "ids": [r.claim.id for r in releases],
        "epochs": [r.claim.epoch for r in releases],
        "attempts": [r.claim.attempt for r in releases],
        "failures": [r.failures for r in releases],
        "due_ats": [r.due_at for r in releases],
        "errors": [r.error for r in releases],
    }


def _count_arrays(counts: list[Count]) -> dict[str, list[Any]]:
    return {
        "device_ids": [c.device_id for c in counts],
        "days": [c.day for c in counts],
        "sents": [c.sent for c in counts],
        "last_ats": [c.last_at for c in counts],
    }


def _claim_arrays(asks: Sequence[Ask]) -> dict[str, str]:
    return {
        "device_ids": texts([a.device_id for a in asks]),
        "epochs": integers([a.epoch for a in asks]),
        "low_ords": integers([a.low[0] for a in asks]),
        "low_ids": integers([a.low[1] for a in asks]),
        "rooms": integers([a.room for a in asks]),
    }


def _claim(row: TupleRow) -> Claim:
    """Of a row of claim_jobs."""
    return Claim(row[0], row[1], row[2], row[3], row[12], row[13], row[14], row[11])
