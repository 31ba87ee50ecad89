"""The cost of claiming and settling with few and with many finished rows."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import AsyncExitStack
from statistics import median
from typing import Any, Final

import psycopg

from benchlib.cluster import Cluster
from benchlib.shardd_queue import insert_devices, insert_jobs
from benchlib.workload import BODY, DEVICES, Sizes, device
from shardd.queue.cycle import Settlement
from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from shardd.queue.migrate import migrate
from shardd.queue.records import ClaimRequest, Position
from shardd.queue.settle import Finish
from shardd.states import JobState

BATCH: Final = 500
STEP: Final = 100_000
"""Rows per INSERT into the archive."""
FIRST: Final[Position] = (-(2**63), 0)

Costs = dict[str, dict[int, list[float]]]
"""`claim` and `settle` → finished rows → milliseconds per BATCH jobs, the median of each round."""


async def measure(cluster: Cluster, sizes: Sizes) -> Costs:
    """Both archives exist from the start; rounds alternate between them."""
    costs: Costs = {"claim": defaultdict(list), "settle": defaultdict(list)}
    async with AsyncExitStack() as stack:
        beds = []
        for finished in (sizes.small_archive, sizes.large_archive):
            dsn = await stack.enter_async_context(cluster.database(f"archive_{finished}"))
            await migrate(dsn)
            connection = stack.enter_context(psycopg.connect(dsn, autocommit=True))
            _prepare(connection, finished)
            database = await stack.enter_async_context(Database(dsn))
            beds.append((finished, connection, Jobs(database)))
        for _ in range(sizes.rounds):
            for finished, connection, jobs in beds:
                insert_jobs(connection, sizes.batches * BATCH)
                cluster.settle_down()
                claims, settles = await _round(jobs, sizes.batches)
                costs["claim"][finished].append(median(claims))
                costs["settle"][finished].append(median(settles))
                connection.execute(
                    "DELETE FROM shardd.archive WHERE id IN (SELECT id FROM shardd.archive ORDER BY id DESC LIMIT %s)",
                    (sizes.batches * BATCH,),
                )
    return costs


async def _round(jobs: Jobs, batches: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each claim and of each settle."""
    claims, settles = [], []
    for batch in range(batches):
        first = batch * BATCH % DEVICES
        asks = [ClaimRequest(device(n), "/marketing", 1, FIRST, 1) for n in range(first, first + BATCH)]
        began = time.perf_counter()
        cycle = await jobs.cycle(Settlement(), asks)
        claimed = time.perf_counter()
        assert len(cycle.claimed) == BATCH, f"{len(cycle.claimed)} of {BATCH} jobs were claimed"
        finishes = [Finish(t.claim, JobState.SENT, 0, f"sandbox-{t.claim.id}-1", None) for t in cycle.claimed]
        settling = time.perf_counter()
        await jobs.cycle(Settlement(finishes=finishes), [])
        settles.append((time.perf_counter() - settling) * 1000)
        claims.append((claimed - began) * 1000)
    return claims, settles


def _prepare(connection: psycopg.Connection[Any], finished: int) -> None:
    """Insert devices, a lease, and an archive of finished jobs."""
    insert_devices(connection)
    connection.execute("INSERT INTO shardd.epochs (shard, node, incarnation) VALUES (0, 'bench', gen_random_uuid())")
    connection.execute("INSERT INTO shardd.leases VALUES (0, 1, 'bench', now() + interval '1 hour')")
    for first in range(1, finished + 1, STEP):
        connection.execute(
            "INSERT INTO shardd.archive (id, device_id, recipient, kind, body, priority, run_at, max_attempts, on_doubt, "
            "created_at, producer, token, attempt, failures, claimed_epoch, claimed_at, state, message_id, class, rendered, "
            "confirms, address) "
            "SELECT n, 'bench-' || to_char(n %% %s, 'FM0000'), '+49151' || to_char(n, 'FM00000000'), 'text', %s, 0, now(), 5, "
            "'hold', now(), '', n, 1, 0, 1, now(), 'sent', 'sandbox-' || n || '-1', 'marketing', false, false, "
            "'49151' || to_char(n, 'FM00000000') FROM generate_series(%s::bigint, %s) n",
            (DEVICES, BODY, first, min(first + STEP - 1, finished)),
        )
    connection.execute("SELECT setval(pg_get_serial_sequence('shardd.jobs', 'id'), %s)", (finished,))
    connection.execute("VACUUM (ANALYZE) shardd.archive")
