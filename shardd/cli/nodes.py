"""The nodes of one database and their shards, as `shardd cluster` reads and shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from shardd.cli.output import Text, state_text
from shardd.queue.database import Database
from shardd.queue.leases import Node, all_nodes, held_leases
from shardd.states import NodeState
from shardd.supervisor.cluster.sharing import Move, Sharing, share
from shardd.words import ago

FREE: Final = "free"
"""Instead of the node that holds a shard."""
NOBODY: Final = "nobody"
"""Instead of the node that takes it."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node and its shards."""

    node: Node
    holds: list[int]
    planned: list[int]

    def state(self) -> Text:
        """What it does, and since when."""
        text = state_text(self.node.state)
        if self.node.since is not None:
            text.append(f" {ago(self.node.since)}")
        if self.node.cordoned_at is not None and self.node.state != NodeState.CORDONED:
            text.append(", cordoned", "yellow")
        return text

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        node = self.node
        names = ("name", "id", "state", "since", "cordoned_at", "host", "version", "pid", "state_dir", "started_at")
        shown = {name: getattr(node, name) for name in (*names, "seen_at", "ttl", "margin")}
        return shown | {"holds": self.holds, "planned": self.planned, "summary": node.summary}


def rows_of(nodes: Iterable[Node], sharing: Sharing) -> list[NodeRow]:
    """One for each node."""
    return [NodeRow(node, sharing.held_by(node.id), sharing.planned_for(node.id)) for node in nodes]


def sharing_as_json(nodes: Iterable[Node], sharing: Sharing) -> dict[str, Any]:
    """For programs."""
    moves = [{"shard": move.shard, "from": move.source, "to": move.target} for move in sharing.moves()]
    return {"shards": sharing.shards, "nodes": [row.as_json() for row in rows_of(nodes, sharing)], "moves": moves}


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in few words: `0-2, 5`."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def moves_in_words(moves: Iterable[Move], names: Mapping[str, str]) -> list[str]:
    """`one → two: 0-2, 5`, by nodes; `names` by their ids."""
    found: dict[tuple[str, str], list[int]] = {}
    for move in moves:
        source = FREE if move.source is None else names.get(move.source, move.source)
        target = NOBODY if move.target is None else names.get(move.target, move.target)
        found.setdefault((source, target), []).append(move.shard)
    return [f"{source} → {target}: {ranges(shards)}" for (source, target), shards in sorted(found.items())]


async def look(database: Database) -> tuple[list[Node], Sharing]:
    """The nodes of one database, and how they share its shards."""
    nodes = await all_nodes(database)
    leases = await held_leases(database)
    # Those that run agree; after a change of the config the others are of the past.
    latest = max(nodes, key=lambda node: (node.alive, node.started_at), default=None)
    return nodes, share(0 if latest is None else latest.shards, nodes, leases)
