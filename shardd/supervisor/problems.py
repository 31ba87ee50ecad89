"""What keeps a node from being healthy: each part reports its own problems; `shardd status` and the metrics show them all.

A problem is something that makes no progress although it could, or that needs an operator. It is reported within 30 seconds, and
disappears once its cause is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class ProblemKind(StrEnum):
    """The label `kind` of the metric `shardd_problems`."""

    CLOCK = "clock"
    """The host's clock is not that of the database."""
    DATABASE = "database"
    INBOX = "inbox"
    """Incoming messages wait to be stored, are lost, or cannot be written to the disk."""
    JOURNAL = "journal"
    LEASES = "leases"
    LIBRARY = "library"
    """WhatsApp refuses the installed version of its library."""
    MEMORY = "memory"
    OPT_OUTS = "opt_outs"
    POISON = "poison"
    PRODUCER = "producer"
    SHARD = "shard"
    DEFECT = "defect"
    DEVICE = "device"
    STATE_FOLDER = "state_folder"
    CONTROL = "control"
    """Commands do not reach this node: its control socket is gone and cannot be created."""
    DASHBOARD = "dashboard"
    """The process of the web page ends, or hangs, again and again."""
    CLAIM = "claim"
    """Claims that no worker has, or that one has had for far longer than a send may take."""
    EVENTS = "events"
    """An open transaction keeps events from being read."""
    REFUSED = "refused"
    """The database refuses to claim from a lane, or to store an outcome."""
    SERVER = "server"
    """What all sessions of the server share is nearly used up: connections, locks, the notification queue."""
    NODE = "node"
    """Another node was not heard of, or another supervisor is, or wants to be, this node, or has its name."""
    STEP = "step"
    """Periodic work fails repeatedly, or does not end."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`text`: a sentence that says what is wrong and, where an operator can do something, the fix."""

    kind: ProblemKind
    text: str


class ReportsProblems(Protocol):
    """A part that reports its own problems."""

    def problems(self) -> Iterable[Problem]:
        """The current problems, from memory: it is called twice a second and must not block."""
