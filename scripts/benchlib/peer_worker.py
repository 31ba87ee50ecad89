"""A worker process of another queue: `python -m benchlib.peer_worker QUEUE DSN MODE`.

It says `ready` when it is connected and waits for a line on stdin. In mode `drain` it then works until the queue is empty and
exits. In mode `listen` it worked from the start; it exits at that line and prints a JSON object: the number of each job and
the POSIX time at which its handler ran.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pgqueuer
import procrastinate
import uvloop
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.types import QueueExecutionMode

CONCURRENCY: Final = 30
"""Concurrent jobs of a procrastinate worker; between 10 and 100 its rate hardly changes."""
BATCH: Final = 100
"""Batch size of a PgQueuer worker; its default of 10 is slower, and 500 is not faster."""

Handled = Callable[[int], None]
Work = Callable[[bool], Awaitable[None]]
"""Works until the queue is empty (True), or until cancelled."""


def procrastinate_app(dsn: str, handled: Handled = lambda _: None) -> procrastinate.App:
    """The app, whose only task does nothing."""
    # One connection for each job at the same time would be more than the pool's default of four.
    connector = procrastinate.PsycopgConnector(conninfo=dsn, min_size=4, max_size=10)
    app = procrastinate.App(connector=connector)

    @app.task(name="send")
    async def send(number: int, device: str, recipient: str, body: str) -> None:  # noqa: ARG001  # a job carries a message
        handled(number)

    return app


@asynccontextmanager
async def _procrastinate(dsn: str, handled: Handled) -> AsyncIterator[Work]:
    app = procrastinate_app(dsn, handled)

    async def work(drain: bool) -> None:
        await app.run_worker_async(concurrency=CONCURRENCY, wait=not drain, install_signal_handlers=False)

    async with app.open_async():
        yield work


@asynccontextmanager
async def _pgqueuer(dsn: str, handled: Handled) -> AsyncIterator[Work]:
    connection = await asyncpg.connect(dsn)
    queue = pgqueuer.PgQueuer(AsyncpgDriver(connection))

    @queue.entrypoint("send")
    async def send(job: Job) -> None:
        assert job.payload is not None
        handled(json.loads(job.payload)["number"])

    async def work(drain: bool) -> None:
        mode = QueueExecutionMode.drain if drain else QueueExecutionMode.continuous
        await queue.run(batch_size=BATCH, mode=mode)

    try:
        yield work
    finally:
        await connection.close()


async def _line() -> str:
    """Wait for the next line from the benchmark, or for its end."""
    return await asyncio.to_thread(sys.stdin.readline)


async def _main(queue: str, dsn: str, mode: str) -> None:
    times: dict[int, float] = {}

    def handled(number: int) -> None:
        times[number] = time.time()

    async with {"procrastinate": _procrastinate, "pgqueuer": _pgqueuer}[queue](dsn, handled) as work:
        if mode == "drain":
            print("ready", flush=True)
            await _line()
            await work(True)
            return
        working = asyncio.ensure_future(work(False))
        print("ready", flush=True)
        await _line()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
    print(json.dumps(times), flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    uvloop.run(_main(*sys.argv[1:4]))
