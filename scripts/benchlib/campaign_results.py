"""The results of `scripts/bench campaign`, their comparison with goals, and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchlib.campaign_round import Campaign, CampaignFigures
from benchlib.results import Goal, Spread, circumstances, machine_line
from benchlib.sweep import Sweep
from benchlib.whatsapp_results import MIB, NAMES

Value = Callable[[CampaignFigures], float]

CAMPAIGN: Final[tuple[tuple[str, str, int, Value], ...]] = (
    ("login_per_message", "logins per message", 2, lambda f: f.login_per_message),
    ("login_per_device", "logins per device", 2, lambda f: f.login_per_device),
    ("worker_cpu_ms", "CPU of the workers per message, ms", 2, lambda f: f.worker_cpu),
    ("supervisor_cpu_ms", "CPU of the supervisor per message, ms", 2, lambda f: f.supervisor_cpu),
    ("claim_to_settle_p50", "claim to settle, p50, s", 3, lambda f: f.claim_to_settle.p50),
    ("claim_to_settle_p99", "p99, s", 3, lambda f: f.claim_to_settle.p99),
    ("claim_to_settle_max", "longest, s", 3, lambda f: f.claim_to_settle.longest),
    ("connected_p50", "once all are connected, p50, s", 3, lambda f: f.connected.p50),
    ("connected_p99", "p99, s", 3, lambda f: f.connected.p99),
    ("connected_max", "longest, s", 3, lambda f: f.connected.longest),
    ("given_back", "claims given back and claimed again", 0, lambda f: f.given_back),
    ("failures", "attempts that failed", 0, lambda f: f.failures),
    ("rate", "messages/s", 1, lambda f: f.rate),
    ("first_rate", "messages/s, first {beginning:g} s", 1, lambda f: f.first_rate),
    ("seconds", "until all were sent, s", 1, lambda f: f.seconds),
    ("open_clients", "open clients, most", 0, lambda f: f.open_clients),
    ("client_kib", "memory per open client, KiB", 0, lambda f: f.client_rss / 1024),
    ("processes_mib", "memory of all processes, most, MiB", 0, lambda f: f.processes_rss / MIB),
    ("server_cpu_ms", "CPU of the test server per message, ms", 2, lambda f: f.server_cpu),
)
"""Name in JSON, title, digits, value."""
VALUES: Final = {name: value for name, _, _, value in CAMPAIGN}
SUBJECTS: Final = ("plain", "shardd")


@dataclass(frozen=True)
class Cold:
    """One round of cold devices."""

    plain: float
    """Seconds until the last message, of plain neonize."""
    shardd: Sweep


@dataclass(frozen=True)
class CampaignResults:
    """All results."""

    campaign: Campaign
    rounds: dict[str, list[CampaignFigures]]
    """By subject."""
    cold: list[Cold]
    server: dict[str, str]
    quick: bool

    def spread(self, who: str, name: str) -> Spread:
        """The rounds of one value."""
        return Spread([float(VALUES[name](figures)) for figures in self.rounds[who]])

    def ratio(self, name: str) -> float | None:
        """That of shardd over plain neonize's; None where that has none."""
        plain = self.spread("plain", name)
        return self.spread("shardd", name).over(plain) if all(plain.rounds) else None

    def warm_sends(self) -> Spread:
        """The p99 of plain neonize's warm sends."""
        return Spread([figures.warm.p99 for figures in self.rounds["plain"] if figures.warm is not None])

    def cold_spreads(self) -> dict[str, Spread]:
        """Seconds until the last of the cold devices had sent."""
        return {
            "plain": Spread([each.plain for each in self.cold]),
            "shardd": Spread([each.shardd.seconds for each in self.cold]),
        }

    def goals(self) -> list[Goal]:
        """What a campaign should reach."""
        given_back = self.spread("shardd", "given_back").rounds + [float(each.shardd.tries) for each in self.cold]
        cold = self.cold_spreads()
        return [
            Goal("logins per device", self.spread("shardd", "login_per_device").median, 1.05, at_least=False, unit=""),
            Goal(
                "claims given back, most of all rounds and phases",
                max(given_back),
                0,
                at_least=False,
                unit="",
                digits=0,
            ),
            Goal(
                "claim to settle (p99) once all are connected against a warm send of plain neonize, alone",
                self.spread("shardd", "connected_p99").over(self.warm_sends()),
                3.0,
                at_least=False,
            ),
            _against_plain("claim to settle (p99) once all are connected", self.ratio("connected_p99"), 3.0),
            _against_plain("messages/s", self.ratio("rate"), 0.9, at_least=True),
            _against_plain("CPU of the workers per message", self.ratio("worker_cpu_ms"), 1.05),
            _against_plain("memory per open client", self.ratio("client_kib"), 1.05),
            _against_plain("time until all cold devices had sent", cold["shardd"].over(cold["plain"]), 1.15),
        ]

    def plain(self) -> dict[str, Any]:
        """The results as JSON; times in seconds unless their name says otherwise."""
        return {
            **circumstances(self.server, "neonize", "uvloop", "psycopg", quick=self.quick),
            "campaign": {**asdict(self.campaign), "scheduled_rate": self.campaign.scheduled_rate()},
            "values": {who: {name: self.spread(who, name).plain() for name in VALUES} for who in SUBJECTS},
            "ratios": {name: self.ratio(name) for name in VALUES},
            "warm_send_p99": self.warm_sends().plain(),
            "cold": {who: spread.plain() for who, spread in self.cold_spreads().items()},
            "cold_ratio": self.cold_spreads()["shardd"].over(self.cold_spreads()["plain"]),
            "rounds": {who: [figures.plain() for figures in self.rounds[who]] for who in SUBJECTS},
            "cold_rounds": [{"plain": each.plain, "shardd": each.shardd.plain()} for each in self.cold],
            "goals": [goal.plain() for goal in self.goals()],
        }

    def show(self, console: Console) -> None:
        """Print the tables."""
        console.print(f"{machine_line(self.server)}, neonize {version('neonize')}")
        console.print(self._campaign())
        console.print(
            f"The gaps alone allow {self.campaign.scheduled_rate():.1f} messages/s over the whole campaign, and "
            f"{self.campaign.steady_rate:.1f} while every device has some left.\n",
            highlight=False,
        )
        console.print(self._cold())
        for goal in self.goals():
            console.print(goal.text(), highlight=False)

    def _campaign(self) -> Table:
        it = self.campaign
        table = _table(
            f"{it.devices:,} devices in {it.processes} processes, {it.messages} messages each to new recipients, gaps of "
            f"{it.gap[0]:g}-{it.gap[1]:g} s, {'with' if it.pgbouncer else 'without'} PgBouncer: median of rounds (lowest-highest)"
        )
        for name, title, digits, _ in CAMPAIGN:
            ratio = self.ratio(name)
            table.add_row(
                title.format(beginning=it.beginning),
                *(self.spread(who, name).text(digits) for who in SUBJECTS),
                "" if ratio is None else f"{ratio:.2f}x",
            )
        table.add_row("a warm send, p99, s", self.warm_sends().text(3), "", "")
        return table

    def _cold(self) -> Table:
        table = _table(f"Cold: one message of each of {self.campaign.devices:,} devices, none of them connected")
        cold = self.cold_spreads()
        ratio = f"{cold['shardd'].over(cold['plain']):.2f}x"
        table.add_row("until all were sent, s", *(cold[who].text(1) for who in SUBJECTS), ratio)
        tries = Spread([float(each.shardd.tries) for each in self.cold])
        table.add_row("claims given back and claimed again", "", tries.text(0), "")
        return table


def _against_plain(what: str, ratio: float | None, wanted: float, *, at_least: bool = False) -> Goal:
    assert ratio is not None
    return Goal(f"{what} against plain neonize's", ratio, wanted, at_least=at_least)


def _table(title: str) -> Table:
    table = Table(box=SIMPLE, title=title, title_justify="left")
    for name in ("", *(NAMES[who] for who in SUBJECTS), "ratio"):
        table.add_column(name, justify="right" if name else "left")
    return table
