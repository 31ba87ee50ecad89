"""The sweep: thousands of devices without open clients send one message each, through one node with many shards."""

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
    """The results."""

    devices: int
    pgbouncer: bool
    seconds: float
    """Seconds from the commit of the jobs to the commit that settles the last one."""
    sent_by_second: list[int]
    tries: int
    """Sends that were retried."""
    doubled: int
    """Messages that a person would see twice."""
    worker_cpu: float
    """CPU milliseconds per device, over all workers."""
    rss_of_workers: int
    """The maximum of all workers together, in bytes."""
    largest_worker: int
    """Bytes."""
    open_clients: int
    """The maximum of all workers together."""
    connections: int
    """The maximum of the whole server."""
    server_cpu: float
    """CPU seconds of the test server, which runs on the same machine."""

    def plain(self) -> dict[str, Any]:
        """The results as JSON."""
        return dict(vars(self))


async def sweep(cluster: Cluster, server: ServerProcess, *, devices: int, pgbouncer: bool) -> Sweep:
    """Run the sweep. Raises RuntimeError unless every message was sent, and arrived at WhatsApp exactly once."""
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
    """The maximum resource usage of the workers."""

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
