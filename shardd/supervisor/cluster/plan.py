"""Which node should hold each shard, from what every node can read in the database. Pure: nothing here acts.

Nodes hold equally many shards, to within one. A node keeps what it holds up to its share, so a node that joins moves at most its
own share, rounded up, and one that leaves moves only what it held. Within that, rendezvous hashing decides. Nodes that read the
same plan the same; those that read at different moments may not, which is harmless: a node gives back only what it holds, and
takes only what is free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from shardd.hashing import weight


def plan(shards: int, nodes: Collection[str], held: Mapping[int, str]) -> dict[int, str]:
    """The node of each shard; empty if there is none. `nodes`: those that serve; `held`: the present node of a shard, if any."""
    if not nodes:
        return {}
    present = {shard: node for shard, node in held.items() if shard < shards and node in nodes}
    share = _shares(shards, nodes, present)
    planned: dict[int, str] = {}
    # The heaviest pairs win: first of those that exist, so that little moves, then of all.
    for shard, node in _heaviest(present.items()):
        if share[node]:
            planned[shard] = node
            share[node] -= 1
    free = [shard for shard in range(shards) if shard not in planned]
    for shard, node in _heaviest([(shard, node) for shard in free for node in nodes if share[node]]):
        if shard not in planned and share[node]:
            planned[shard] = node
            share[node] -= 1
    return planned


def reserve(shards: int, nodes: int, held: int) -> int:
    """How many more shards a node may have to take when one of this many is lost; `held`: those it has now."""
    return max(0, -(-shards // (nodes - 1)) - held) if nodes > 1 else 0


def _shares(shards: int, nodes: Collection[str], present: Mapping[int, str]) -> dict[str, int]:
    """How many each gets. What is left over goes first to those that hold more than the rest get, so that it need not move."""
    each, over = divmod(shards, len(nodes))
    holding = Counter(present.values())
    # Not to those that hold most: a node that takes its share before another one does would get that one's, and wait to notice.
    order = sorted(nodes, key=lambda node: (holding[node] > each, weight("share", node), node), reverse=True)
    return {node: each + (place < over) for place, node in enumerate(order)}


def _heaviest(pairs: Collection[tuple[int, str]]) -> list[tuple[int, str]]:
    return sorted(pairs, key=lambda pair: (weight(f"shard-{pair[0]}", pair[1]), pair), reverse=True)
