"""`scripts/bench dashboard`: how long each page takes with thousands of devices and a million jobs, and what an open page costs.

A real daemon with sandbox devices, on a database as it is after some months (`benchlib.dashboard_fill`). Every page
(`benchlib.dashboard_pages`) is asked for several times on one connection, in rounds through all of them: first while the daemon
idles, then while it sends. What an open page costs is the CPU that the dashboard's process, its database connections and the
supervisor use with so many open overviews, beside what they use with none.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from benchlib.cluster import Cluster, temporary_cluster
from benchlib.daemon import Daemon, running_daemon
from benchlib.dashboard_fill import Sizes, fill
from benchlib.dashboard_pages import Address, all_pages
from benchlib.dashboard_results import DashboardResults, OpenPages, Timing
from benchlib.dashboard_visitor import Visitor, visitor
from benchlib.processes import Usage, cost_of
from benchlib.watching import watching
from shardd.queue.api_tokens import PRODUCERS, ApiTokens, May
from shardd.queue.database import Database
from shardd.queue.migrate import migrate

SETTLE: Final = 10.0
"""Seconds after the start, and after pages were opened or closed, before anything counts."""
LOOK_EVERY: Final = 1.0
"""Seconds between looks at processes, which the pool of connections may replace."""
OVERVIEW: Final = "/"
IDLES, SENDS = "idles", "sends"
ADD_JOBS: Final = """
INSERT INTO shardd.jobs (device_id, recipient, body)
SELECT d.id, '+49151' || to_char(50000000 + (random() * 9000000)::integer, 'FM00000000'), 'Your parcel is here.'
  FROM (SELECT id FROM shardd.devices WHERE state = 'ready' AND paused_at IS NULL ORDER BY random() LIMIT %s) d
"""
SENT: Final = (
    "SELECT count(*) FROM shardd.archive WHERE state = 'sent' AND settled_at > now() - make_interval(secs => %s)"
)
OWN_BACKENDS: Final = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'shardd/%%/dashboard'"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """The size of the measurement."""

    sizes: Sizes
    rounds: int
    rate: int
    """Jobs a second while it sends."""
    watched: float
    """Seconds for which each number of open pages is watched."""
    open_pages: tuple[int, ...] = (0, 1, 10)


FULL: Final = Size(Sizes(devices=3000, finished=750_000, live=250_000), rounds=7, rate=100, watched=60.0)
QUICK: Final = Size(Sizes(devices=300, finished=60_000, live=20_000, opt_outs=2000), rounds=3, rate=50, watched=5.0)


async def run(size: Size, *, quick: bool, say: Say) -> DashboardResults:
    """Fill, measure and stop; `say` gets progress messages."""
    async with temporary_cluster() as cluster, cluster.database("dashboard") as dsn:
        began = time.monotonic()
        await migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            before = cost_of(connection.info.backend_pid).cpu
            await asyncio.to_thread(fill, connection, size.sizes)
            await asyncio.to_thread(connection.execute, "VACUUM (ANALYZE)")
            filled = time.monotonic() - began, cost_of(connection.info.backend_pid).cpu - before
            say(f"filled in {filled[0]:.0f} s with {filled[1]:.0f} s of CPU")
            cluster.settle_down()
            return await _measure(cluster, dsn, connection, size, filled, quick=quick, say=say)


async def _measure(
    cluster: Cluster,
    dsn: str,
    connection: psycopg.Connection[Any],
    size: Size,
    filled: tuple[float, float],
    *,
    quick: bool,
    say: Say,
) -> DashboardResults:
    config = {
        "database": {"dsn": dsn},
        "shards": 2,
        "pacing": {"gap_min": 0, "gap_max": 0, "hourly_limit": 0, "daily_limit": 0},
        "dashboard": {"listen": f"127.0.0.1:{_free_port()}"},
        "transports": {"whatsapp": {"default_region": "DE"}},
    }
    pages = list(all_pages(size.sizes))
    timings: dict[str, list[Timing]] = {}
    opened: list[OpenPages] = []
    with tempfile.TemporaryDirectory(prefix="shardd-bench-") as folder:
        async with (
            running_daemon(Path(folder), config) as daemon,
            visitor(daemon.socket, await _tokens(dsn)) as somebody,
        ):
            await daemon.until(lambda status: status["ready"])
            await asyncio.sleep(SETTLE if not quick else 1.0)
            timings[IDLES] = await _time(somebody, pages, size.rounds, lambda text: say(f"idle, {text}"))
            opened += await _open_pages(daemon, connection, somebody, size, sending=False, say=say)
            began = time.monotonic()
            async with _producing(dsn, size.rate):
                timings[SENDS] = await _time(somebody, pages, size.rounds, lambda text: say(f"sending, {text}"))
                opened += await _open_pages(daemon, connection, somebody, size, sending=True, say=say)
                sent = _sent(connection, time.monotonic() - began)
    return DashboardResults(size.sizes, *filled, size.rate, sent, timings, opened, cluster.settings(), quick)


async def _tokens(dsn: str) -> dict[str, str]:
    """Tokens by what they may."""
    made = {}
    async with Database(dsn) as database:
        for may, role in ((May.LOOK, None), (May.OPERATE, None), (May.SEND, PRODUCERS)):
            new = await ApiTokens(database).add(f"bench-{may}", may, role=role, created_by="bench", lives=None)
            assert new is not None
            made[may.value] = new.token
    return made


async def _time(somebody: Visitor, pages: Iterable[Address], rounds: int, say: Say) -> list[Timing]:
    """Each page once in each round, so that what else the machine does is spread over all of them."""
    times: dict[Address, list[float]] = {page: [] for page in pages}
    for number in range(1, rounds + 1):
        for page, found in times.items():
            found.append(await somebody.ask(page))
        say(f"round {number}/{rounds}")
    return [Timing(page, found) for page, found in times.items()]


async def _open_pages(
    daemon: Daemon, connection: psycopg.Connection[Any], somebody: Visitor, size: Size, *, sending: bool, say: Say
) -> list[OpenPages]:
    found = []
    for number in size.open_pages:
        async with somebody.streams(OVERVIEW, number):
            await asyncio.sleep(min(SETTLE, size.watched))
            used = Usage(), Usage(), Usage()

            async def look() -> None:
                pids = list(_dashboards(daemon)), _backends(connection), [daemon.process.pid]
                for usage, of in zip(used, pids, strict=True):  # noqa: B023  # called within this round
                    usage.look(of)

            async with watching(look, LOOK_EVERY):
                began = time.monotonic()
                await asyncio.sleep(size.watched)
                seconds = time.monotonic() - began
            found.append(OpenPages(number, sending, *(usage.cpu / seconds * 3600 for usage in used)))
        say(f"{number} open: {found[-1].together:,.1f} s of CPU in an hour")
    return found


@asynccontextmanager
async def _producing(dsn: str, rate: int) -> AsyncIterator[None]:
    """Somebody inserts so many jobs a second during the block."""

    async def insert() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as producer:
            next_at = time.monotonic()
            while True:
                await producer.execute(ADD_JOBS, (rate // 5,))
                next_at += 0.2
                await asyncio.sleep(max(0.0, next_at - time.monotonic()))

    task = asyncio.create_task(insert())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _sent(connection: psycopg.Connection[Any], seconds: float) -> float:
    row = connection.execute(SENT, (seconds,)).fetchone()
    assert row is not None
    return float(row[0]) / seconds


def _dashboards(daemon: Daemon) -> Iterator[int]:
    """The process of the page."""
    pid = daemon.process.pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"shardd.dashboard" in Path(f"/proc/{child}/cmdline").read_bytes():
            yield int(child)


def _backends(connection: psycopg.Connection[Any]) -> list[int]:
    return [row[0] for row in connection.execute(OWN_BACKENDS.replace("%%", "%"))]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
