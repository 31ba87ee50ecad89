"""The nodes of one database and their shards, for `shardd cluster` and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shardd.queue.database import Database
from shardd.queue.leases import Node, all_nodes, held_leases
from shardd.supervisor.cluster.sharing import Sharing, share


@dataclass(frozen=True, slots=True)
class NodeShare:
    """A node and its shards."""

    node: Node
    holds: list[int]
    planned: list[int]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        node = self.node
        names = ("name", "id", "state", "since", "cordoned_at", "host", "version", "pid", "state_dir", "started_at")
        shown = {name: getattr(node, name) for name in (*names, "seen_at", "ttl", "margin")}
        return shown | {"holds": self.holds, "planned": self.planned, "summary": node.summary}


def shares_of(nodes: Iterable[Node], sharing: Sharing) -> list[NodeShare]:
    """One for each node."""
    return [NodeShare(node, sharing.held_by(node.id), sharing.planned_for(node.id)) for node in nodes]


def sharing_as_json(nodes: Iterable[Node], sharing: Sharing) -> dict[str, Any]:
    """For programs."""
    moves = [{"shard": move.shard, "from": move.source, "to": move.target} for move in sharing.moves()]
    return {"shards": sharing.shards, "nodes": [row.as_json() for row in shares_of(nodes, sharing)], "moves": moves}


async def look(database: Database) -> tuple[list[Node], Sharing]:
    """The nodes of one database, and how they share its shards."""
    nodes = await all_nodes(database)
    leases = await held_leases(database)
    # Those that run agree; after a change of the config the others are of the past.
    latest = max(nodes, key=lambda node: (node.alive, node.started_at), default=None)
    return nodes, share(0 if latest is None else latest.shards, nodes, leases)
