"""What keeps a node from being healthy: each part reports its own problems; `shardd status` and the metrics show them all.

A problem is something that stands still though it could move, or that needs a person. It is reported within 30 seconds and
disappears by itself once its cause is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class ProblemKind(StrEnum):
    """What kind of thing is wrong: the label `kind` of the metric `shardd_problems`."""

    DATABASE = "database"
    JOURNAL = "journal"
    LEASES = "leases"
    MEMORY = "memory"
    OPT_OUTS = "opt_outs"
    POISON = "poison"
    PRODUCER = "producer"
    SHARD = "shard"
    DEFECT = "defect"
    DEVICE = "device"
    STATE_FOLDER = "state_folder"
    CONTROL = "control"
    """Commands do not reach this node: its control socket is gone and cannot be made anew."""
    CLAIM = "claim"
    """Claims that no worker has, or that one has for far longer than a send may take."""
    EVENTS = "events"
    """Somebody's transaction keeps events from being read."""
    REFUSED = "refused"
    """The database refuses to claim from a lane, or to store an outcome."""
    SERVER = "server"
    """What all sessions of the database's server share is nearly used up: connections, locks, the queue of notifications."""
    STEP = "step"
    """Work that is repeated for ever fails again and again, or does not end."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem; `text` says in a sentence what is wrong and, where a person can do something, the fix."""

    kind: ProblemKind
    text: str


class ReportsProblems(Protocol):
    """A part that knows what is wrong with what it does."""

    def problems(self) -> Iterable[Problem]:
        """The problems of this moment, from memory: it is called twice a second and must not block."""
