"""The sweep: thousands of devices without open clients send one message each, through one node with many shards."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from benchlib.cluster import Cluster
from benchlib.connections import watched
from benchlib.fleet_usage import used_by
from benchlib.plain_process import plain_fleet
from benchlib.whatsapp_fleet import arrived_once, fleet, recipients_of, stocked
from tests.whatsapp_server.launch import ServerProcess

SHARDS: Final = 8
DEADLINE: Final = 900.0


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


async def sweep(
    cluster: Cluster, server: ServerProcess, *, devices: int, pgbouncer: bool, shards: int = SHARDS
) -> Sweep:
    """Run the sweep. Raises RuntimeError unless every message was sent, and arrived at WhatsApp exactly once."""
    server.control.start_over()
    async with (
        stocked(cluster, "sweep", devices) as stock,
        watched(cluster.dsn("postgres", "postgres")) as peak,
        fleet(cluster, server, stock, shards=shards, pgbouncer=pgbouncer) as running,
    ):
        server_before = server.control.stats()["cpu"]
        async with used_by(running.daemon) as used:
            await running.insert(range(devices))
            begun = time.monotonic()
            await running.until_sent(deadline=DEADLINE)
            seconds = time.monotonic() - begun
        stats = arrived_once(server, devices)
        return Sweep(
            devices=devices,
            pgbouncer=pgbouncer,
            seconds=seconds,
            sent_by_second=await running.sent_by_second(),
            tries=await running.tries(),
            doubled=len(await server.async_control.doubled()),
            worker_cpu=used.workers.cpu / devices * 1000,
            rss_of_workers=used.workers.peak,
            largest_worker=used.workers.largest,
            open_clients=used.open_clients,
            connections=peak.connections,
            server_cpu=stats["cpu"] - server_before,
        )


async def plain_sweep(
    cluster: Cluster, server: ServerProcess, *, devices: int, pgbouncer: bool, processes: int
) -> float:
    """The same with plain neonize: seconds from the request to the last answer of WhatsApp."""
    server.control.start_over()
    async with (
        stocked(cluster, "sweep", devices) as stock,
        plain_fleet(cluster, server, stock, processes=processes, pgbouncer=pgbouncer) as plain,
    ):
        begun = time.monotonic()
        await plain.send({session: recipients_of(session, 1) for session in stock.sessions}, deadline=DEADLINE)
        seconds = time.monotonic() - begun
        arrived_once(server, devices)
        return seconds
