"""`scripts/bench soak`: thousands of refreshes through successive workers, and what each refresh leaks.

There are more devices than clients may be open, so every message closes a client and connects another: each is a refresh. The
library leaks with each of them; a worker that has done its share is drained and replaced, so that the node's memory and files
stay where they were.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchlib import pooler
from benchlib.processes import cost_of
from benchlib.results import machine
from benchlib.whatsapp_bench import Say, bed
from benchlib.whatsapp_fleet import Fleet, fleet, stocked

DEVICES: Final = 48
OPEN: Final = 8
LOOK_EVERY: Final = 1.0
ROUND_DEADLINE: Final = 300.0
RATE_UNPOOLED: Final = 15.0
"""Refreshes per second without PgBouncer, because PostgreSQL closes the connections of closed clients with a delay."""
MIB: Final = 1 << 20
LINES: Final = 24
"""The most rows of the table; JSON contains every sample."""


@dataclass(frozen=True)
class Look:
    """A sample of the worker."""

    seconds: float
    pid: int
    refreshes: int
    """Refreshes of the whole run."""
    own_refreshes: int
    """Refreshes of this worker."""
    rss: int
    fds: int
    threads: int


@dataclass(frozen=True)
class SoakResults:
    """The results."""

    looks: list[Look]
    budget: int
    """Refreshes after which a worker is replaced."""
    pooled: bool
    seconds: float
    doubled: int
    in_doubt: int

    def workers(self) -> list[list[Look]]:
        """The samples of each worker, in order."""
        by_pid: dict[int, list[Look]] = {}
        for look in self.looks:
            by_pid.setdefault(look.pid, []).append(look)
        return list(by_pid.values())

    def leak(self) -> tuple[float, float]:
        """Bytes and files leaked per refresh: the slope over the later part of each worker's life, the median of all workers."""
        slopes = []
        for looks in self.workers():
            grown = [look for look in looks if look.own_refreshes >= self.budget // 4]
            if len(grown) > 2 and (cycles := grown[-1].own_refreshes - grown[0].own_refreshes):
                slopes.append(((grown[-1].rss - grown[0].rss) / cycles, (grown[-1].fds - grown[0].fds) / cycles))
        if not slopes:
            return float("nan"), float("nan")
        return median(slope[0] for slope in slopes), median(slope[1] for slope in slopes)

    def plain(self) -> dict[str, Any]:
        """The results as JSON."""
        rss, fds = self.leak()
        return {
            "machine": machine(),
            "recycle_connects": self.budget,
            "pgbouncer": self.pooled,
            "seconds": self.seconds,
            "sent_twice": self.doubled,
            "in_doubt": self.in_doubt,
            "leak_per_refresh": {"bytes": rss, "fds": fds},
            "peaks": [{"rss": max(x.rss for x in looks), "fds": max(x.fds for x in looks)} for looks in self.workers()],
            "looks": [vars(look) for look in self.looks],
        }

    def show(self, console: Console) -> None:
        """Print the table."""
        table = Table(
            box=SIMPLE,
            title=f"One shard whose worker is replaced after {self.budget:,} refreshes; {OPEN} clients open at most",
            title_justify="left",
        )
        for title in ("s", "refreshes", "worker", "its refreshes", "memory, MiB", "fds", "threads"):
            table.add_column(title, justify="right")
        names = {looks[0].pid: number for number, looks in enumerate(self.workers(), 1)}
        every = max(1, len(self.looks) // LINES)
        for look in [*self.looks[:-1:every], self.looks[-1]]:
            table.add_row(
                f"{look.seconds:.0f}",
                f"{look.refreshes:,}",
                str(names[look.pid]),
                f"{look.own_refreshes:,}",
                f"{look.rss / MIB:.0f}",
                f"{look.fds:,}",
                str(look.threads),
            )
        console.print(table)
        peaks = [(max(x.rss for x in looks) / MIB, max(x.fds for x in looks)) for looks in self.workers()]
        rss, fds = self.leak()
        console.print(
            f"{self.looks[-1].refreshes:,} refreshes in {self.seconds:.0f} s, {len(peaks)} workers; "
            f"sent twice: {self.doubled}, in doubt: {self.in_doubt}",
            highlight=False,
        )
        console.print("most memory of each, MiB: " + ", ".join(f"{size:.0f}" for size, _ in peaks), highlight=False)
        console.print("most fds of each: " + ", ".join(f"{files:,}" for _, files in peaks), highlight=False)
        console.print(f"leak per refresh: {rss / 1024:.0f} KiB, {fds:.1f} fds", highlight=False)


async def run(*, refreshes: int, recycle: int, say: Say) -> SoakResults:
    """Run this many refreshes; a worker is replaced after `recycle`. Raises RuntimeError if a message is lost or fails."""
    is_pooled = pooler.PROGRAM is not None
    async with bed() as (cluster, server), stocked(cluster, "soak", DEVICES) as stock:
        worker = {"recycle": {"connects": recycle}}
        limits: dict[str, Any] = {"max_open_clients": OPEN}
        async with fleet(cluster, server, stock, shards=1, pgbouncer=is_pooled, worker=worker, **limits) as running:
            begun = time.monotonic()
            watch = _Watch(running, begun)
            watching = asyncio.create_task(watch.look())
            try:
                while watch.refreshes < refreshes:
                    await running.send(range(DEVICES), deadline=ROUND_DEADLINE)
                    say(f"{watch.refreshes:,} of {refreshes:,} refreshes")
                    if not is_pooled:
                        due = begun + running.inserted / RATE_UNPOOLED
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
                    if watching.done():
                        watching.result()
            finally:
                watching.cancel()
            states = await running.states()
            return SoakResults(
                looks=watch.looks,
                budget=recycle,
                pooled=is_pooled,
                seconds=time.monotonic() - begun,
                doubled=server.control.stats()["counts"]["messages"] - running.inserted,
                in_doubt=states.get("in_doubt", 0),
            )


class _Watch:
    """Samples the shard's current worker."""

    def __init__(self, running: Fleet, begun: float) -> None:
        self._fleet = running
        self._begun = begun
        self._before = 0
        """Refreshes of earlier workers."""
        self.looks: list[Look] = []

    @property
    def refreshes(self) -> int:
        """Done so far."""
        return self.looks[-1].refreshes if self.looks else 0

    async def look(self) -> None:
        while True:
            (shard,) = (await self._fleet.daemon.status())["shards"]
            if shard["pid"] and shard["connects"] is not None:
                last = self.looks[-1] if self.looks else None
                if last is not None and last.pid != shard["pid"]:
                    self._before = last.refreshes
                try:
                    cost = cost_of(shard["pid"])
                except (FileNotFoundError, ProcessLookupError):  # it is being replaced
                    continue
                seconds, own = time.monotonic() - self._begun, shard["connects"]
                look = Look(seconds, shard["pid"], self._before + own, own, cost.rss, cost.fds, cost.threads)
                self.looks.append(look)
            await asyncio.sleep(LOOK_EVERY)
