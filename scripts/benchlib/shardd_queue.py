"""shardd end to end: `shardd start` with real workers and sandbox devices."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

from benchlib.cluster import Cluster
from benchlib.daemon import running_daemon
from benchlib.workload import BODY, DEVICES, device, insert_singly, recipient
from shardd.queue.migrate import migrate

SHARDS: Final = 2
DEADLINE: Final = 120.0
"""Seconds after which any step fails."""


async def drain(cluster: Cluster, jobs: int) -> float:
    """Jobs per second, from the moment when the devices may send to the commit that settles the last job."""
    async with cluster.database("shardd_drain") as dsn, _daemon(cluster, dsn, record=False):
        with psycopg.connect(dsn, autocommit=True) as producer:
            producer.execute("UPDATE shardd.devices SET paused_at = now()")
            insert_jobs(producer, jobs)
            cluster.settle_down()
            began = time.time()
            producer.execute("UPDATE shardd.devices SET paused_at = NULL")
            await _until_settled(producer, jobs)
            row = producer.execute(
                "SELECT count(*) FILTER (WHERE state = 'sent'), extract(epoch FROM max(settled_at))::float8 FROM shardd.archive"
            ).fetchone()
    assert row is not None
    assert row[0] == jobs, f"{jobs - row[0]} of {jobs} jobs were not sent"
    return jobs / (float(row[1]) - began)


async def pick_up(cluster: Cluster, jobs: int) -> list[float]:
    """Seconds from INSERT to delivery, for single jobs on an idle daemon."""
    async with cluster.database("shardd_pick_up") as dsn, _daemon(cluster, dsn, record=True) as state_dir:
        for old in (state_dir / "sandbox").glob("*.jsonl"):
            os.truncate(old, 0)  # the workers append
        statement = "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES (%s, %s, %s)"
        sent = await insert_singly(dsn, statement, lambda number: (device(number), recipient(number), BODY), jobs)
        with psycopg.connect(dsn, autocommit=True) as connection:
            await _until_settled(connection, jobs)
        records = [
            json.loads(line)
            for path in (state_dir / "sandbox").glob("*.jsonl")
            for line in path.read_text().splitlines()
        ]
    delivered = {record["recipient"]: record["at"] for record in records}
    return [delivered[recipient(number)] - at for number, at in sent.items()]


def insert_devices(connection: psycopg.Connection[Any]) -> None:
    """Sandbox devices."""
    connection.execute(
        "INSERT INTO shardd.devices (id, transport) SELECT 'bench-' || to_char(n, 'FM0000'), 'sandbox' "
        "FROM generate_series(0, %s) n",
        (DEVICES - 1,),
    )


def insert_jobs(connection: psycopg.Connection[Any], jobs: int) -> None:
    """Insert queued jobs, equally many per device, and vacuum, as for every queue."""
    connection.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body) "
        "SELECT 'bench-' || to_char(n %% %s, 'FM0000'), '+49151' || to_char(n, 'FM00000000'), %s "
        "FROM generate_series(0, %s) n",
        (DEVICES, BODY, jobs - 1),
    )
    connection.execute("VACUUM (ANALYZE) shardd.jobs")


@asynccontextmanager
async def _daemon(cluster: Cluster, dsn: str, *, record: bool) -> AsyncIterator[Path]:
    """Run it with its devices; yields its state folder."""
    await migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        insert_devices(connection)
    folder = cluster.folder / ("record" if record else "drain")
    folder.mkdir(exist_ok=True)
    config = {
        "shards": SHARDS,
        "database": {"dsn": dsn},
        "pacing": {"gap_min": 0, "gap_max": 0, "hourly_limit": 0, "daily_limit": 0},
        "transports": {"sandbox": {"latency_min": 0, "latency_max": 0, "record": record}},
        "log": {"level": "warning", "format": "json"},
    }
    async with running_daemon(folder, config):
        yield folder / "state"


async def _until_settled(connection: psycopg.Connection[Any], jobs: int) -> None:
    """Poll rarely, because it affects the measurement; the time of the last settlement is in the row."""
    async with asyncio.timeout(DEADLINE):
        while connection.execute("SELECT count(*) FROM shardd.archive").fetchone() != (jobs,):  # noqa: ASYNC110  # see above
            await asyncio.sleep(0.25)
