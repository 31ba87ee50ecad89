"""The router's round trip: settle what ended and claim what can be sent, in one pipeline and one commit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from shardd.ipc import JobSpec
from shardd.queue.records import ClaimedJob, ClaimRequest, Position, Sends
from shardd.queue.settle import Claim, Finish, Release
from shardd.queue.values import integers, texts
from shardd.states import JobState

OrderGroup = tuple[str, str]
"""(producer, name): an order group belongs to the bound role that began it; empty: to everybody who is not bound."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """Everything that is written in one go."""

    finishes: list[Finish] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    counts: list[Sends] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.finishes or self.releases)


@dataclass(frozen=True, slots=True)
class Cycle:
    """What one round trip brought."""

    settled: set[int]
    """Ids of settled claims that were the rows' present ones."""
    taken: list[ClaimedJob]
    """In the order of each lane."""
    advanced: list[tuple[str, str, Position]] = field(default_factory=list)
    """(device, lane, place) of jobs that joined their lanes because the job before in their order group was sent.

    Those that were claimed at once are not among them.
    """


async def run_cycle(
    connection: AsyncConnection[TupleRow],
    queries: Mapping[str, bytes],
    settlement: Settlement,
    requests: Sequence[ClaimRequest],
) -> Cycle:
    """Settle, then claim: one round trip and one commit. Raises psycopg.Error; then both may or may not have happened."""
    cursors = []
    advanced = None
    began = time.time()
    async with connection.pipeline():
        # Spelled out: what goes wrong with a pipeline's own commit at its end is an error that psycopg does not get through.
        await connection.execute(queries["begin_cycle"], prepare=False)
        if settlement.finishes:
            cursors.append(await connection.execute(queries["finish_jobs"], _finish_arrays(settlement.finishes)))
        if settlement.releases:
            cursors.append(await connection.execute(queries["release_jobs"], _release_arrays(settlement.releases)))
        if devices := [count for count in settlement.counts if not count.campaign]:
            await connection.execute(queries["count_sends"], _count_arrays(devices))
        if campaigns := [count for count in settlement.counts if count.campaign]:
            await connection.execute(queries["count_campaign_sends"], _campaign_arrays(campaigns))
        if groups := _advancing(settlement.finishes):
            advanced = await connection.execute(queries["advance_order_groups"], group_arrays(groups))
        if requests:
            cursors.append(await connection.execute(queries["claim_jobs"], _claim_arrays(requests)))
        await connection.execute(queries["commit_cycle"], prepare=False)
    results = [await cursor.fetchall() for cursor in cursors]
    claimed = results.pop() if requests else []
    settled = {row[0] for rows in results for row in rows}
    taken = [_taken(row, began) for row in claimed]
    taken.sort(key=lambda job: (job.claim.ord, job.claim.id))
    joined = await advanced.fetchall() if advanced is not None else []
    ids = {job.claim.id for job in taken}
    hints = [(row[0], row[1], (row[2], row[3])) for row in joined if row[0] and not row[4] and row[3] not in ids]
    return Cycle(settled, taken, hints)


def group_arrays(groups: Iterable[OrderGroup]) -> dict[str, list[str]]:
    """Order groups as the statements take them."""
    producers, names = zip(*groups, strict=True) if groups else ((), ())
    return {"producers": list(producers), "groups": list(names)}


def _advancing(finishes: list[Finish]) -> list[OrderGroup]:
    """The order groups whose next job may join its lane."""
    sent = [f.claim for f in finishes if f.state is JobState.SENT]
    return [(claim.producer, claim.order_group) for claim in sent if claim.order_group is not None]


def _finish_arrays(finishes: list[Finish]) -> dict[str, str]:
    claims = [f.claim for f in finishes]
    return {
        "ids": integers([c.id for c in claims]),
        "epochs": integers([c.epoch for c in claims]),
        "attempts": integers([c.attempt for c in claims]),
        "tokens": integers([c.token for c in claims]),
        "states": texts([f.state.value for f in finishes]),
        "failures": integers([f.failures for f in finishes]),
        "message_ids": texts([f.message_id for f in finishes]),
        "errors": texts([f.error for f in finishes]),
        "error_classes": texts([f.error_class for f in finishes]),
    }


def _release_arrays(releases: list[Release]) -> dict[str, list[Any]]:
    # As seconds from now, because the database's clock decides when they are over.
    now = time.time()
    return {
        "ids": [r.claim.id for r in releases],
        "epochs": [r.claim.epoch for r in releases],
        "attempts": [r.claim.attempt for r in releases],
        "tokens": [r.claim.token for r in releases],
        "failures": [r.failures for r in releases],
        "worker_deaths": [r.worker_deaths for r in releases],
        "delays": [None if r.due_at is None else max(0.0, r.due_at - now) for r in releases],
        "errors": [r.error for r in releases],
        "error_classes": [r.error_class for r in releases],
    }


def _count_arrays(counts: list[Sends]) -> dict[str, list[Any]]:
    return {
        "device_ids": [c.device_id for c in counts],
        "days": [c.day for c in counts],
        "hours": [c.hour for c in counts],
        "sents": [c.sent for c in counts],
        "last_ats": [c.last_at for c in counts],
    }


def _campaign_arrays(counts: list[Sends]) -> dict[str, list[Any]]:
    return {
        "campaigns": [c.campaign for c in counts],
        "device_ids": [c.device_id for c in counts],
        "days": [c.day for c in counts],
        "sents": [c.sent for c in counts],
    }


def _claim_arrays(requests: Sequence[ClaimRequest]) -> dict[str, str]:
    return {
        "device_ids": texts([a.device_id for a in requests]),
        "lanes": texts([a.lane for a in requests]),
        "epochs": integers([a.epoch for a in requests]),
        "low_ords": integers([a.low[0] for a in requests]),
        "low_ids": integers([a.low[1] for a in requests]),
        "rooms": integers([a.room for a in requests]),
        "peeks": integers([int(a.peek) for a in requests]),
    }


_TEXTS: Final = (
    ("recipient", 5, 100), ("kind", 6, 100), ("body", 7, 65_536), ("media", 8, 1_048_576), ("file_name", 9, 255),
    ("mime_type", 10, 255), ("details", 11, 8192),
)  # fmt: skip
"""(column, its place in a row of claim_jobs, characters at most) as the gate has them; an earlier version may have had more."""


def _taken(row: TupleRow, began: float) -> ClaimedJob:
    """A row of claim_jobs. `began`: when it was asked for, so that the time left to send is rather too short than too long."""
    claim = Claim(row[0], row[1], row[2], row[3], row[4], *row[13:22])
    fault = next(
        (f"{name} is too long" for name, at, most in _TEXTS if row[at] is not None and len(row[at]) > most), None
    )
    spec = (*row[:12], None if row[12] is None else began + row[12], row[24], claim.worker_deaths)
    return ClaimedJob(JobSpec(*spec), claim, row[22], None if row[23] is None else (row[23][0], row[23][1]), fault)
