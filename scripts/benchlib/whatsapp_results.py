"""The results of `scripts/bench whatsapp`, their comparison with goals, and tables."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchlib.results import Goal, Spread, circumstances, machine_line
from benchlib.sweep import Sweep
from benchlib.whatsapp_round import Figures

MIB: Final = 1 << 20
NAMES: Final = {"plain": "plain neonize", "shardd": "shardd", "pooled": "shardd, PgBouncer"}
MOST_CONNECTIONS: Final = 40
ROWS: Final[tuple[tuple[str, str, float, int], ...]] = (
    ("refresh_cpu", "CPU per refresh, ms", 1, 2),
    ("send_cpu", "CPU per warm send, ms", 1, 2),
    ("first_contact_cpu", "CPU per refresh and first contact, ms", 1, 2),
    ("client_rss", "memory per open client, KiB", 1024, 0),
    ("process_rss", "memory of the process, MiB", MIB, 0),
    ("client_threads", "threads per open client", 1, 2),
    ("connections", "database connections, most", 1, 0),
)
"""Field, title, unit, digits."""


@dataclass(frozen=True)
class WhatsappResults:
    """All results."""

    rounds: dict[str, list[Figures]]
    """By subject: `plain`, `shardd`, and `pooled` if PgBouncer is installed."""
    devices: int
    messages: int
    sweeps: list[Sweep]
    server: dict[str, str]
    quick: bool

    def spread(self, who: str, field: str) -> Spread:
        """The rounds of one value."""
        return Spread([float(getattr(figures, field)) for figures in self.rounds[who]])

    def ratio(self, who: str, field: str) -> float:
        """The ratio to plain neonize, of the medians."""
        return self.spread(who, field).median / self.spread("plain", field).median

    def goals(self) -> list[Goal]:
        """The goals of shardd."""
        goals = [
            Goal(f"{what} against plain neonize's", self.ratio("shardd", field), most, at_least=False)
            for field, what, most in (
                ("refresh_cpu", "CPU per refresh", 1.3),
                ("send_cpu", "CPU per warm send", 1.15),
                ("client_rss", "memory per open client", 1.15),
            )
        ]
        for sweep in self.sweeps:
            if sweep.pgbouncer:
                most = float(MOST_CONNECTIONS)
                what = f"database connections, {sweep.devices:,} devices"
                goals.append(Goal(what, float(sweep.connections), most, at_least=False, unit="", digits=0))
        return goals

    def plain(self) -> dict[str, Any]:
        """The results as JSON; CPU in milliseconds, memory in bytes."""
        return {
            **circumstances(self.server, "neonize", "uvloop", "psycopg", quick=self.quick),
            "devices": self.devices,
            "warm_messages_per_device": self.messages,
            "rounds": {
                who: {field.name: self.spread(who, field.name).plain() for field in fields(Figures)} for who in self.rounds
            },
            "ratios": {
                who: {field.name: self.ratio(who, field.name) for field in fields(Figures)}
                for who in self.rounds
                if who != "plain"
            },
            "sweeps": [sweep.plain() for sweep in self.sweeps],
            "goals": [goal.plain() for goal in self.goals()],
        }  # fmt: skip

    def show(self, console: Console) -> None:
        """Print the tables."""
        console.print(f"{machine_line(self.server)}, neonize {version('neonize')}")
        console.print(self._costs())
        if self.sweeps:
            console.print(self._sweeps())
        for goal in self.goals():
            console.print(goal.text(), highlight=False)

    def _costs(self) -> Table:
        table = Table(
            box=SIMPLE,
            title=f"{self.devices} devices in one process, {self.messages} warm messages each: median of rounds (lowest-highest)",
            title_justify="left",
        )
        table.add_column("")
        for who in self.rounds:
            table.add_column(NAMES[who], justify="right")
            if who != "plain":
                table.add_column("ratio", justify="right")
        for field, title, unit, digits in ROWS:
            cells = [title]
            for who in self.rounds:
                cells.append(Spread([value / unit for value in self.spread(who, field).rounds]).text(digits))
                if who != "plain":
                    cells.append(f"{self.ratio(who, field):.2f}x")
            table.add_row(*cells)
        return table

    def _sweeps(self) -> Table:
        table = Table(box=SIMPLE, title="The sweep: one message of every device, all cold", title_justify="left")
        table.add_column("")
        for sweep in self.sweeps:
            table.add_column("with PgBouncer" if sweep.pgbouncer else "without PgBouncer", justify="right")
        rows: tuple[tuple[str, Any], ...] = (
            ("devices", lambda s: f"{s.devices:,}"),
            ("until all were sent, s", lambda s: f"{s.seconds:.1f}"),
            ("messages/s", lambda s: f"{s.devices / s.seconds:.0f}"),
            ("tried again", lambda s: f"{s.tries}"),
            ("sent twice", lambda s: f"{s.doubled}"),
            ("CPU of workers per device, ms", lambda s: f"{s.worker_cpu:.1f}"),
            ("memory of all workers, MiB", lambda s: f"{s.rss_of_workers / MIB:.0f}"),
            ("memory of the largest, MiB", lambda s: f"{s.largest_worker / MIB:.0f}"),
            ("open clients, most", lambda s: f"{s.open_clients}"),
            ("database connections, most", lambda s: f"{s.connections}"),
            ("CPU of the test server, s", lambda s: f"{s.server_cpu:.1f}"),
        )
        for title, show in rows:
            table.add_row(title, *(show(sweep) for sweep in self.sweeps))
        return table
