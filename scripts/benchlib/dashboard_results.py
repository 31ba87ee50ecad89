"""Results of `scripts/bench dashboard`: the times of pages, and what open pages cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchlib.dashboard_fill import Sizes
from benchlib.dashboard_pages import TRIVIAL, Address
from benchlib.results import circumstances, machine_line

LIMIT: Final = 0.1
"""Seconds that a page may take."""


@dataclass(frozen=True)
class Timing:
    """How long a page took, in seconds."""

    address: Address
    times: list[float]

    @property
    def p50(self) -> float:
        """Of all requests."""
        return median(self.times)

    @property
    def worst(self) -> float:
        """Of all requests."""
        return max(self.times)


@dataclass(frozen=True)
class OpenPages:
    """What a number of open overviews cost: seconds of CPU in an hour."""

    pages: int
    sending: bool
    dashboard: float
    database: float
    """Of the dashboard's connections."""
    supervisor: float

    @property
    def together(self) -> float:
        """All of it."""
        return self.dashboard + self.database + self.supervisor


@dataclass(frozen=True)
class DashboardResults:
    """Of one run."""

    sizes: Sizes
    fill_seconds: float
    fill_cpu: float
    """CPU seconds of the server's process that filled the database."""
    rate: int
    """Jobs a second while it sends."""
    sent: float
    """Messages a second that it sent meanwhile."""
    timings: Mapping[str, list[Timing]]
    """While it `idles`, and while it `sends`."""
    open_pages: list[OpenPages]
    server: dict[str, str]
    quick: bool

    def slow(self, phase: str) -> list[Timing]:
        """Pages over the limit, the slowest first."""
        found = [timing for timing in self.timings[phase] if timing.p50 > LIMIT]
        return sorted(found, key=lambda timing: -timing.p50)

    def plain(self) -> dict[str, Any]:
        """The results as JSON; times in milliseconds."""
        return {
            **circumstances(self.server, "aiohttp", "jinja2", "psycopg", quick=self.quick),
            "sizes": asdict(self.sizes),
            "fill": {"seconds": self.fill_seconds, "cpu_seconds": self.fill_cpu},
            "jobs_per_second": {"inserted": self.rate, "sent": self.sent},
            "pages_ms": {
                phase: [
                    {**asdict(one.address), "p50": 1000 * one.p50, "worst": 1000 * one.worst, "rounds": len(one.times)}
                    for one in timings
                ]
                for phase, timings in self.timings.items()
            },
            "open_pages_cpu_seconds_per_hour": [asdict(one) for one in self.open_pages],
        }  # fmt: skip

    def show(self, console: Console) -> None:
        """Print the tables."""
        sizes = self.sizes
        console.print(
            f"{machine_line(self.server)}; {sizes.devices:,} devices, {sizes.jobs:,} jobs ({sizes.live:,} live), filled in "
            f"{self.fill_seconds:.0f} s with {self.fill_cpu:.0f} s of CPU; sent {self.sent:.0f} messages/s of {self.rate}",
            highlight=False,
        )
        self._show_groups(console)
        for phase in self.timings:
            if slow := self.slow(phase):
                console.print(f"over {1000 * LIMIT:.0f} ms while it {phase}:", highlight=False)
            for one in slow:
                console.print(
                    f"  {1000 * one.p50:,.0f} ms, worst {1000 * one.worst:,.0f}: {one.address.path}", highlight=False
                )
        table = Table(
            "open overviews", "dashboard", "its database", "supervisor", "together",
            box=SIMPLE, title="CPU in an hour, s", title_justify="left",
        )  # fmt: skip
        for one in self.open_pages:
            name = f"{one.pages}, while it {'sends' if one.sending else 'idles'}"
            table.add_row(
                name, *(f"{value:,.1f}" for value in (one.dashboard, one.database, one.supervisor, one.together))
            )
        console.print(table)

    def _show_groups(self, console: Console) -> None:
        table = Table(
            box=SIMPLE, title="Pages, ms: the median of p50, the slowest p50, the worst request", title_justify="left"
        )
        table.add_column("")
        table.add_column("pages", justify="right")
        for phase in self.timings:
            table.add_column(f"it {phase}", justify="right")
        table.add_column(f"slowest, times {TRIVIAL}", justify="right")
        for group, of_group in _by_group(self.timings):
            cells = [
                " / ".join(f"{1000 * value:.0f}" for value in (
                    median(one.p50 for one in found), max(one.p50 for one in found), max(one.worst for one in found)))
                for found in of_group.values()
            ]  # fmt: skip
            first = next(iter(self.timings))
            trivial = next(one.p50 for one in self.timings[first] if one.address.path == TRIVIAL)
            times = max(one.p50 for one in of_group[first]) / trivial
            table.add_row(group, str(len(of_group[first])), *cells, f"{times:.0f}")
        console.print(table)


def _by_group(timings: Mapping[str, Sequence[Timing]]) -> Iterator[tuple[str, dict[str, list[Timing]]]]:
    groups = dict.fromkeys(one.address.group for found in timings.values() for one in found)
    for group in groups:
        yield group, {phase: [one for one in found if one.address.group == group] for phase, found in timings.items()}
