"""`scripts/bench groups`: how soon the next job of an order group or of a group of devices is claimed, with two hosts.

Two hosts (daemons) share the shards of sandbox devices on one database. Each order group has jobs of two devices in turn, whose
shards belong to different hosts, so each job is let go by the settle of another host's. A group of devices has a backlog and
one device on each host: whichever is free gets the next job. Both times are by the database's clock.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import psycopg
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchlib.cluster import temporary_cluster
from benchlib.daemon import running_daemon
from benchlib.results import Spread, machine
from shardd.hashing import shard_of
from shardd.queue.migrate import migrate

SHARDS: Final = 2
PAIRS: Final = 8
"""Order groups, each with a device on each host, and as many groups of devices."""
LATENCY: Final = "20ms"
"""Of a send."""
KINDS: Final = {
    "order": "order group: settle on one host to claim on the other",
    "devices": "group of devices: settle of a device to its next claim",
}
ADD_DEVICE: Final = "INSERT INTO shardd.devices (id, transport) VALUES (%s, 'sandbox')"
ADD_GROUP: Final = "INSERT INTO shardd.device_groups (id) VALUES (%s)"
ADD_MEMBER: Final = "INSERT INTO shardd.device_group_members VALUES (%s, %s)"
ADD_ORDERED: Final = "INSERT INTO shardd.jobs (device_id, recipient, body, order_group) VALUES (%s, %s, 'x', %s)"
ADD_GROUPED: Final = "INSERT INTO shardd.jobs (device_group, recipient, body) VALUES (%s, %s, 'x')"
WAITS: Final = {
    "order": "SELECT claimed_at - lag(settled_at) OVER (PARTITION BY order_group ORDER BY id) FROM shardd.archive "
    "WHERE order_group IS NOT NULL",
    "devices": "SELECT claimed_at - lag(settled_at) OVER (PARTITION BY device_id ORDER BY claimed_at) FROM shardd.archive "
    "WHERE order_group IS NULL",
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class GroupsResults:
    """Milliseconds, by kind."""

    jobs: int
    p50: dict[str, Spread]
    p99: dict[str, Spread]

    def plain(self) -> dict[str, Any]:
        """The results as JSON."""
        waits = {kind: {"p50": self.p50[kind].plain(), "p99": self.p99[kind].plain()} for kind in KINDS}
        return {"jobs": self.jobs, "waits_ms": waits, "machine": machine()}

    def show(self, console: Console) -> None:
        """As a table."""
        title = f"2 hosts, {PAIRS} groups of each kind, {self.jobs:,} jobs of each kind per round, sends of {LATENCY}"
        table = Table("", "p50, ms", "p99, ms", box=SIMPLE, title=title)
        for kind, text in KINDS.items():
            table.add_row(text, self.p50[kind].text(), self.p99[kind].text())
        console.print(table)


async def run(*, each: int, rounds: int, say: Say) -> GroupsResults:
    """`each`: jobs of one group in a round."""
    p50: dict[str, list[float]] = {kind: [] for kind in KINDS}
    p99: dict[str, list[float]] = {kind: [] for kind in KINDS}
    async with temporary_cluster() as cluster:
        for number in range(1, rounds + 1):
            async with cluster.database(f"groups_{number}") as dsn:
                for kind, waits in (await _round(dsn, each)).items():
                    p50[kind].append(median(waits))
                    p99[kind].append(quantiles(waits, n=100)[98])
                    say(
                        f"round {number}/{rounds}: {KINDS[kind]}: p50 {p50[kind][-1]:.0f} ms, p99 {p99[kind][-1]:.0f} ms"
                    )
    spreads = [{kind: Spread(values) for kind, values in of.items()} for of in (p50, p99)]
    return GroupsResults(each * PAIRS, *spreads)


async def _round(dsn: str, each: int) -> dict[str, list[float]]:
    await migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        async with AsyncExitStack() as stack:
            daemons = []
            for node in ("one", "two"):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"shardd-bench-{node}-")))
                daemons.append(await stack.enter_async_context(running_daemon(folder, _config(dsn, node))))
            for daemon in daemons:
                await daemon.until(lambda status: sum(shard["epoch"] is not None for shard in status["shards"]) == 1)
            _add_jobs(connection, _add_devices(connection), each)
            await daemons[0].until(lambda _: _sent(connection) == 2 * PAIRS * each)
        return {kind: _waits(connection, statement) for kind, statement in WAITS.items()}


def _config(dsn: str, node: str) -> dict[str, Any]:
    return {
        "node": node,
        "database": {"dsn": dsn},
        "shards": SHARDS,
        "pacing": {"gap_min": 0, "gap_max": 0, "hourly_limit": 0, "daily_limit": 0},
        "transports": {"sandbox": {"latency_min": LATENCY, "latency_max": LATENCY}},
    }


def _add_devices(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Pairs of devices of different shards; returns those of order groups, the others are members of `g0` and so on."""
    names = [f"device-{number}" for number in range(100 * PAIRS)]
    by_shard = [[name for name in names if shard_of(name, SHARDS) == shard][: 2 * PAIRS] for shard in range(SHARDS)]
    pairs = list(zip(*by_shard, strict=True))
    with connection.cursor() as cursor:
        cursor.executemany(ADD_DEVICE, [(name,) for pair in pairs for name in pair])
        cursor.executemany(ADD_GROUP, [(f"g{number}",) for number in range(PAIRS)])
        members = [(f"g{number}", name) for number, pair in enumerate(pairs[PAIRS:]) for name in pair]
        cursor.executemany(ADD_MEMBER, members)
    return pairs[:PAIRS]


def _add_jobs(connection: psycopg.Connection[Any], pairs: list[tuple[str, str]], each: int) -> None:
    ordered = [(pair[n % 2], "+4915112345678", f"o{group}") for group, pair in enumerate(pairs) for n in range(each)]
    grouped = [(f"g{group}", f"+49151{group:03}{n:05}") for group in range(PAIRS) for n in range(each)]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(ADD_ORDERED, ordered)
        cursor.executemany(ADD_GROUPED, grouped)


def _sent(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM shardd.archive WHERE state = 'sent'").fetchone()
    assert row is not None
    return int(row[0])


def _waits(connection: psycopg.Connection[Any], statement: str) -> list[float]:
    """Milliseconds."""
    rows = connection.execute(statement).fetchall()
    return [row[0].total_seconds() * 1000 for row in rows if row[0] is not None]
