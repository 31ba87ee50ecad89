"""`scripts/bench finished`: three places for finished jobs, with the same claim, the same columns and the same number of rows.

archive: a finished job moves to a table partitioned by month, and a month is forgotten by dropping it (what shardd does).
one table: it moves to a table without partitions, and old ones are deleted. flag: it stays where it is and is marked as finished.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from rich.console import Console
from rich.table import Table

from benchlib.cluster import Cluster, temporary_cluster
from benchlib.results import Spread
from benchlib.workload import BODY, DEVICES
from shardd.queue.migrate import migrate

BATCH: Final = 500
WAYS: Final = ("archive", "one table", "flag")
MEASURED: Final = {
    "claim": "claim of 500, ms",
    "settle": "settle of 500, ms",
    "vacuum": "VACUUM of the live table, ms",
    "forget": "forget half of the finished rows, ms",
    "after": "claim of 500 afterwards, ms",
}

_COLUMNS: Final = (
    "id, device_id, recipient, address, kind, body, class, priority, run_at, max_attempts, on_doubt, producer, created_at, "
    "token, rendered, confirms, attempt, failures, claimed_epoch, claimed_at"
)
_LIVE: Final[LiteralString] = """
CREATE SCHEMA bench;
CREATE TABLE bench.jobs (LIKE shardd.jobs INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STORAGE,
    PRIMARY KEY (id), state text, settled_at timestamptz, message_id text) WITH (fillfactor = 70, autovacuum_enabled = off);
CREATE INDEX ON bench.jobs (device_id, lane, ord, id) WHERE NOT scheduled AND state IS NULL;
CREATE TABLE bench.old (LIKE shardd.archive INCLUDING DEFAULTS);
CREATE INDEX ON bench.old (id);
CREATE INDEX ON bench.old (message_id);
"""
_FLAGGED: Final[LiteralString] = "CREATE INDEX ON bench.jobs (message_id) WHERE message_id IS NOT NULL;"
_CLAIM: Final[LiteralString] = """
WITH next AS MATERIALIZED (
    SELECT j.id FROM unnest(%s::text[]) AS d(device_id) CROSS JOIN LATERAL (
        SELECT id FROM bench.jobs
         WHERE device_id = d.device_id AND lane = '/marketing' AND NOT scheduled AND state IS NULL AND claimed_epoch IS NULL
         ORDER BY ord, id LIMIT 1 FOR UPDATE SKIP LOCKED) j)
UPDATE bench.jobs j SET attempt = attempt + 1, claimed_epoch = 1, claimed_at = now() FROM next WHERE j.id = next.id RETURNING j.id
"""
_MOVE: Final = """
WITH gone AS (DELETE FROM bench.jobs WHERE id = ANY (%s) RETURNING *)
INSERT INTO {target} ({columns}, state, message_id) SELECT {columns}, 'sent', 'sandbox-' || id || '-1' FROM gone
"""
_FLAG: Final[LiteralString] = """
UPDATE bench.jobs SET state = 'sent', settled_at = now(), message_id = 'sandbox-' || id || '-1' WHERE id = ANY (%s)
"""
_INSERT: Final[LiteralString] = """
INSERT INTO bench.jobs (id, device_id, recipient, address, body, created_at)
SELECT %s + n, 'bench-' || to_char(mod(n, %s), 'FM0000'), '+49151' || to_char(n, 'FM00000000'),
       '49151' || to_char(n, 'FM00000000'), %s, now()
  FROM generate_series(1, %s) n
"""


@dataclass(frozen=True)
class FinishedResults:
    """The results: way → measurement → rounds."""

    finished: int
    spreads: dict[str, dict[str, Spread]]

    def plain(self) -> dict[str, Any]:
        """The results as JSON."""
        ways = {way: {what: spread.plain() for what, spread in found.items()} for way, found in self.spreads.items()}
        return {"finished": self.finished, "ways": ways}

    def show(self, console: Console) -> None:
        """Print a table; the other ways also as multiples of the archive."""
        table = Table(
            title=f"Where finished jobs go, beside {self.finished:,}: median (lowest-highest), and times the archive"
        )
        table.add_column("")
        for way in WAYS:
            table.add_column(way, justify="right")
        for what, text in MEASURED.items():
            first = self.spreads[WAYS[0]][what]
            cells = [self.spreads[way][what] for way in WAYS]
            table.add_row(
                text, *(one.text(1) + ("" if one is first else f"  x {one.over(first):.1f}") for one in cells)
            )
        console.print(table)


async def run(*, quick: bool, say: Callable[[str], None]) -> FinishedResults:
    """Measure all ways, interleaved, each in its own databases; `say` gets progress messages."""
    finished, rounds, batches = (200_000, 2, 10) if quick else (2_000_000, 3, 20)
    found: dict[str, dict[str, list[float]]] = {way: defaultdict(list) for way in WAYS}
    async with temporary_cluster() as cluster:
        for number in range(1, rounds + 1):
            for way in WAYS:
                say(f"round {number}/{rounds}: {way}")
                async with cluster.database("finished") as dsn:
                    await migrate(dsn)
                    for what, value in Bed(cluster, dsn, way, finished, batches).measure().items():
                        found[way][what].append(value)
    return FinishedResults(
        finished, {way: {what: Spread(values) for what, values in by.items()} for way, by in found.items()}
    )


class Bed:
    """One database with one way."""

    def __init__(self, cluster: Cluster, dsn: str, way: str, finished: int, batches: int) -> None:
        self._cluster, self._way, self._finished, self._batches = cluster, way, finished, batches
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._ids = 0

    def measure(self) -> dict[str, float]:
        """Medians in milliseconds."""
        execute = self._connection.execute
        execute(_LIVE)
        if self._way == "flag":
            execute(_FLAGGED)
        self._fill()
        found = self._work()
        found["vacuum"] = _milliseconds(lambda: execute("VACUUM bench.jobs"))
        self._insert()
        found["forget"] = _milliseconds(self._forget)
        found["after"] = self._work(inserted=True)["claim"]
        self._connection.close()
        return found

    def _fill(self) -> None:
        """Finished rows, half of them of an old month."""
        self._connection.execute(
            "CREATE TABLE shardd.archive_2026_01 PARTITION OF shardd.archive FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')"
        )
        target = {"archive": "shardd.archive", "one table": "bench.old", "flag": "bench.jobs"}[self._way]
        statement = (
            f"INSERT INTO {target} ({_COLUMNS}, state, settled_at, message_id) "
            "SELECT n, 'bench-' || to_char(mod(n, %s), 'FM0000'), '+49151' || to_char(n, 'FM00000000'), "
            "'49151' || to_char(n, 'FM00000000'), 'text', %s, 'marketing', 0, now(), 5, 'hold', '', now(), n, false, false, 1, "
            "0, 1, now(), 'sent', "
            "CASE WHEN n <= %s / 2 THEN timestamptz '2026-01-15' ELSE now() END, 'sandbox-' || n || '-1' "
            "FROM generate_series(1, %s) n"
        )
        self._connection.execute("ALTER TABLE shardd.archive DISABLE TRIGGER USER")
        self._connection.execute(statement, (DEVICES, BODY, self._finished, self._finished))
        self._connection.execute("VACUUM (ANALYZE)")
        self._ids = self._finished

    def _insert(self) -> None:
        jobs = self._batches * BATCH
        self._connection.execute(_INSERT, (self._ids, DEVICES, BODY, jobs))
        self._ids += jobs
        self._cluster.settle_down()

    def _work(self, *, inserted: bool = False) -> dict[str, float]:
        if not inserted:
            self._insert()
        claims, settles = [], []
        finish: Any = (
            _FLAG
            if self._way == "flag"
            else _MOVE.format(target="shardd.archive" if self._way == "archive" else "bench.old", columns=_COLUMNS)
        )
        for batch in range(self._batches):
            devices = [f"bench-{(batch * BATCH + n) % DEVICES:04d}" for n in range(BATCH)]
            ids: list[int] = []
            claims.append(
                _milliseconds(lambda d=devices, i=ids: i.extend(r[0] for r in self._connection.execute(_CLAIM, (d,))))  # type: ignore[misc]  # bound now
            )
            assert len(ids) == BATCH, f"{len(ids)} of {BATCH} jobs were claimed"
            settles.append(_milliseconds(lambda i=ids: self._connection.execute(finish, (i,))))  # type: ignore[misc]  # bound now
        return {"claim": sorted(claims)[len(claims) // 2], "settle": sorted(settles)[len(settles) // 2]}

    def _forget(self) -> None:
        """Delete the jobs of January: by dropping a table, or with DELETE and the VACUUM that this requires."""
        if self._way == "archive":
            self._connection.execute("SELECT shardd.forget_month('2026-02-02')")
            return
        table = "bench.old" if self._way == "one table" else "bench.jobs"
        self._connection.execute(f"DELETE FROM {table} WHERE settled_at < '2026-02-01'")
        self._connection.execute(f"VACUUM {table}")


def _milliseconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000
