"""The router's round trip: settle what ended and claim what can be sent, in one pipeline and one commit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from shardd.ipc import JobSpec
from shardd.pacing import day_of
from shardd.queue.arrays import integers, texts
from shardd.queue.settle import Claim, Finish, Release

Place = tuple[int, int]
"""(ord, id): where a job stands in its device's line."""


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


def count_sends(sends: Iterable[tuple[str, float]], zone: tzinfo) -> list[Count]:
    """Add up (device, POSIX time) of messages that left or may have, by device and day of the zone."""
    times: dict[tuple[str, date], list[float]] = {}
    for device_id, at in sends:
        times.setdefault((device_id, day_of(datetime.fromtimestamp(at, UTC), zone)), []).append(at)
    return [Count(device, day, len(ats), datetime.fromtimestamp(max(ats), UTC)) for (device, day), ats in times.items()]


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


async def run_cycle(
    connection: AsyncConnection[TupleRow], queries: Mapping[str, bytes], settlement: Settlement, asks: Sequence[Ask]
) -> Cycle:
    """Settle, then claim: one round trip and one commit. Raises psycopg.Error; then both may or may not have happened."""
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
    results = [await cursor.fetchall() for cursor in cursors]
    claimed = results.pop() if asks else []
    settled = {row[0] for rows in results for row in rows}
    jobs = [(JobSpec(*row[:11]), _claim(row)) for row in claimed]
    jobs.sort(key=lambda job: (job[1].ord, job[1].id))
    return Cycle(settled=settled, jobs=jobs)


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
    # As seconds from now, because the database's clock decides when they are over.
    now = time.time()
    return {
        "ids": [r.claim.id for r in releases],
        "epochs": [r.claim.epoch for r in releases],
        "attempts": [r.claim.attempt for r in releases],
        "failures": [r.failures for r in releases],
        "delays": [None if r.due_at is None else max(0.0, r.due_at - now) for r in releases],
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
