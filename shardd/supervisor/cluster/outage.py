"""After the database was away for so long that every lease expired, all nodes come back, but not at the same moment.

The first would find no other node alive, take all shards, start a worker for each, and give most of them back a moment later. So
for a while it counts those as alive that were before. A node that did die meanwhile loses its shards that much later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shardd.clock import boot_now
from shardd.queue.leases import Node
from shardd.states import NodeState

GRACE: Final = 0.5
"""Of a lease's time: for so long the others are awaited."""


class Outage:
    """Which nodes are expected back."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._serving: frozenset[str] = frozenset()  # at the last renewal
        self._expected: frozenset[str] = frozenset()
        self.until = 0.0
        """Until when, on `shardd.clock`."""

    def look(self, nodes: Sequence[Node], *, ended: bool) -> frozenset[str]:
        """The nodes that are not back yet; `ended`: this is the first look after an outage."""
        if ended:
            self._expected, self.until = self._serving, boot_now() + self._ttl * GRACE
        silent = {node.id for node in nodes if node.state == NodeState.SILENT}
        self._expected = self._expected & silent if boot_now() < self.until else frozenset()
        self._serving = self._expected.union(node.id for node in nodes if node.serves)
        return self._expected
