"""`scripts/bench failover`: how long devices are silent after a fault, with and without spare workers.

Two hosts (daemons) share the shards of WhatsApp devices on one database. At the moment of the fault each device of one host gets
a message, so the time until that is sent is the time in which the device was silent. Faults: one of its workers dies (and only
the devices of that shard get a message), the host dies, it is stopped, it is cut off from the database, or the database crashes
and starts again; then the time counts from the database's first answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

import psycopg
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchlib.cluster import Cluster
from benchlib.daemon import Daemon, running_daemon
from benchlib.results import Spread, machine
from benchlib.whatsapp_bench import Say, bed
from benchlib.whatsapp_fleet import Stock, add_devices, fleet_config, recipients_of, stocked, trust
from benchlib.workload import BODY
from shardd.hashing import shard_of
from shardd.queue.migrate import migrate
from tests.whatsapp_server.launch import ServerProcess

SHARDS: Final = 4
DEADLINE: Final = 180.0
LOOK_EVERY: Final = 0.05
FAULTS: Final = {
    "worker": "kill -9 of a worker",
    "kill": "kill -9 of a host",
    "stop": "planned stop of a host",
    "partition": "host cut off from the database",
    "database": "database crashed, from its start",
}
WITHOUT, WITH = "without spare workers", "with spare workers"
SUBJECTS: Final = {WITHOUT: 0, WITH: None}
"""Each with the value of `supervisor.spares`."""


@dataclass(frozen=True)
class Silence:
    """Seconds from a fault until the devices of a host had sent."""

    first: float
    median: float
    last: float


@dataclass(frozen=True)
class FailoverResults:
    """Of all rounds: by fault, then by subject."""

    ttl: float
    devices: int
    rounds: dict[str, dict[str, list[Silence]]]

    def plain(self) -> dict[str, Any]:
        """The results as JSON, in seconds."""
        faults = {
            fault: {who: [vars(each) for each in silences] for who, silences in subjects.items()}
            for fault, subjects in self.rounds.items()
        }
        return {"ttl": self.ttl, "devices": self.devices, "shards": SHARDS, "faults": faults, "machine": machine()}

    def show(self, console: Console) -> None:
        """As a table."""
        table = Table(
            "seconds until the devices of that host, or worker, send", WITHOUT, WITH, "ratio", box=SIMPLE,
            title=f"{self.devices} WhatsApp devices, {SHARDS} shards on 2 hosts, lease.ttl {self.ttl:g} s",
        )  # fmt: skip
        for fault, subjects in self.rounds.items():
            for which in ("first", "median", "last"):
                before, after = (Spread([getattr(each, which) for each in subjects[who]]) for who in (WITHOUT, WITH))
                ratio = f"{after.over(before):.2f}x"
                table.add_row(f"{FAULTS[fault]}: {which} device", before.text(1), after.text(1), ratio)
        console.print(table)


async def run(*, ttl: float, rounds: int, devices: int, faults: Sequence[str], say: Say) -> FailoverResults:
    """Run all rounds of these faults; the subjects take turns."""
    results: dict[str, dict[str, list[Silence]]] = {fault: {who: [] for who in SUBJECTS} for fault in faults}
    async with bed() as (cluster, server):
        for number in range(1, rounds + 1):
            for who, spares in SUBJECTS.items():
                server.control.start_over()
                name = f"failover_{number}_{'none' if spares == 0 else 'some'}"
                async with stocked(cluster, name, devices) as stock:
                    found = await _round(cluster, server, stock, ttl=ttl, spares=spares, faults=faults)
                for fault, silence in found.items():
                    results[fault][who].append(silence)
                    say(
                        f"round {number}/{rounds}: {FAULTS[fault]}, {who}: first {silence.first:.1f} s, "
                        f"median {silence.median:.1f} s, last {silence.last:.1f} s"
                    )
    return FailoverResults(ttl, devices, results)


async def _round(
    cluster: Cluster, server: ServerProcess, stock: Stock, *, ttl: float, spares: int | None, faults: Sequence[str]
) -> dict[str, Silence]:
    await migrate(stock.dsn)
    every = max(0.5, ttl / 6)
    margin = max(1.0, ttl / 6)
    patience = f"{(ttl - margin - every) / 2 * 1000:.0f}ms"
    config = {
        **fleet_config(stock, server, shards=SHARDS),
        "lease": {"ttl": f"{ttl:g}s", "renew_every": f"{every * 1000:.0f}ms", "margin": f"{margin * 1000:.0f}ms"},
        "database": {"dsn": stock.dsn, "connect_timeout": patience, "statement_timeout": patience},
        "supervisor": {"spares": spares},
    }
    folders = [Path(tempfile.mkdtemp(dir=cluster.folder)) for _ in range(2)]

    def host(number: int, dsn: str = stock.dsn) -> Any:
        reached = {**config, "node": f"host-{number}", "database": {**config["database"], "dsn": dsn}}
        return running_daemon(folders[number], reached, trust(server))

    found = {}
    async with AsyncExitStack() as stack:
        link = await cluster.link(folders[1])
        stack.push_async_callback(link.close)
        bench = await stack.enter_async_context(_Bench(stock))
        await add_devices(bench.producer, stock)
        lasting = await stack.enter_async_context(host(0))

        async def partition(lost: Daemon) -> float:
            await _renewed(lost)
            link.hang()
            return time.time()

        async def crash(_: Daemon) -> float:
            await cluster.crash()
            await bench.connect()
            return time.time()

        ends = {"worker": _kill_worker, "kill": _kill, "stop": _stop, "partition": partition, "database": crash}
        for fault in faults:
            async with host(1, cluster.by_link(stock.dsn, folders[1])) as lost:
                await _shared(lost, lasting, spares=spares)
                # Every client is open, as in a fleet at work.
                await bench.send(stock.sessions)
                found[fault] = await bench.silence(lost, ends[fault], one_shard=fault == "worker")
                await link.repair()
    return found


async def _shared(*hosts: Daemon, spares: int | None) -> None:
    """Each host serves its half, and has the spare workers for the other."""
    for host in hosts:
        await host.until(
            lambda status: (
                sum(shard["state"] == "running" for shard in status["shards"]) == SHARDS // 2
                and status["spares"] == (SHARDS // 2 if spares is None else spares)
            ),
            DEADLINE,
        )


async def _renewed(host: Daemon) -> None:
    """Wait for its next renewal."""
    left = (await host.status())["lease_margin"]
    while (now := (await host.status())["lease_margin"]) <= left:
        left = now
        await asyncio.sleep(LOOK_EVERY)


async def _kill_worker(host: Daemon) -> float:
    os.kill((await _served(host))[0]["pid"], signal.SIGKILL)
    return time.time()


async def _served(host: Daemon) -> list[dict[str, Any]]:
    """Its shards, as the status shows them."""
    return [shard for shard in (await host.status())["shards"] if shard["state"] == "running"]


async def _kill(host: Daemon) -> float:
    """As when a machine dies: nothing of it finishes what it has begun. Right after a renewal, when its leases last longest."""
    await _renewed(host)
    workers = await host.workers()
    host.process.send_signal(signal.SIGSTOP)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    host.process.kill()
    return time.time()


async def _stop(host: Daemon) -> float:
    host.process.send_signal(signal.SIGTERM)
    return time.time()


class _Bench:
    """A producer, and what became of its messages."""

    producer: psycopg.AsyncConnection[Any]

    def __init__(self, stock: Stock) -> None:
        self._stock = stock

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.producer.close()

    async def connect(self) -> None:
        """Also again, after a crash of the server."""
        dsn = self._stock.dsn
        self.producer = await psycopg.AsyncConnection.connect(dsn, autocommit=True, application_name="shardd-bench")

    async def silence(self, host: Daemon, end: Callable[[Daemon], Awaitable[float]], *, one_shard: bool) -> Silence:
        """Let a host meet a fault; returns when its devices, or those of its first shard, had sent.

        `end` returns when that began, in POSIX seconds.
        """
        mine = {shard["shard"] for shard in (await _served(host))[: 1 if one_shard else None]}
        devices = [session for session in self._stock.sessions if shard_of(session, SHARDS) in mine]
        at = await end(host)
        sent = [settled - at for settled in await self.send(devices)]
        return Silence(min(sent), median(sent), max(sent))

    async def send(self, devices: list[str]) -> list[float]:
        """One message of each device; returns when each was sent, in POSIX seconds."""
        ((before,),) = await self._rows("SELECT coalesce(max(id), 0) FROM shardd.archive")
        insert = "COPY shardd.jobs (device_id, recipient, body) FROM STDIN"
        async with self.producer.cursor() as cursor, cursor.copy(insert) as copy:
            for session in devices:
                await copy.write_row((session, f"+{recipients_of(session, 1)[0]}", BODY))
        statement = "SELECT extract(epoch FROM settled_at)::float8, state FROM shardd.archive WHERE id > %s"
        async with asyncio.timeout(DEADLINE):
            while len(rows := await self._rows(statement, before)) < len(devices):  # noqa: ASYNC110  # others' commits
                await asyncio.sleep(LOOK_EVERY)
        if any(state != "sent" for _, state in rows):
            raise RuntimeError(f"not everything was sent: {rows}")
        return [at for at, _ in rows]

    async def _rows(self, statement: Any, *params: Any) -> list[tuple[Any, ...]]:
        return await (await self.producer.execute(statement, params)).fetchall()
