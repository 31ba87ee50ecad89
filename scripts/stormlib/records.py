"""What a storm left behind, as plain values: the database's rows, what was delivered, and what workers knew."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stormlib.operators import Acts
from stormlib.producers import Asked

ROWS = (
    "SELECT id, reference, device_id, state, attempt, failures, extract(epoch FROM run_at)::float8, error, error_class, "
    "waits_for, extract(epoch FROM created_at)::float8, extract(epoch FROM claimed_at)::float8, token "
    "FROM shardd.all_outcomes JOIN ("
    "SELECT id, claimed_at, token FROM shardd.jobs UNION ALL SELECT id, claimed_at, token FROM shardd.archive"
    ") claims USING (id) "
    "ORDER BY id"
)

Claim = tuple[int, int, int, int]
"""Job, epoch, attempt, token."""


@dataclass(frozen=True)
class Row:
    """A job in the database at the end."""

    id: int
    reference: str
    device: str | None
    state: str
    attempt: int
    failures: int
    run_at: float
    error: str | None = None
    error_class: str | None = None
    waits_for: str | None = None
    created_at: float = 0.0
    claimed_at: float | None = None
    """When its last claim was made."""
    token: int = 0
    """Of its claims; another one from each retry on, and of another job that gets its id after a database forgot it."""


@dataclass(frozen=True)
class Delivery:
    """A message that reached its recipient, or would have."""

    reference: str
    device: str
    at: float
    by: str
    """The node; empty: unknown."""
    job: int = 0
    attempt: int = 0


@dataclass
class Visit:
    """A client that was logged in at WhatsApp; `by`: its node."""

    device: str
    by: str
    begin: float
    end: float = float("inf")


@dataclass(frozen=True)
class Span:
    """A time in which something was so; `node`: of which node."""

    begin: float
    end: float
    node: str = ""

    def overlaps(self, begin: float, end: float) -> bool:
        """Whether it has a moment in common with this time."""
        return self.begin <= end and begin <= self.end


@dataclass
class Witness:
    """What workers wrote to their journals, and when."""

    started: defaultdict[int, dict[Claim, float]] = field(default_factory=lambda: defaultdict(dict))
    """By job: what may be in a journal as started."""
    handed_over: set[Claim] = field(default_factory=set)
    """What certainly is."""
    ending: set[Claim] = field(default_factory=set)
    """Whose outcome may be in a journal."""
    outcomes: dict[Claim, str] = field(default_factory=dict)
    """The verdicts of those whose outcome certainly is."""

    def note(self, line: str) -> Claim:
        """Add a line of a worker; returns the claim that it is about."""
        at, what, *said = json.loads(line)
        claim: Claim = (said[0], said[1], said[2], said[3])
        match what:
            case "starting":
                self.started[claim[0]][claim] = at
            case "started":
                self.handed_over.add(claim)
            case "ending":
                self.ending.add(claim)
            case "outcome":
                self.outcomes[claim] = said[4]
        return claim


@dataclass
class Records:
    """All of them."""

    asked: Mapping[str, Asked]
    confirmed: Mapping[str, float]
    """The references of inserts that were answered, and when."""
    rows: list[Row]
    deliveries: list[Delivery]
    witness: Witness
    visits: list[Visit] = field(default_factory=list)
    holds: list[Span] = field(default_factory=list)
    """What a node sent to WhatsApp was held back, also the ends of its connections."""
    parked: list[tuple[str, str, str]] = field(default_factory=list)
    """Devices that are not ready: each with its state and the reason."""
    opted_out: Mapping[str, float] = field(default_factory=dict)
    """Recipients, each with the time at which the opt-out was confirmed."""
    groups: Mapping[str, Collection[str]] = field(default_factory=dict)
    """The devices of device groups."""
    acts: Acts = field(default_factory=Acts)
    """Of the operator."""
    begun: Mapping[str, float] = field(default_factory=dict)
    """When inserts were tried first."""
    setbacks: list[Span] = field(default_factory=list)
    """The database has forgotten what was committed then."""
    away: list[Span] = field(default_factory=list)
    """A node was dead, frozen or apart from the database."""

    def forgotten(self, at: float) -> bool:
        """Whether the database may have forgotten what was confirmed at this moment."""
        return any(setback.overlaps(at, at) for setback in self.setbacks)

    def starts(self, row: Row) -> dict[Claim, float]:
        """The claims of a job, since its last retry, that may be in a journal as started."""
        return {claim: at for claim, at in self.witness.started[row.id].items() if claim[3] == row.token}


def read_rows(found: Iterable[tuple[Any, ...]]) -> list[Row]:
    """The result of ROWS."""
    return [Row(*row) for row in found]


def read_sandbox(nodes: Mapping[str, Path]) -> list[Delivery]:
    """The deliveries of sandbox devices; `nodes`: state folders by name."""
    deliveries = []
    for name, state_dir in nodes.items():
        for file in sorted((state_dir / "sandbox").glob("shard-*.jsonl")):
            for line in _lines(file):
                one = json.loads(line)
                deliveries.append(
                    Delivery(one["body"], one["device"], one["at"], name, job=one["job"], attempt=one["attempt"])
                )
    return deliveries


def read_witness(folder: Path) -> Witness:
    """What the workers of all nodes wrote down."""
    witness = Witness()
    for file in folder.glob("*.jsonl"):
        for line in _lines(file):
            witness.note(line)
    return witness


def _lines(file: Path) -> list[str]:
    """Without one that is not complete, because its writer was killed."""
    return file.read_text().split("\n")[:-1]
