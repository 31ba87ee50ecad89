"""The queues that shardd is compared with: procrastinate and PgQueuer, each through its own API and workers.

Both get what helps them: no lock that would keep the jobs of a device in order (shardd keeps it), uvloop, the number of
processes that is best for them on the machine where this was written, and PgQueuer the settings of autovacuum that it recommends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import procrastinate
import psycopg
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from benchlib.cluster import Cluster
from benchlib.peer_worker import procrastinate_app
from benchlib.workload import insert_singly, message

DEADLINE: Final = 120.0
"""Seconds after which any step fails."""
ENQUEUE_BATCH: Final = 1000
"""Jobs per call while the queue is filled, which is not measured."""


class Peer(ABC):
    """Another queue in its own database."""

    name: ClassVar[str]
    processes: ClassVar[int]
    """Number of worker processes."""
    ended: ClassVar[str]
    """Query for the POSIX time of the last settlement and the number of successful jobs."""
    insert: ClassVar[str]
    """Statement that adds one job with the JSON parameter as its message; the queue's triggers then run."""

    @abstractmethod
    def producer(self, dsn: str) -> contextlib.AbstractAsyncContextManager[Producer]:
        """Create the schema and connect a producer."""

    async def drain(self, cluster: Cluster, jobs: int) -> float:
        """Jobs per second, from the start signal to the commit that settles the last job."""
        async with cluster.database(f"{self.name}_drain") as dsn, self.producer(dsn) as producer:
            for first in range(0, jobs, ENQUEUE_BATCH):
                await producer.add([message(n) for n in range(first, min(first + ENQUEUE_BATCH, jobs))])
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("VACUUM (ANALYZE)")
                async with self._workers(dsn, "drain", self.processes) as workers:
                    cluster.settle_down()
                    began = time.time()
                    for worker in workers:
                        _tell(worker)
                    async with asyncio.timeout(DEADLINE):
                        await asyncio.gather(*[worker.wait() for worker in workers])
                row = connection.execute(self.ended).fetchone()
        assert row is not None
        assert row[1] == jobs, f"{self.name}: {jobs - row[1]} of {jobs} jobs were not done"
        return jobs / (float(row[0]) - began)

    async def pick_up(self, cluster: Cluster, jobs: int) -> list[float]:
        """Seconds from INSERT to the call of the handler, for single jobs on an idle worker."""
        async with (
            cluster.database(f"{self.name}_pick_up") as dsn,
            self.producer(dsn),
            self._workers(dsn, "listen", 1) as (worker,),
        ):
            # Ready means connected; the worker starts to listen slightly later.
            await asyncio.sleep(1.0)
            sent = await insert_singly(dsn, self.insert, lambda number: (json.dumps(message(number)),), jobs)
            await asyncio.sleep(1.0)
            _tell(worker)
            assert worker.stdout is not None
            async with asyncio.timeout(DEADLINE):
                handled = {int(n): at for n, at in json.loads(await worker.stdout.readline()).items()}
        assert handled.keys() == sent.keys(), f"{self.name}: {len(sent) - len(handled)} jobs were not done"
        return [handled[number] - sent[number] for number in handled]

    @asynccontextmanager
    async def _workers(self, dsn: str, mode: str, count: int) -> AsyncIterator[list[asyncio.subprocess.Process]]:
        workers: list[asyncio.subprocess.Process] = []
        try:
            for _ in range(count):
                worker = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "benchlib.peer_worker", self.name, dsn, mode,
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent,
                )  # fmt: skip
                workers.append(worker)
            async with asyncio.timeout(DEADLINE):
                for worker in workers:
                    assert worker.stdout is not None
                    if await worker.stdout.readline() != b"ready\n":
                        raise RuntimeError(f"a worker of {self.name} did not start; see above")
            yield workers
        finally:
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    worker.kill()
                await worker.wait()


class Producer(ABC):
    """Adds jobs through the queue's own API."""

    @abstractmethod
    async def add(self, messages: list[dict[str, Any]]) -> None:
        """Add these jobs and commit."""


class Procrastinate(Peer):
    """procrastinate with psycopg and concurrent asynchronous tasks."""

    name = "procrastinate"
    processes = 2
    ended = "SELECT extract(epoch FROM max(at))::float8, count(*) FROM procrastinate_events WHERE type = 'succeeded'"
    insert = "INSERT INTO procrastinate_jobs (queue_name, task_name, args) VALUES ('default', 'send', %s)"

    @asynccontextmanager
    async def producer(self, dsn: str) -> AsyncIterator[Producer]:
        """See Peer."""
        app = procrastinate_app(dsn)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            yield _ProcrastinateProducer(app)


class _ProcrastinateProducer(Producer):
    def __init__(self, app: procrastinate.App) -> None:
        self._task = app.tasks["send"]

    async def add(self, messages: list[dict[str, Any]]) -> None:
        await self._task.batch_defer_async(*messages)


class PgQueuer(Peer):
    """PgQueuer with asyncpg; one connection per worker, as its documentation recommends."""

    name = "pgqueuer"
    processes = 2
    ended = "SELECT extract(epoch FROM max(created))::float8, count(*) FROM pgqueuer_log WHERE status = 'successful'"
    insert = "INSERT INTO pgqueuer (priority, entrypoint, payload, status) VALUES (0, 'send', convert_to(%s, 'UTF8'), 'queued')"

    @asynccontextmanager
    async def producer(self, dsn: str) -> AsyncIterator[Producer]:
        """See Peer."""
        connection = await asyncpg.connect(dsn)
        queries = Queries(AsyncpgDriver(connection))
        await queries.install()
        await queries.optimize_autovacuum()
        try:
            yield _PgQueuerProducer(queries)
        finally:
            await connection.close()


class _PgQueuerProducer(Producer):
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def add(self, messages: list[dict[str, Any]]) -> None:
        payloads: list[bytes | None] = [json.dumps(m).encode() for m in messages]
        await self._queries.enqueue(["send"] * len(messages), payloads, [0] * len(messages))


def _tell(worker: asyncio.subprocess.Process) -> None:
    assert worker.stdin is not None
    worker.stdin.write(b"go\n")
