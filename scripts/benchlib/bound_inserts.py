"""`scripts/bench producers`: the cost of an INSERT, by the kind of login.

none: no role is bound. unbound: others are, this login is not. bound: this login is. In turns, in one database, as logins of
their own. What is measured is the processor time of the server process that inserts, so that it does not count what else the
machine does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import psycopg
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchlib.cluster import Cluster, temporary_cluster
from benchlib.results import Spread, machine
from benchlib.workload import BODY
from shardd.queue.migrate import migrate

CASES: Final = ("none", "unbound", "bound")
ROLES: Final = 10
"""Bound roles, each with ten devices."""
BULK: Final = 5000
"""Jobs per statement."""
SINGLE: Final = 500
"""Statements of one job each, with RETURNING id."""

_ONE: Final = "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES (%s, '+4915112345678', %s) RETURNING id"
_MANY: Final = (
    "INSERT INTO shardd.jobs (device_id, recipient, body) "
    "SELECT 'd' || g %% 10, '+49151' || 1000000 + g, %s FROM generate_series(1, %s) g"
)


@dataclass(frozen=True)
class BoundResults:
    """Microseconds of CPU time per job: case → rounds."""

    rounds: int
    bulk: dict[str, Spread]
    single: dict[str, Spread]

    def plain(self) -> dict[str, Any]:
        """The results as JSON."""
        kinds = {"bulk": self.bulk, "single": self.single}
        spreads = {kind: {case: spread.plain() for case, spread in found.items()} for kind, found in kinds.items()}
        return {"machine": machine(), "rounds": self.rounds, "jobs_per_case": self.rounds * BULK, **spreads}

    def show(self, console: Console) -> None:
        """Print a table; each case also as a multiple of `none`."""
        table = Table(
            box=SIMPLE,
            title=f"Processor time of an INSERT, µs a job: median of {self.rounds} rounds (lowest-highest)",
            title_justify="left",
        )
        for title in ("", f"{BULK:,} jobs a statement", "one job a statement, RETURNING id"):
            table.add_column(title, justify="right" if title else "left")
        for case in CASES:
            cells = [
                f"{found[case].text(1)}  x {found[case].over(found['none']):.2f}" for found in (self.bulk, self.single)
            ]
            table.add_row(case, *cells)
        console.print(table)


async def run(*, quick: bool, say: Callable[[str], None]) -> BoundResults:
    """Measure the cases, interleaved; `say` gets progress messages."""
    rounds = 4 if quick else 20
    bulk: dict[str, list[float]] = {case: [] for case in CASES}
    single: dict[str, list[float]] = {case: [] for case in CASES}
    async with temporary_cluster() as cluster, cluster.database("producers") as dsn:
        await migrate(dsn)
        with _Bed(cluster) as bed:
            for number in range(1, rounds + 1):
                say(f"round {number}/{rounds}")
                for case in random.sample(CASES, len(CASES)):
                    bed.become(case)
                    bulk[case].append(bed.spent(lambda: bed.execute(_MANY, (BODY, BULK)), BULK))
                    single[case].append(
                        bed.spent(lambda: [bed.execute(_ONE, (f"d{n % 10}", BODY)) for n in range(SINGLE)], SINGLE)
                    )
    return BoundResults(
        rounds,
        {case: Spread(values) for case, values in bulk.items()},
        {case: Spread(values) for case, values in single.items()},
    )


class _Bed:
    """A superuser's session that acts as another login."""

    def __init__(self, cluster: Cluster) -> None:
        self._connection = cluster.connect("producers")
        for role in ("free", *(f"t{n}" for n in range(ROLES))):
            self.execute(f"CREATE ROLE {role} LOGIN IN ROLE shardd_producer")
        self.execute(
            "INSERT INTO shardd.devices (id, transport) SELECT 'd' || g, 'sandbox' FROM generate_series(0, %s) g",
            (10 * ROLES - 1,),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def execute(self, statement: str, params: tuple[Any, ...] = ()) -> psycopg.Cursor[Any]:
        """Execute a statement of this module."""
        return self._connection.execute(statement, params)  # type: ignore[call-overload]  # the statements above

    def become(self, case: str) -> None:
        """Empty the queue and switch to the login of a case."""
        self.execute("RESET SESSION AUTHORIZATION")
        self.execute("TRUNCATE shardd.jobs")
        self.execute("DELETE FROM shardd.producers")
        if case != "none":
            self.execute(
                "INSERT INTO shardd.producers SELECT 't' || g, false, false FROM generate_series(0, %s) g", (ROLES - 1,)
            )
            self.execute(
                "INSERT INTO shardd.producer_devices SELECT 't' || g / 10, 'd' || g FROM generate_series(0, %s) g",
                (10 * ROLES - 1,),
            )
        self.execute("SET SESSION AUTHORIZATION " + ("t0" if case == "bound" else "free"))

    def spent(self, work: Callable[[], object], jobs: int) -> float:
        """Microseconds of CPU time of the server's process per job."""
        began = self._clock()
        work()
        return (self._clock() - began) / jobs / 1000

    def _clock(self) -> int:
        """Nanoseconds (proc(5), schedstat: time on the processor comes first)."""
        return int(Path(f"/proc/{self._connection.info.backend_pid}/schedstat").read_text().split()[0])
