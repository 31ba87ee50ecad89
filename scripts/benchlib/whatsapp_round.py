"""One round: the cost of refreshes and warm sends for a worker and for plain neonize.

Both do the same with as many devices. A few connect first, so that what a process needs only once is there. Then each device
connects and sends (from nothing to open: memory), closes, connects and sends again, now to a contact that it knows (the
refresh), sends some more (warm), rests (threads), and closes. The CPU is that of the client's process alone, worker or plain, as
the kernel counts it: neither the supervisor's, nor PostgreSQL's, nor the test server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from benchlib.cluster import Cluster
from benchlib.connections import watched
from benchlib.plain_process import AT_ONCE, PlainProcess, plain_process
from benchlib.processes import cost_of
from benchlib.whatsapp_fleet import Fleet, Stock, fleet, recipients_of, stocked
from benchlib.workload import BODY
from shardd.transports.whatsapp.sessions.dsn import library_dsn
from tests.whatsapp_server.launch import ServerProcess

WARMERS: Final = 10
"""Devices that connect before the measurement."""
REST: Final = 3.0
"""Seconds for idle threads to end."""
DEADLINE: Final = 300.0


@dataclass(frozen=True)
class Load:
    """The size of a round."""

    devices: int
    messages: int
    """Warm sends per device."""


@dataclass(frozen=True)
class Figures:
    """The results: CPU milliseconds, bytes and threads per open client; other values for the whole process or server."""

    refresh_cpu: float
    send_cpu: float
    first_contact_cpu: float
    """Connecting, and the first message to a recipient."""
    client_rss: float
    client_threads: float
    process_rss: float
    connections: float


class Subject(Protocol):
    """The subject of the measurement."""

    pid: int

    async def send(self, devices: range, messages: int) -> None:
        """Send this many messages from each device, which connects first if necessary."""

    async def close(self, devices: range) -> None:
        """Close the devices' clients."""


Measure = Callable[[Cluster, ServerProcess, Load], Awaitable[Figures]]


async def shardd_round(cluster: Cluster, server: ServerProcess, load: Load) -> Figures:
    """A worker of `shardd start`."""
    return await _shardd_round(cluster, server, load, pgbouncer=False)


async def shardd_pooled_round(cluster: Cluster, server: ServerProcess, load: Load) -> Figures:
    """The same, with its sessions behind PgBouncer."""
    return await _shardd_round(cluster, server, load, pgbouncer=True)


async def plain_round(cluster: Cluster, server: ServerProcess, load: Load) -> Figures:
    """Plain neonize."""
    clients = load.devices + WARMERS
    async with stocked(cluster, "plain", clients) as stock, watched(cluster.dsn("postgres", "postgres")) as peak:
        # As in the documentation, except for the timeout of idle connections, without which the server would run out of them.
        store = library_dsn(stock.store, pgbouncer=False).replace("&binary_parameters=yes", "")
        log = cluster.folder / "plain.log"
        async with plain_process(server, store, log, at_once=AT_ONCE, clients=clients) as process:
            return await _measure(_Plain(process, stock), load, lambda: peak.connections)


async def _shardd_round(cluster: Cluster, server: ServerProcess, load: Load, *, pgbouncer: bool) -> Figures:
    clients = load.devices + WARMERS
    async with stocked(cluster, "worker", clients) as stock, watched(cluster.dsn("postgres", "postgres")) as peak:
        limits: dict[str, Any] = {"max_open_clients": clients, "idle_close": "1h"}
        async with fleet(cluster, server, stock, shards=1, pgbouncer=pgbouncer, **limits) as running:
            (pid,) = await running.daemon.workers()
            figures = await _measure(_Worker(running, pid), load, lambda: peak.connections)
            (shard,) = (await running.daemon.status())["shards"]
            wanted = WARMERS + 2 * load.devices
            assert (shard["pid"], shard["connects"]) == (pid, wanted), f"{shard} did not do {wanted} refreshes"
            return figures


async def _measure(subject: Subject, load: Load, connections: Callable[[], int]) -> Figures:
    everyone = range(WARMERS, WARMERS + load.devices)
    await subject.send(range(WARMERS), 1)
    await asyncio.sleep(REST)
    empty = cost_of(subject.pid)
    await subject.send(everyone, 1)
    first = cost_of(subject.pid)
    await asyncio.sleep(REST)
    full = cost_of(subject.pid)
    await subject.close(everyone)
    await asyncio.sleep(REST)
    before = cost_of(subject.pid)
    await subject.send(everyone, 1)
    refreshed = cost_of(subject.pid)
    await subject.send(everyone, load.messages)
    sent = cost_of(subject.pid)
    await subject.close(everyone)
    closed = cost_of(subject.pid)
    send_cpu = (sent.cpu - refreshed.cpu) / (load.devices * load.messages)
    refresh_cpu = (refreshed.cpu - before.cpu + closed.cpu - sent.cpu) / load.devices - send_cpu
    return Figures(
        refresh_cpu=refresh_cpu * 1000,
        send_cpu=send_cpu * 1000,
        first_contact_cpu=(first.cpu - empty.cpu) / load.devices * 1000,
        client_rss=(full.rss - empty.rss) / load.devices,
        client_threads=(full.threads - empty.threads) / load.devices,
        process_rss=float(full.rss),
        connections=float(connections()),
    )


class _Worker:
    def __init__(self, running: Fleet, pid: int) -> None:
        self.pid = pid
        self._fleet = running

    async def send(self, devices: range, messages: int) -> None:
        await self._fleet.send(devices, messages, deadline=DEADLINE)

    async def close(self, devices: range) -> None:
        await self._fleet.close_clients(devices, at_once=AT_ONCE)
        # Closing ends whatever is open; the results of warming up do not matter.
        await self._fleet.daemon.until(lambda status: status["totals"]["open_clients"] <= WARMERS)


class _Plain:
    def __init__(self, process: PlainProcess, stock: Stock) -> None:
        self.pid = process.pid
        self._process = process
        self._stock = stock

    async def send(self, devices: range, messages: int) -> None:
        sessions = self._stock.sessions[devices.start : devices.stop]
        await self._process.ask("send", work=[(jid, recipients_of(jid, messages), BODY) for jid in sessions])

    async def close(self, devices: range) -> None:
        await self._process.ask("close", jids=self._stock.sessions[devices.start : devices.stop])
