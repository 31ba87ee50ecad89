"""How the clients of sessions reach PostgreSQL: directly, through a PgBouncer, or fewer of them at once. Pure.

The WhatsApp library keeps up to two connections for each open client. What the daemon itself and an operator's commands need
comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PER_CLIENT: Final = 2
"""Connections that the library keeps to the store for each open client."""
DAEMON: Final = 25
"""Connections of a supervisor (`shardd.supervisor.pools`, and one for each channel that it hears) and its dashboard, at most."""
COMMANDS: Final = 5
"""For commands and pairings."""
MOST_POOLED: Final = 20
"""Server connections of a PgBouncer, at most: a statement of the library takes less than a millisecond."""
LEAST_POOLED: Final = 2


@dataclass(frozen=True, slots=True)
class Demand:
    """What the devices of a node may need."""

    devices: int
    """With sessions."""
    shards: int
    """Of the config: in the end this node may serve all of them."""
    max_open_clients: int
    """Of each worker."""

    @property
    def connections(self) -> int:
        """At most."""
        return PER_CLIENT * min(self.devices, self.shards * self.max_open_clients)

    @property
    def words(self) -> str:
        """The first half of a sentence."""
        devices = "1 WhatsApp device" if self.devices == 1 else f"{self.devices:,} WhatsApp devices"
        return f"{devices} may need {self.connections:,} connections to PostgreSQL"


@dataclass(frozen=True, slots=True)
class Supply:
    """What PostgreSQL has."""

    free: int
    """Connections that the login of the sessions may have, less those of other programs."""

    @property
    def for_clients(self) -> int:
        """Without what comes first; may be negative."""
        return self.free - DAEMON - COMMANDS

    @property
    def words(self) -> str:
        """The second half."""
        return f"which has {max(0, self.for_clients):,} for them"

    def suffices(self, demand: Demand) -> bool:
        """Whether every client may connect directly."""
        return demand.connections <= self.for_clients

    def pooled(self) -> int:
        """Server connections of a PgBouncer."""
        return max(LEAST_POOLED, min(MOST_POOLED, self.for_clients // 2))

    def clients(self, workers: int) -> int:
        """Clients that each of so many workers may have open when they connect directly."""
        return max(1, self.for_clients // (PER_CLIENT * max(1, workers)))
