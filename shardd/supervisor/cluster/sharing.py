"""Who holds which shards at one moment, and who should: what every node acts on, and what commands and the status show. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from shardd.queue.leases import Lease, Node
from shardd.supervisor.cluster.plan import plan


@dataclass(frozen=True, slots=True)
class Move:
    """A shard that is not where it should be. The nodes by their ids; None: nobody."""

    shard: int
    source: str | None
    target: str | None
    """None: no node takes shards."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """Shard → id of a node."""

    shards: int
    held: Mapping[int, str]
    """By leases that have not expired."""
    planned: Mapping[int, str]
    """Empty: no node takes shards."""

    def held_by(self, node_id: str) -> list[int]:
        """The shards of a node."""
        return sorted(shard for shard, node in self.held.items() if node == node_id)

    def planned_for(self, node_id: str) -> list[int]:
        """The shards that a node should hold."""
        return sorted(shard for shard, node in self.planned.items() if node == node_id)

    def moves(self) -> Iterator[Move]:
        """What is not as planned."""
        for shard in range(self.shards):
            move = Move(shard, self.held.get(shard), self.planned.get(shard))
            if move.source is None or move.source != move.target:
                yield move


def share(
    shards: int, nodes: Iterable[Node], leases: Iterable[Lease], expected: frozenset[str] = frozenset()
) -> Sharing:
    """How these nodes share the shards; `expected`: those that will serve in a moment."""
    held = {lease.shard: lease.node_id for lease in leases}
    return Sharing(shards, held, plan(shards, [node.id for node in nodes if node.serves or node.id in expected], held))
