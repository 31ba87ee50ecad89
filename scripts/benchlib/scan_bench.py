"""`scripts/bench scan`: the cost of looking for work, by the number of lanes and of live jobs.

find_work: a scan of all lanes, as every node does every few seconds. find_lanes: one device's lanes. claims: a pass through all
live jobs for claims that do not move on. depth: the count of the queue. The first two should follow the number of lanes, the
others that of jobs.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import uuid4

import psycopg
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchlib.cluster import Cluster, temporary_cluster
from benchlib.results import Spread, machine
from benchlib.workload import BODY
from shardd.queue.database import Database
from shardd.queue.jobs import Counts, Jobs
from shardd.queue.migrate import migrate
from shardd.supervisor.scheduling.device_queue import MOST_LANES
from shardd.supervisor.scheduling.work_poller import PAGE

LANES: Final = (1_000, 10_000, 100_000)
LANES_PER_DEVICE: Final = 10
CLAIMS: Final = 100
"""Claims that do not move on."""
STEP: Final = 1_000_000
"""Jobs per INSERT."""
INDEXES: Final = (
    "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
    "WHERE indrelid = 'shardd.jobs'::regclass AND NOT indisunique"
)
MEASURED: Final = {
    "find_work": "scan of all lanes, ms",
    "find_lanes": "one device's lanes, ms",
    "claims": "pass for old claims, ms",
    "page": "its longest page, ms",
    "depth": "count of the queue, ms",
}


@dataclass(frozen=True)
class ScanResults:
    """Milliseconds: (lanes, jobs) → what → rounds."""

    costs: dict[tuple[int, int], dict[str, Spread]]

    def plain(self) -> dict[str, Any]:
        """The results as JSON."""
        costs = [
            {"lanes": lanes, "jobs": jobs, **{what: spread.plain() for what, spread in of.items()}}
            for (lanes, jobs), of in self.costs.items()
        ]
        return {"machine": machine(), "costs_ms": costs}

    def show(self, console: Console) -> None:
        """Print a table; each cost also as a multiple of that of the row before."""
        here = machine()
        console.print(f"{here['cores']} cores, {here['cpu']}, load {here['load']:.1f}", highlight=False)
        table = Table(box=SIMPLE, title="Median of rounds, and as a multiple of the row above", title_justify="left")
        for title in ("lanes", "live jobs", *MEASURED.values()):
            table.add_column(title, justify="right")
        before: dict[str, Spread] | None = None
        for (lanes, jobs), costs in self.costs.items():
            cells = [
                f"{costs[what].median:,.1f}" + ("" if before is None else f"  x {costs[what].over(before[what]):.2f}")
                for what in MEASURED
            ]
            table.add_row(f"{lanes:,}", f"{jobs:,}", *cells)
            before = costs
        console.print(table)


async def run(*, jobs: int, rounds: int, say: Callable[[str], None]) -> ScanResults:
    """Measure each number of lanes with `jobs` jobs, and the smallest with a tenth of them; interleaved."""
    cases = [(LANES[0], jobs // 10), *((lanes, jobs) for lanes in LANES)]
    found: dict[tuple[int, int], dict[str, list[float]]] = {case: {what: [] for what in MEASURED} for case in cases}
    async with temporary_cluster() as cluster, AsyncExitStack() as stack:
        beds = []
        for lanes, live in cases:
            say(f"{live:,} jobs in {lanes:,} lanes")
            dsn = await stack.enter_async_context(cluster.database(f"scan_{lanes}_{live}"))
            await migrate(dsn)
            fill(cluster, dsn, lanes, live)
            beds.append(((lanes, live), await stack.enter_async_context(Bed(dsn))))
        for number in range(1, rounds + 1):
            for case, bed in beds:
                costs = await bed.measure(case[0])
                for what, cost in costs.items():
                    found[case][what].append(cost)
                values = ", ".join(f"{MEASURED[what]} {cost:,.1f}" for what, cost in costs.items())
                say(f"round {number}/{rounds}, {case[0]:,} lanes, {case[1]:,} jobs: {values}")
    return ScanResults({case: {what: Spread(costs) for what, costs in of.items()} for case, of in found.items()})


class Bed(AsyncExitStack):
    """A database with jobs, and the connections of a daemon."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._dsn = dsn

    async def __aenter__(self) -> Self:
        queue = await self.enter_async_context(Database(self._dsn, index_plans=True))
        general = await self.enter_async_context(Database(self._dsn))
        self._jobs, self._counts = Jobs(queue), Counts(general)
        self._old = Jobs(general).old_claims(5.0, uuid4())
        return self

    async def measure(self, lanes: int) -> dict[str, float]:
        """Milliseconds of each."""
        costs = {
            "find_work": await _took(self._find_work(lanes)),
            "find_lanes": await _took(self._jobs.find_lanes(_device(0), "", LANES_PER_DEVICE + 1)),
            "depth": await _took(self._counts.depth()),
        }
        pages: list[float] = []
        while True:
            began = time.perf_counter()
            page = await self._old.page()
            pages.append((time.perf_counter() - began) * 1000)
            if page is None:
                return costs | {"claims": sum(pages), "page": max(pages)}
            self._old.advance()

    async def _find_work(self, lanes: int) -> None:
        found = 0
        async for hints in self._jobs.find_work(MOST_LANES, PAGE):
            found += len(hints)
        # A lane may have none but claimed jobs.
        assert lanes - CLAIMS <= found <= lanes, f"{found} of {lanes} lanes were found"


async def _took(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1000


def _device(number: int) -> str:
    return f"bench-{number:06d}"


def fill(cluster: Cluster, dsn: str, lanes: int, jobs: int) -> None:
    """Insert jobs as they are after their admission, each lane's spread over the whole table."""
    devices = lanes // LANES_PER_DEVICE
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO shardd.devices (id, transport) SELECT 'bench-' || to_char(n, 'FM000000'), 'sandbox' "
            "FROM generate_series(0, %s) n",
            (devices - 1,),
        )
        connection.execute(
            "INSERT INTO shardd.campaigns (id) SELECT 'c' || n FROM generate_series(0, %s) n", (LANES_PER_DEVICE - 1,)
        )
        connection.execute(
            "INSERT INTO shardd.epochs (shard, node, incarnation) VALUES (0, 'bench', gen_random_uuid())"
        )
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    with cluster.connect(str(name)) as connection:
        connection.execute("SET session_replication_role = replica")  # no triggers: they are not what is measured
        connection.execute("SET maintenance_work_mem = '1GB'")
        # To grow the indexes row by row takes ten times as long as to build them at the end.
        indexes = connection.execute(INDEXES).fetchall()
        for index, _ in indexes:
            connection.execute(f"DROP INDEX {index}")
        for first in range(0, jobs, STEP):
            connection.execute(
                "INSERT INTO shardd.jobs (device_id, campaign, recipient, address, body) "
                "SELECT 'bench-' || to_char(n %% %s, 'FM000000'), 'c' || n / %s %% %s, '+49151' || to_char(n, 'FM00000000'), "
                "'49151' || to_char(n, 'FM00000000'), %s FROM generate_series(%s::bigint, %s) n",
                (devices, devices, LANES_PER_DEVICE, BODY, first, min(first + STEP, jobs) - 1),
            )
        for _, definition in indexes:
            connection.execute(definition)
        connection.execute(
            "UPDATE shardd.jobs SET attempt = 1, claimed_epoch = 1, claimed_at = now() - interval '1 hour' "
            "WHERE id IN (SELECT id FROM shardd.jobs ORDER BY id LIMIT %s)",
            (CLAIMS,),
        )
        connection.execute("VACUUM (ANALYZE) shardd.jobs")
