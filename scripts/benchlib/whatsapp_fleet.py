"""Paired WhatsApp devices in a database, their jobs, and the config of a daemon that sends them."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from benchlib.cluster import Cluster
from benchlib.daemon import Daemon, running_daemon
from benchlib.pooler import pooled
from benchlib.workload import BODY
from shardd.queue.migrate import migrate
from shardd.transports.whatsapp.sessions.dsn import SCHEMA, sessions_dsn
from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.whatsapp_server.launch import ServerProcess
from tests.whatsapp_server.seed import seed_postgres

FIRST_NUMBER: Final = 628150000000
FIRST_RECIPIENT: Final = 628120000000
ENVIRONMENT: Final = ("PYTHONPATH", "SSL_CERT_FILE", "SHARDD_TEST_NOISE_ROOT")
"""Variables that make a process trust the test server; the daemon passes them to its workers."""
ALONE: Final = {"visit_every": "never"}
"""Settings of the transport with which a device is opened only to send."""


NO_PACE: Final = {"gap_min": 0, "gap_max": 0, "hourly_limit": 0, "daily_limit": 0}
"""Settings of the pace with which nothing waits."""
Recipients = Callable[[str, int], list[str]]
"""Of a device's session and its number of messages."""


@dataclass(frozen=True)
class Stock:
    """A database with a session store of paired devices."""

    dsn: str
    sessions: list[str]
    """JIDs: the devices' sessions."""

    @property
    def database(self) -> str:
        """Its name."""
        return self.dsn.partition("@/")[2].partition("?")[0]

    @property
    def store(self) -> str:
        """The session store, as psycopg reads it."""
        return sessions_dsn(self.dsn)


@asynccontextmanager
async def stocked(cluster: Cluster, name: str, devices: int, first: int = 0) -> AsyncIterator[Stock]:
    """A new database with this many paired devices; `first` selects their numbers."""
    async with cluster.database(name) as dsn:
        await prepare_store(sessions_dsn(dsn))
        numbers = [str(FIRST_NUMBER + first + number) for number in range(devices)]
        yield Stock(dsn, seed_postgres(dsn, numbers, schema=SCHEMA))


def recipients_of(session: str, messages: int) -> list[str]:
    """A distinct recipient for each device, repeated this many times."""
    return [str(FIRST_RECIPIENT + _offset(session))] * messages


def strangers_of(session: str, messages: int) -> list[str]:
    """A recipient of its own for each of this many messages of each device."""
    first = FIRST_RECIPIENT + _offset(session) * messages
    return [str(first + number) for number in range(messages)]


def _offset(session: str) -> int:
    return int(session.partition(":")[0]) - FIRST_NUMBER


class Fleet:
    """A running daemon with paired devices, and a producer of their jobs."""

    def __init__(self, daemon: Daemon, producer: psycopg.AsyncConnection[Any], stock: Stock) -> None:
        self.daemon = daemon
        self._producer = producer
        self._stock = stock
        self.inserted = 0

    def insert(self, devices: range, messages: int = 1, recipients: Recipients = recipients_of) -> Any:
        """Insert jobs for these devices and commit."""
        self.inserted += len(devices) * messages
        jobs = [
            (session, f"+{recipient}", BODY)
            for session in self._stock.sessions[devices.start : devices.stop]
            for recipient in recipients(session, messages)
        ]
        return self._copy(jobs)

    async def send(self, devices: range, messages: int = 1, *, deadline: float) -> None:
        """Insert jobs and wait until all are sent."""
        await self.insert(devices, messages)
        await self.until_sent(deadline=deadline)

    async def until_sent(self, *, deadline: float) -> None:
        """Wait until every job is settled. Raises RuntimeError unless all are sent."""
        end = time.monotonic() + deadline
        while (await self.settled()) < self.inserted:
            if time.monotonic() > end:
                raise RuntimeError(
                    f"{await self.states()} after {deadline:g} s; log: {self.daemon.log.read_text()[-3000:]}"
                )
            await asyncio.sleep(0.1)
        states = await self.states()
        if states != {"sent": self.inserted}:
            raise RuntimeError(f"not everything was sent: {states}; log: {self.daemon.log.read_text()[-3000:]}")

    async def settled(self) -> int:
        """The number of finished jobs."""
        return int((await self._rows("SELECT count(*) FROM shardd.archive"))[0][0])

    async def states(self) -> dict[str, int]:
        """The number of jobs by state."""
        return dict(await self._rows("SELECT state, count(*) FROM shardd.outcomes GROUP BY state"))

    async def sent_by_second(self) -> list[int]:
        """The number of jobs settled in each second since the first INSERT."""
        rows = await self._rows(
            "SELECT floor(extract(epoch FROM settled_at - (SELECT min(created_at) FROM shardd.archive)))::int, count(*) "
            "FROM shardd.archive GROUP BY 1"
        )
        counts = dict(rows)
        return [counts.get(second, 0) for second in range(max(counts, default=-1) + 1)]

    async def tries(self) -> int:
        """The number of claims beyond the first of each job: given back, or failed."""
        return int((await self._rows("SELECT coalesce(sum(attempt - 1), 0) FROM shardd.archive"))[0][0])

    async def failures(self) -> int:
        """The number of attempts that failed; what else was claimed again had been given back."""
        return int((await self._rows("SELECT coalesce(sum(failures), 0) FROM shardd.archive"))[0][0])

    async def claims(self) -> dict[str, list[tuple[float, float]]]:
        """By device, of each finished job in order: when it was claimed for the last time, and settled, in POSIX seconds."""
        rows = await self._rows(
            "SELECT device_id, array_agg(extract(epoch FROM claimed_at)::float8 ORDER BY claimed_at), "
            "array_agg(extract(epoch FROM settled_at)::float8 ORDER BY claimed_at) FROM shardd.archive GROUP BY 1"
        )
        return {device: list(zip(claimed, settled, strict=True)) for device, claimed, settled in rows}

    async def close_clients(self, devices: range, *, at_once: int) -> None:
        """Close the devices' clients and wait until they have ended."""
        turns = asyncio.Semaphore(at_once)

        async def close(session: str) -> None:
            async with turns:
                await self.daemon.close_device(session)

        await asyncio.gather(*map(close, self._stock.sessions[devices.start : devices.stop]))

    async def _copy(self, jobs: list[tuple[str, str, str]]) -> None:
        statement = "COPY shardd.jobs (device_id, recipient, body) FROM STDIN"
        async with self._producer.cursor() as cursor, cursor.copy(statement) as copy:
            for job in jobs:
                await copy.write_row(job)

    async def _rows(self, statement: Any) -> list[tuple[Any, ...]]:
        return await (await self._producer.execute(statement)).fetchall()


async def add_devices(producer: psycopg.AsyncConnection[Any], stock: Stock) -> None:
    """Insert the rows of the devices."""
    await producer.cursor().executemany(
        "INSERT INTO shardd.devices (id, transport, session) VALUES (%s, 'whatsapp', %s)",
        [(session, session) for session in stock.sessions],
    )


def fleet_config(
    stock: Stock, server: ServerProcess, *, shards: int, pacing: Mapping[str, Any] = NO_PACE, **whatsapp: Any
) -> dict[str, Any]:
    """Of a daemon that sends for these devices; `whatsapp`: settings of the transport that differ from the defaults."""
    return {
        "shards": shards,
        "database": {"dsn": stock.dsn},
        "pacing": dict(pacing),
        "transports": {"whatsapp": {**ALONE, "proxy": server.proxy_url(), **whatsapp}},
        "log": {"level": "info", "format": "json"},
    }


def arrived_once(server: ServerProcess, messages: int) -> dict[str, Any]:
    """The statistics of WhatsApp. Raises RuntimeError unless it got this many messages, each once."""
    stats = server.control.stats()
    if (accepted := stats["counts"].get("messages", 0)) != messages:
        raise RuntimeError(f"WhatsApp got {accepted} messages instead of {messages}")
    return stats


def trust(server: ServerProcess) -> dict[str, str]:
    """The environment in which a daemon trusts the test server."""
    environment = server.client_environment()
    return {name: environment[name] for name in ENVIRONMENT}


@asynccontextmanager
async def fleet(
    cluster: Cluster,
    server: ServerProcess,
    stock: Stock,
    *,
    shards: int,
    pgbouncer: bool = False,
    worker: dict[str, Any] | None = None,
    pacing: Mapping[str, Any] = NO_PACE,
    **whatsapp: Any,
) -> AsyncIterator[Fleet]:
    """A daemon that sends for these devices; `whatsapp`: settings of the transport that differ from the defaults."""
    await migrate(stock.dsn)
    async with AsyncExitStack() as stack:
        connect = psycopg.AsyncConnection.connect(stock.dsn, autocommit=True, application_name="shardd-bench")
        producer = await stack.enter_async_context(await connect)
        await add_devices(producer, stock)
        config = fleet_config(stock, server, shards=shards, pacing=pacing, pgbouncer=pgbouncer, **whatsapp)
        if pgbouncer:
            config["database"]["sessions_dsn"] = await stack.enter_async_context(pooled(cluster, stock.database))
        config["worker"] = worker or {}
        # A journal belongs to one database, so each daemon needs its own folder.
        folder = Path(tempfile.mkdtemp(dir=cluster.folder))
        daemon = await stack.enter_async_context(running_daemon(folder, config, trust(server)))
        yield Fleet(daemon, producer, stock)
