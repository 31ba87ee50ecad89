"""The work that every queue gets: no-op messages of many devices, and how much of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg

DEVICES: Final = 1000
BODY: Final = (
    "Dear customer, your parcel has left our warehouse and reaches you on Thursday between 9 and 12. " + "-" * 60
)
"""About the length of a real message; every queue carries it."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured. Jobs are chosen such that each queue works for some seconds a round."""

    rounds: int
    shardd_jobs: int
    pgqueuer_jobs: int
    procrastinate_jobs: int
    sql_jobs: int
    """A multiple of DEVICES."""
    pick_ups: int
    """Jobs of a round of pick-up latency."""
    small_archive: int
    large_archive: int
    """Finished rows beside which the cost of claiming and settling is measured."""
    batches: int
    """Claims, and settles, of a round of that."""


FULL: Final = Sizes(
    rounds=5,
    shardd_jobs=60_000,
    pgqueuer_jobs=40_000,
    procrastinate_jobs=2_000,
    sql_jobs=100_000,
    pick_ups=200,
    small_archive=10_000,
    large_archive=2_000_000,
    batches=20,
)
QUICK: Final = Sizes(
    rounds=1,
    shardd_jobs=10_000,
    pgqueuer_jobs=8_000,
    procrastinate_jobs=400,
    sql_jobs=20_000,
    pick_ups=40,
    small_archive=10_000,
    large_archive=100_000,
    batches=5,
)


def device(number: int) -> str:
    """Id of the device that sends job `number`."""
    return f"bench-{number % DEVICES:04d}"


def recipient(number: int) -> str:
    """Whom job `number` is for: nobody else's."""
    return f"+49151{number:08d}"


def message(number: int) -> dict[str, Any]:
    """Job `number` for a queue whose jobs are arguments of a function."""
    return {"number": number, "device": device(number), "recipient": recipient(number), "body": BODY}


async def insert_singly(
    dsn: str, statement: LiteralString, parameters: Callable[[int], tuple[str, ...]], jobs: int
) -> dict[int, float]:
    """Insert jobs one by one, with pauses that let the queue come to rest: the POSIX time at which each INSERT was sent.

    The sending, and not the commit: under load a handler runs before the producer learns that it has committed.
    """
    sent: dict[int, float] = {}
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as producer:
        for number in range(jobs):
            await asyncio.sleep(random.uniform(0.02, 0.06))
            sent[number] = time.time()
            await producer.execute(statement, parameters(number))
    return sent
