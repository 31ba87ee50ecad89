"""What a storm did, in two tables: its faults, and how long devices were silent after each kind of loss."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

from shardd.hashing import shard_of
from stormlib.checks import Finding
from stormlib.records import Delivery

NOT_FOUND = "NOT FOUND"
SHOWN = 5
"""Findings of each promise that are printed."""


@dataclass(frozen=True)
class Loss:
    """A fault that took its shards from a node, or the database from all; `by`: the node, empty: no single one."""

    kind: str
    at: float
    by: str
    shards: frozenset[int]


@dataclass
class Result:
    """Of a storm."""

    seed: int
    seconds: float
    folder: str
    states: Counter[str] = field(default_factory=Counter)
    delivered: int = 0
    by_whatsapp: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    """Of people, besides their inserts."""
    failovers: dict[str, list[float]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def failover_times(losses: Sequence[Loss], deliveries: Sequence[Delivery], shards: int) -> dict[str, list[float]]:
    """By kind, for each shard: seconds from the loss to the next delivery by another node (or any, if the database was lost).

    A shard that its own node served again first is left out.
    """
    of_shard: defaultdict[int, list[Delivery]] = defaultdict(list)
    for delivery in sorted(deliveries, key=lambda one: one.at):
        of_shard[shard_of(delivery.device, shards)].append(delivery)
    times: defaultdict[str, list[float]] = defaultdict(list)
    for loss in losses:
        for shard in loss.shards:
            next_one = next(
                (one for one in of_shard[shard] if one.at > loss.at and (not loss.by or one.by != loss.by)), None
            )
            own = loss.by and any(loss.at + 1.0 < one.at < next_one.at for one in of_shard[shard]) if next_one else True
            if next_one is not None and not own:
                times[loss.kind].append(next_one.at - loss.at)
    return dict(times)


def show(result: Result, console: Console) -> None:
    """Print the tables and the findings."""
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(result.states.items()))
    delivered = f"{result.delivered:,} messages delivered, {result.by_whatsapp:,} of them by WhatsApp"
    console.print(f"seed {result.seed}, {result.seconds:g} s: {delivered}; jobs: {states}", highlight=False)
    acts = ", ".join(f"{what} {times}" for what, times in sorted(result.acts.items()))
    console.print(f"by people: {acts}", highlight=False)
    table = Table("fault", "times", "shards that moved", "first message p50, s", "longest, s")
    for kind, times in sorted(result.faults.items()):
        moved = result.failovers.get(kind, [])
        measured = [f"{median(moved):.1f}", f"{max(moved):.1f}"] if moved else ["", ""]
        table.add_row(kind, str(times), str(len(moved)) if moved else "", *measured)
    table.add_row("all", str(result.faults.total()), "", "", "")
    console.print(table)
    by_promise: defaultdict[str, list[str]] = defaultdict(list)
    for finding in result.findings:
        by_promise[finding.promise].append(finding.text)
    for promise, texts in by_promise.items():
        console.print(f"BROKEN: {promise} ({len(texts)} times)", style="red", highlight=False)
        for text in texts[:SHOWN]:
            console.print(f"  {text}", highlight=False, soft_wrap=True)
    if result.findings:
        console.print(f"The log, the records and the nodes' folders are in {result.folder}", highlight=False)
    else:
        console.print("No promise was broken.")


def found_in_words(promises: Counter[str]) -> str:
    """The broken promises that gave a removed safety away."""
    return ", ".join(f"{promise} ({times})" for promise, times in promises.most_common())


def show_mutants(found: Mapping[str, str], console: Console) -> None:
    """Print which removed safeties were found, and by what."""
    table = Table("removed safety", "found by")
    for name, how in found.items():
        table.add_row(name, how or NOT_FOUND)
    console.print(table)
