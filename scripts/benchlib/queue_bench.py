"""`scripts/bench queue`: shardd's queue compared with others, on one PostgreSQL, in interleaved rounds of one run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace

from benchlib import archive_cost, shardd_queue, sql_limit
from benchlib.cluster import Cluster, temporary_cluster
from benchlib.peers import PgQueuer, Procrastinate
from benchlib.results import Results, Spread, percentile
from benchlib.workload import FULL, QUICK, Sizes

Say = Callable[[str], None]


async def run(*, quick: bool, finished: int | None, say: Say) -> Results:
    """Run all measurements; `finished`: rows of the larger archive, if not as usual; `say` gets progress messages."""
    sizes = QUICK if quick else FULL
    if finished is not None:
        sizes = replace(sizes, large_archive=finished)
    async with temporary_cluster() as cluster:
        drain, pick_up = await _rounds(cluster, sizes, say)
        say(f"claim and settle beside {sizes.small_archive:,} and {sizes.large_archive:,} finished rows")
        cost = await archive_cost.measure(cluster, sizes)
        return Results(
            drain={name: Spread(rates) for name, rates in drain.items()},
            jobs={name: jobs for name, (_, jobs) in _drains(sizes).items()},
            pick_up={
                name: {p: Spread([_percentile(times, p) for times in rounds]) for p in ("p50", "p99")}
                for name, rounds in pick_up.items()
            },
            cost={what: {n: Spread(times) for n, times in by_rows.items()} for what, by_rows in cost.items()},
            server=cluster.settings(),
            quick=quick,
        )


async def _rounds(
    cluster: Cluster, sizes: Sizes, say: Say
) -> tuple[dict[str, list[float]], dict[str, list[list[float]]]]:
    drain: dict[str, list[float]] = defaultdict(list)
    pick_up: dict[str, list[list[float]]] = defaultdict(list)
    for number in range(1, sizes.rounds + 1):
        for name, (measure, jobs) in _drains(sizes).items():
            rate = await measure(cluster, jobs)
            if rate is None:
                say("no pgbench beside the server nor in PATH: the bare SQL limit is left out")
                continue
            drain[name].append(rate)
            say(f"round {number}/{sizes.rounds}: {name}: {rate:,.0f} jobs/s")
        for name, listen in _PICK_UPS.items():
            times = await listen(cluster, sizes.pick_ups)
            pick_up[name].append(times)
            say(f"round {number}/{sizes.rounds}: {name}: idle pick-up p50 {_percentile(times, 'p50'):.1f} ms")
    return drain, pick_up


_PICK_UPS: dict[str, Callable[[Cluster, int], Awaitable[list[float]]]] = {
    "shardd": shardd_queue.pick_up,
    "pgqueuer": PgQueuer().pick_up,
    "procrastinate": Procrastinate().pick_up,
}


def _drains(sizes: Sizes) -> dict[str, tuple[Callable[[Cluster, int], Awaitable[float | None]], int]]:
    """The drain function and the number of jobs of each queue."""
    return {
        "shardd": (shardd_queue.drain, sizes.shardd_jobs),
        "pgqueuer": (PgQueuer().drain, sizes.pgqueuer_jobs),
        "procrastinate": (Procrastinate().drain, sizes.procrastinate_jobs),
        "sql": (sql_limit.drain, sizes.sql_jobs),
    }


def _percentile(times: list[float], which: str) -> float:
    """Milliseconds."""
    return percentile(times, {"p50": 0.50, "p99": 0.99}[which]) * 1000
