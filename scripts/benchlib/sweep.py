"""The sweep: thousands of devices, one message each, every client cold, through one node of many shards."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from benchlib.cluster import Cluster
from benchlib.connections import watched
from benchlib.processes import cost_of
from benchlib.whatsapp_fleet import Fleet, fleet, stocked
from tests.whatsapp_server.launch import ServerProcess

SHARDS: Final = 8
DEADLINE: Final = 900.0
LOOK_EVERY: Final = 0.5


@dataclass(frozen=True)
class Sweep:
    """What it came to."""

    devices: int
    pgbouncer: bool
    seconds: float
    """From the commit of the jobs to the commit that settles the last one."""
    sent_by_second: list[int]
    tries: int
    """Sends that had to be tried again."""
    doubled: int
    """Messages that a person would see twice."""
    worker_cpu: float
    """Milliseconds for each device: all workers."""
    rss_of_workers: int
    """Bytes, all workers, the most that was seen."""
    largest_worker: int
    """Bytes."""
    open_clients: int
    """The most that was seen, all workers."""
    connections: int
    """Of the whole server, the most that was seen."""
    server_cpu: float
    """Seconds that the test server took, which shares the machine."""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


async def sweep(cluster: Cluster, server: ServerProcess, *, devices: int, pgbouncer: bool) -> Sweep:
    """Raises RuntimeError unless every message was sent, and WhatsApp got each of them once."""
    server.control.start_over()
    async with (
        stocked(cluster, "sweep", devices) as stock,
        watched(cluster.dsn("postgres", "postgres")) as peak,
        fleet(cluster, server, stock, shards=SHARDS, pgbouncer=pgbouncer) as running,
    ):
        pids = await running.daemon.workers()
        cpu_before = sum(cost_of(pid).cpu for pid in pids)
        server_before = server.control.stats()["cpu"]
        sizes = _Sizes(running, pids)
        looking = asyncio.create_task(sizes.look())
        begun = time.monotonic()
        try:
            await running.send(range(devices), deadline=DEADLINE)
        finally:
            looking.cancel()
        seconds = time.monotonic() - begun
        stats = server.control.stats()
        accepted = stats["counts"]["messages"]
        if accepted != devices:
            raise RuntimeError(f"WhatsApp got {accepted} messages for {devices} jobs")
        return Sweep(
            devices=devices,
            pgbouncer=pgbouncer,
            seconds=seconds,
            sent_by_second=await running.sent_by_second(),
            tries=await running.tries(),
            doubled=len(await server.async_control.doubled()),
            worker_cpu=(sum(cost_of(pid).cpu for pid in pids) - cpu_before) / devices * 1000,
            rss_of_workers=sizes.together,
            largest_worker=sizes.largest,
            open_clients=sizes.open_clients,
            connections=peak.connections,
            server_cpu=stats["cpu"] - server_before,
        )


class _Sizes:
    """The most that the workers took."""

    def __init__(self, running: Fleet, pids: list[int]) -> None:
        self._fleet = running
        self._pids = pids
        self.together = self.largest = self.open_clients = 0

    async def look(self) -> None:
        while True:
            sizes = [cost_of(pid).rss for pid in self._pids]
            self.together = max(self.together, sum(sizes))
            self.largest = max(self.largest, *sizes)
            totals = (await self._fleet.daemon.status())["totals"]
            self.open_clients = max(self.open_clients, totals["open_clients"])
            await asyncio.sleep(LOOK_EVERY)
