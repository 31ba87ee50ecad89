"""The nodes of one database and their shards, as `shardd cluster` shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final

from shardd.cli.output import Text, state_text
from shardd.states import NodeState
from shardd.supervisor.cluster.node_shares import NodeShare
from shardd.supervisor.cluster.sharing import Move
from shardd.words import ago

FREE: Final = "free"
"""Instead of the node that holds a shard."""
NOBODY: Final = "nobody"
"""Instead of the node that takes it."""


def state_of(row: NodeShare) -> Text:
    """What a node does, and since when."""
    text = state_text(row.node.state)
    if row.node.since is not None:
        text.append(f" {ago(row.node.since)}")
    if row.node.cordoned_at is not None and row.node.state != NodeState.CORDONED:
        text.append(", cordoned", "yellow")
    return text


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
