"""The limit of the database: pgbench runs only the project's own claim and settle statements.

Both statements come from shardd/queue/sql; only their parameters are put in by SQL expressions. A turn settles the jobs of
the last one and claims the next of the same devices, in one transaction, as the router does. The router's hand-over to
workers is what is missing, and so is the way of the jobs' texts to the client.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psycopg

from benchlib.cluster import Cluster
from benchlib.shardd_queue import insert_devices, insert_jobs
from benchlib.workload import DEVICES
from shardd.queue.columns import QUERIES
from shardd.queue.migrate import migrate

CLIENTS: Final = 2
BATCH: Final = DEVICES // CLIENTS
"""Devices per client; each has one job in flight."""
DEADLINE: Final = 120.0

_OF_CLAIMS: Final = "array_fill({}, ARRAY[cardinality(:ids::bigint[])])"
_FINISH: Final = {
    "ids": ":ids",
    "epochs": ":epochs",
    "attempts": ":attempts",
    "tokens": ":tokens",
    "states": _OF_CLAIMS.format("'sent'::text"),
    "failures": _OF_CLAIMS.format("0::smallint"),
    "message_ids": _OF_CLAIMS.format("'sandbox-12345-1'::text"),
    "errors": _OF_CLAIMS.format("NULL::text"),
    "error_classes": _OF_CLAIMS.format("NULL::text"),
    "members_without_keys": _OF_CLAIMS.format("NULL::integer"),
}
_CLAIM: Final = {
    "device_ids": ":devices",
    "lanes": "array_fill('/marketing'::text, ARRAY[cardinality(:devices::text[])])",
    "epochs": ":epochs",
    "low_ords": ":ords",
    "low_ids": ":ids",
    "peeks": "array_fill(false, ARRAY[cardinality(:devices::text[])])",
    "rooms": "array_fill(1, ARRAY[cardinality(:devices::text[])])",
}


async def drain(cluster: Cluster, jobs: int) -> float | None:
    """Jobs per second; None without pgbench."""
    pgbench = cluster.program("pgbench")
    if pgbench is None:
        return None
    async with cluster.database("sql_limit") as dsn:
        await migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            insert_devices(connection)
            connection.execute(
                "INSERT INTO shardd.epochs (shard, node, incarnation) VALUES (0, 'bench', gen_random_uuid())"
            )
            connection.execute("INSERT INTO shardd.leases VALUES (0, 1, 'bench', now() + interval '1 hour')")
            insert_jobs(connection, jobs)
            cluster.settle_down()
            with tempfile.NamedTemporaryFile("w", suffix=".pgbench", dir=cluster.folder) as script:
                script.write(_script())
                script.flush()
                # One more iteration than batches, to settle the last one.
                await _run(pgbench, dsn, Path(script.name), turns=jobs // DEVICES + 1)
            row = connection.execute(
                "SELECT count(*), extract(epoch FROM max(settled_at) - min(claimed_at))::float8 FROM shardd.archive"
            ).fetchone()
    assert row is not None
    assert row[0] == jobs, f"pgbench settled {row[0]} of {jobs} jobs"
    return jobs / float(row[1])


async def _run(pgbench: str, dsn: str, script: Path, turns: int) -> None:
    process = await asyncio.create_subprocess_exec(
        pgbench, "--no-vacuum", "--protocol=prepared", f"--client={CLIENTS}", f"--jobs={CLIENTS}",
        f"--transactions={turns}", "--define=started=0", f"--file={script}", dsn,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        # As on the daemon's connections.
        env={**os.environ, "PGOPTIONS": "-c jit=off -c plan_cache_mode=force_generic_plan"},
    )  # fmt: skip
    try:
        async with asyncio.timeout(DEADLINE):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"pgbench failed: {said.decode(errors='replace')}")


def _script() -> str:
    finish = _filled("finish_jobs", _FINISH)
    claim = _filled("claim_jobs", _CLAIM)
    return rf"""
\if :started
\else
SELECT array_agg(id)::text AS devices, array_fill((-9223372036854775808)::bigint, ARRAY[{BATCH}])::text AS ords,
       array_fill(0::bigint, ARRAY[{BATCH}])::text AS ids, array_fill(1::bigint, ARRAY[{BATCH}])::text AS epochs,
       array_fill(0, ARRAY[{BATCH}])::text AS attempts, array_fill(0::bigint, ARRAY[{BATCH}])::text AS tokens
  FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM shardd.devices) d WHERE place % {CLIENTS} = :client_id
\gset
\set started 1
\endif
BEGIN;
{finish};
WITH claimed AS ({claim})
SELECT coalesce(array_agg(device_id), '{{}}')::text AS devices, coalesce(array_agg(ord), '{{}}')::text AS ords,
       coalesce(array_agg(id), '{{}}')::text AS ids, coalesce(array_agg(epoch), '{{}}')::text AS epochs,
       coalesce(array_agg(attempt), '{{}}')::text AS attempts, coalesce(array_agg(token), '{{}}')::text AS tokens
  FROM claimed
\gset
COMMIT;
"""


def _filled(name: str, values: Mapping[str, str]) -> str:
    """A statement of the project in pgbench's terms."""
    statement = QUERIES[name].decode()
    for parameter, value in values.items():
        statement = re.sub(rf"%\({parameter}\)s", value.replace("\\", r"\\"), statement)
    assert "%(" not in statement, f"{name} has a parameter that this does not know: {statement}"
    return statement.replace("%%", "%")
