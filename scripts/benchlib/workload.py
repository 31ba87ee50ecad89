"""The workload of every queue: no-op messages of many devices."""

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
"""About as long as a real message."""


@dataclass(frozen=True)
class Sizes:
    """The size of the measurement; each queue works for some seconds per round."""

    rounds: int
    shardd_jobs: int
    pgqueuer_jobs: int
    procrastinate_jobs: int
    sql_jobs: int
    """A multiple of DEVICES."""
    pick_ups: int
    """Jobs per round of pick-up latency."""
    small_archive: int
    large_archive: int
    """Numbers of finished rows for which the cost of claiming and settling is measured."""
    batches: int
    """Claims and settlements per round."""


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
    """The id of the device that sends job `number`."""
    return f"bench-{number % DEVICES:04d}"


def recipient(number: int) -> str:
    """The recipient of job `number`, and only of that."""
    return f"+49151{number:08d}"


def message(number: int) -> dict[str, Any]:
    """Job `number` as arguments of a function, for the other queues."""
    return {"number": number, "device": device(number), "recipient": recipient(number), "body": BODY}


async def insert_singly(
    dsn: str, statement: LiteralString, parameters: Callable[[int], tuple[str, ...]], jobs: int
) -> dict[int, float]:
    """Insert jobs one by one, with pauses in which the queue becomes idle; returns the POSIX time of each INSERT.

    The sending, and not the commit: under load a handler runs before the producer learns that it has committed.
    """
    sent: dict[int, float] = {}
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as producer:
        for number in range(jobs):
            await asyncio.sleep(random.uniform(0.02, 0.06))
            sent[number] = time.time()
            await producer.execute(statement, parameters(number))
    return sent
