"""Results of several rounds: statistics, comparison with goals, and tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median
from typing import Any, Final, Self

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from shardd import __version__

NAMES: Final = {
    "shardd": "shardd",
    "pgqueuer": "PgQueuer",
    "procrastinate": "procrastinate",
    "sql": "bare SQL (pgbench)",
}


@dataclass(frozen=True)
class Spread:
    """The values of all rounds, with median and extremes."""

    rounds: list[float]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    def over(self, other: Spread) -> float:
        """The median of the ratios per round, because other load slows both sides of a round, but not all rounds."""
        return median(ours / theirs for ours, theirs in zip(self.rounds, other.rounds, strict=True))

    def text(self, digits: int = 0) -> str:
        """Median (lowest-highest); only the value if there is one round."""
        if len(self.rounds) == 1:
            return f"{self.median:,.{digits}f}"
        low, high = min(self.rounds), max(self.rounds)
        return f"{self.median:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"

    def plain(self) -> dict[str, Any]:
        """The values as JSON."""
        return {"median": self.median, "min": min(self.rounds), "max": max(self.rounds), "rounds": self.rounds}


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which this share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class Latency:
    """How long something took, in seconds."""

    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of at least one value."""
        return cls(percentile(values, 0.50), percentile(values, 0.99), max(values))


@dataclass(frozen=True)
class Goal:
    """A ratio that shardd should reach."""

    what: str
    reached: float
    wanted: float
    at_least: bool = True
    beyond: bool = False
    """Desirable, but not required."""
    unit: str = "x"
    digits: int = 2

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return self.reached >= self.wanted if self.at_least else self.reached <= self.wanted

    def text(self) -> str:
        """One line."""
        sign = "≥" if self.at_least else "≤"
        verdict = "reached" if self.met else "MISSED" if not self.beyond else "not reached"
        aim = "goal beyond" if self.beyond else "goal"
        return f"{self.what}: {self.reached:,.{self.digits}f}{self.unit}, {aim} {sign} {self.wanted:g}{self.unit}: {verdict}"

    def plain(self) -> dict[str, Any]:
        """The goal as JSON."""
        return {name: getattr(self, name) for name in ("what", "reached", "wanted", "at_least", "beyond", "met")}


@dataclass(frozen=True)
class Results:
    """The results of `scripts/bench queue`."""

    drain: dict[str, Spread]
    """Jobs per second, by queue."""
    jobs: dict[str, int]
    """Jobs per round, by queue."""
    pick_up: dict[str, dict[str, Spread]]
    """p50 and p99 in milliseconds, by queue."""
    cost: dict[str, dict[int, Spread]]
    """`claim`, `settle` → finished rows → milliseconds per 500 jobs."""
    server: dict[str, str]
    quick: bool

    def goals(self) -> list[Goal]:
        """The goals of shardd relative to others, on the same machine in the same run."""
        drain, pick_up, claim = self.drain, self.pick_up, self.cost["claim"]
        small, large = sorted(claim)
        against_pgqueuer = drain["shardd"].over(drain["pgqueuer"])
        goals = [
            Goal("drain rate against procrastinate's", drain["shardd"].over(drain["procrastinate"]), 8.0),
            Goal("drain rate against PgQueuer's", against_pgqueuer, 0.5),
            Goal(
                "idle pick-up (p50) against procrastinate's",
                pick_up["shardd"]["p50"].over(pick_up["procrastinate"]["p50"]),
                1.0,
                at_least=False,
            ),
            Goal(
                f"claim beside {large:,} finished rows against {small:,}",
                claim[large].over(claim[small]),
                1.5,
                at_least=False,
            ),
            Goal("drain rate against PgQueuer's", against_pgqueuer, 1.0, beyond=True),
        ]
        if "sql" in drain:
            goals.append(
                Goal("drain rate against the bare SQL limit", drain["shardd"].over(drain["sql"]), 0.5, beyond=True)
            )
        return goals

    def plain(self) -> dict[str, Any]:
        """The results as JSON; rates in jobs per second, times in milliseconds."""
        return {
            **circumstances(self.server, "procrastinate", "pgqueuer", "asyncpg", "psycopg", quick=self.quick),
            "drain_jobs_per_second": {name: {**s.plain(), "jobs": self.jobs[name]} for name, s in self.drain.items()},
            "pick_up_ms": {name: {p: s.plain() for p, s in spreads.items()} for name, spreads in self.pick_up.items()},
            "cost_ms_per_500": {
                what: {str(finished): s.plain() for finished, s in by_rows.items()} for what, by_rows in self.cost.items()
            },
            "goals": [goal.plain() for goal in self.goals()],
        }  # fmt: skip

    def show(self, console: Console) -> None:
        """Print the tables."""
        console.print(
            f"{machine_line(self.server)}; fsync {self.server['fsync']}, synchronous_commit {self.server['synchronous_commit']}"
        )
        table = Table(
            box=SIMPLE,
            title="No-op jobs, and pick-up of single jobs on an idle system: median of rounds (lowest-highest)",
            title_justify="left",
        )
        for title in ("queue", "jobs/s", "shardd is", "pick-up p50, ms", "p99, ms"):
            table.add_column(title, justify="left" if title == "queue" else "right")
        ours = self.drain["shardd"]
        for name, spread in self.drain.items():
            latency = self.pick_up.get(name)
            shown = (latency["p50"].text(1), latency["p99"].text(1)) if latency else ("", "")
            table.add_row(NAMES[name], spread.text(), "" if name == "shardd" else f"{ours.over(spread):.2f}x", *shown)
        console.print(table)
        table = Table(
            box=SIMPLE,
            title="Claiming and settling 500 jobs, ms: median of rounds (lowest-highest)",
            title_justify="left",
        )
        table.add_column("finished rows", justify="right")
        for what in self.cost:
            table.add_column(what, justify="right")
        for finished in sorted(self.cost["claim"]):
            table.add_row(f"{finished:,}", *(self.cost[what][finished].text(1) for what in self.cost))
        console.print(table)
        for goal in self.goals():
            console.print(goal.text(), highlight=False)


def machine() -> dict[str, Any]:
    """Description of this machine."""
    with open("/proc/cpuinfo") as file:  # noqa: PTH123  # a plain look
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": models[0] if models else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def circumstances(server: Mapping[str, str], *packages: str, quick: bool) -> dict[str, Any]:
    """When, where and with what was measured, as JSON; `server`: its settings, `packages`: whose versions are named."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": machine(),
        "server": server,
        "versions": {"shardd": __version__} | {name: version(name) for name in packages},
    }


def machine_line(server: Mapping[str, str]) -> str:
    """The same in words, with the version of PostgreSQL; `server`: its settings."""
    here = machine()
    return (
        f"{here['cores']} cores, {here['cpu']}, Python {here['python']}, PostgreSQL {server['server_version']}, "
        f"load {here['load']:.1f}"
    )
