"""Which faults happen when: fixed by the seed alone, so that a storm can be repeated.

Faults of one track follow each other; those of different tracks overlap. So a node can be lost while the database restarts, but
never is the primary lost while its standby is away.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PAUSE = (0.5, 4.0)
"""Seconds between the faults of a track."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how often it is chosen, and its shortest and longest time in lease periods."""

    weight: float
    shortest: float = 0.0
    longest: float = 0.0


@dataclass(frozen=True)
class Fault:
    """One fault. `at`: seconds from the beginning of the storm; `pick`: chooses among what the kind can strike (0 … 1)."""

    number: int
    track: str
    kind: str
    node: int
    at: float
    length: float
    pick: float


def make_plan(
    seed: int, seconds: float, ttl: float, nodes: int, tracks: Mapping[str, Mapping[str, Kind]]
) -> Mapping[str, Sequence[Fault]]:
    """The faults of each track, all of which are repaired within `seconds`."""
    plan: dict[str, list[Fault]] = {}
    for track, kinds in tracks.items():
        chance, names, faults = random.Random(f"{seed} {track}"), sorted(kinds), plan.setdefault(track, [])
        at = chance.uniform(*PAUSE)
        while True:
            kind = chance.choices(names, [kinds[name].weight for name in names])[0]
            node, pick = chance.randrange(nodes), chance.random()
            length = round(ttl * chance.uniform(kinds[kind].shortest, kinds[kind].longest), 3)
            if at + length > seconds:
                break
            faults.append(Fault(len(faults) + 1, track, kind, node, round(at, 3), length, pick))
            at += length + chance.uniform(*PAUSE)
    return plan
