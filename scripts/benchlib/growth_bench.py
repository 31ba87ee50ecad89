"""`scripts/bench growth`: what idle devices cost on one host.

A daemon with so many sandbox devices that have nothing to send: the time of its start until it is ready, the memory of the
supervisor, its CPU and PostgreSQL's while nothing happens, and how soon a message of one of them is claimed. What grows faster
than the devices shows in the last column.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import psycopg
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchlib.cluster import Cluster, temporary_cluster
from benchlib.daemon import DEADLINE, running_daemon
from benchlib.processes import Usage
from benchlib.results import machine
from benchlib.whatsapp_results import MIB
from shardd.queue.migrate import migrate

SHARDS: Final = 2
MESSAGES: Final = 20
SETTLE: Final = 10.0
"""Seconds after the start before it counts as idle."""
ADD_DEVICES: Final = (
    "INSERT INTO shardd.devices (id, transport) SELECT 'device-' || n, 'sandbox' FROM generate_series(1, %s) n"
)
ADD_JOB: Final = (
    "INSERT INTO shardd.jobs (device_id, recipient, body) SELECT 'device-' || %s, '+4915112345678', 'x' RETURNING id"
)
CLAIMED: Final = "SELECT extract(epoch FROM claimed_at - created_at) FROM shardd.archive WHERE id = %s"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Idle:
    """What one number of devices costs."""

    devices: int
    start: float
    """Seconds until the daemon is ready."""
    supervisor_cpu: float
    """Seconds per hour."""
    workers_cpu: float
    """Seconds per hour, of all workers."""
    postgres_cpu: float
    """Seconds per hour, of the daemon's connections."""
    memory: int
    """Bytes of the supervisor."""
    workers_memory: int
    """Bytes of all workers."""
    pick_up: float
    """Milliseconds from insert to claim, p50."""


ROWS: Final[Sequence[tuple[str, Callable[[Idle], float], int]]] = (
    ("start until ready, s", lambda idle: idle.start, 1),
    ("supervisor, CPU in % of a core", lambda idle: idle.supervisor_cpu / 36, 2),
    ("workers, CPU in % of a core", lambda idle: idle.workers_cpu / 36, 2),
    ("PostgreSQL, CPU in % of a core", lambda idle: idle.postgres_cpu / 36, 2),
    ("supervisor, memory in MiB", lambda idle: idle.memory / MIB, 0),
    (f"{SHARDS} workers, memory in MiB", lambda idle: idle.workers_memory / MIB, 0),
    ("insert to claim of one message, p50 in ms", lambda idle: idle.pick_up, 1),
)


@dataclass(frozen=True)
class GrowthResults:
    """By number of devices."""

    sizes: list[Idle]
    seconds: float

    def plain(self) -> dict[str, Any]:
        """The results as JSON."""
        return {"seconds": self.seconds, "sizes": [asdict(size) for size in self.sizes], "machine": machine()}

    def show(self, console: Console) -> None:
        """As a table."""
        title = f"Idle sandbox devices on one host, {SHARDS} workers, {self.seconds:g} s each"
        last = f"{self.sizes[-1].devices / self.sizes[0].devices:.1f} times the devices"
        table = Table("", *(f"{size.devices:,}" for size in self.sizes), last, box=SIMPLE, title=title)
        for text, value, digits in ROWS:
            values = [value(size) for size in self.sizes]
            growth = f"{values[-1] / values[0]:.1f} times" if values[0] else ""
            table.add_row(text, *(f"{each:,.{digits}f}" for each in values), growth)
        console.print(table)


async def run(*, sizes: Sequence[int], seconds: float, say: Say) -> GrowthResults:
    """`seconds`: how long each number of devices is watched."""
    results = []
    async with temporary_cluster() as cluster:
        for devices in sorted(sizes):
            async with cluster.database(f"growth_{devices}") as dsn:
                results.append(await _measure(cluster, dsn, devices, seconds))
            for text, value, digits in ROWS:
                say(f"{devices:,} devices: {text}: {value(results[-1]):,.{digits}f}")
    return GrowthResults(results, seconds)


async def _measure(cluster: Cluster, dsn: str, devices: int, seconds: float) -> Idle:
    await migrate(dsn)
    with (
        psycopg.connect(dsn, autocommit=True) as connection,
        tempfile.TemporaryDirectory(prefix="shardd-bench-") as folder,
    ):
        connection.execute(ADD_DEVICES, (devices,))
        connection.execute("ANALYZE")
        cluster.settle_down()
        begin = time.monotonic()
        async with running_daemon(Path(folder), {"database": {"dsn": dsn}, "shards": SHARDS}) as daemon:
            await daemon.until(lambda status: status["ready"])
            start = time.monotonic() - begin
            await asyncio.sleep(SETTLE)
            processes = ([daemon.process.pid], await daemon.workers(), list(_backends(connection)))
            used = [(Usage(), pids) for pids in processes]
            for usage, pids in used:
                usage.look(pids)
            await asyncio.sleep(seconds)
            for usage, pids in used:
                usage.look(pids)
            hour = [usage.cpu / seconds * 3600 for usage, _ in used]
            memory = [usage.peak for usage, _ in used[:2]]
            return Idle(devices, start, *hour, *memory, await _pick_up(connection, devices))


def _backends(connection: psycopg.Connection[Any]) -> Iterator[int]:
    """The server's processes of the daemon's connections."""
    for row in connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ):
        yield row[0]


async def _pick_up(connection: psycopg.Connection[Any], devices: int) -> float:
    times = []
    for number in range(1, MESSAGES + 1):
        job = connection.execute(ADD_JOB, (number * devices // MESSAGES,)).fetchone()
        # Asked of the database alone: a status would take the supervisor's time while it is measured.
        async with asyncio.timeout(DEADLINE):
            while (row := connection.execute(CLAIMED, job).fetchone()) is None:  # noqa: ASYNC110  # another process's work
                await asyncio.sleep(0.02)
        times.append(float(row[0]) * 1000)
    return median(times)
