"""What this node last saw of all nodes: for its status, which shows every node, and the problems that concern them all.

Every node reports those: an operator may look at any of them. What another node says about itself is as old as its last report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC
from typing import Final
from uuid import UUID

import msgspec

from shardd.clock import boot_now
from shardd.config.values import format_duration
from shardd.queue.database import Database
from shardd.queue.leases import Lease, Node, report_summary
from shardd.states import NodeState
from shardd.supervisor.cluster.sharing import Sharing, share
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.status import NodeStatus, NodeSummary
from shardd.words import span

MISSED: Final = 1 / 3
"""Of the time for which a node keeps its leases without renewing them: after that, it has missed more than one renewal."""
LATELY: Final = 86_400.0
"""Seconds for which a node that went silent is a problem; then its host may be gone for good, and a note is left."""
FREE_SHOWN: Final = 10.0
"""Seconds for which a shard is free before that is a problem: it is while it moves, and after its node has died."""


class ClusterPicture:
    """The nodes and their shards, as of the last look."""

    def __init__(self, node_id: str) -> None:
        self._id = node_id
        self._nodes: Sequence[Node] = ()
        self._sharing = Sharing(0, {}, {})
        self._looked_at = 0.0
        self._free_since: dict[int, float] = {}

    @property
    def any_free(self) -> bool:
        """Whether a shard had no node, and should have one."""
        return bool(self._free_since)

    def age(self) -> float | None:
        """Seconds since the last look; None: there was none."""
        return boot_now() - self._looked_at if self._nodes else None

    def look(
        self, shards: int, nodes: Sequence[Node], leases: Iterable[Lease], own: Collection[int], now: float
    ) -> None:
        """Remember what was read from the database; `own`: the shards that this node holds; `now`: on `shardd.clock`."""
        others = [lease for lease in leases if lease.node_id != self._id]
        self._nodes = nodes
        self._sharing = share(shards, nodes, [*others, *(Lease(shard, self._id, 0.0) for shard in own)])
        self._looked_at = now
        held = self._sharing.held
        self._free_since = {shard: self._free_since.get(shard, now) for shard in range(shards) if shard not in held}

    def served_by(self, shard: int) -> str | None:
        """The name of the other node that has a shard; None: none has, or this one."""
        holder = self._sharing.held.get(shard)
        return next((node.name for node in self._nodes if node.id == holder != self._id), None)

    def statuses(self) -> list[NodeStatus]:
        """All that have not stopped."""
        return [self._status(node) for node in self._nodes if node.state != NodeState.STOPPED]

    def _status(self, node: Node) -> NodeStatus:
        missed = _missed(node)
        said = summary_of(node) if node.alive and missed is None else None
        return NodeStatus(
            node=node.name,
            id=node.id,
            own=node.id == self._id,
            host=node.host,
            version=node.version,
            state=node.state,
            since=None if node.since is None else node.since.timestamp(),
            cordoned=node.cordoned_at is not None,
            seen_ago=missed,
            shards=self._sharing.held_by(node.id),
            planned=self._sharing.planned_for(node.id),
            devices=None if said is None else said.devices,
            in_flight=None if said is None else said.in_flight,
            sent_per_second=None if said is None else said.sent_per_second,
            problems=None if said is None else said.problems,
            problem=None if said is None else said.problem,
            down=None if said is None else said.down,
        )

    def notes(self) -> list[str]:
        """That this node is cordoned, and which others have been silent for long."""
        gone = [
            f"node {node.name} on {node.host} is silent since {node.seen_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            for node in self._nodes
            if node.state == NodeState.SILENT and node.seen_at is not None and (_missed(node) or 0.0) > LATELY
        ]
        return gone + [
            f"this node is cordoned since {node.cordoned_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC, and takes no shards: "
            f"shardd cluster uncordon {node.name}"
            for node in self._nodes
            if node.id == self._id and node.cordoned_at is not None
        ]

    def problems(self) -> Iterator[Problem]:
        """What concerns all nodes."""
        alive = [node for node in self._nodes if node.alive and node.state != NodeState.LEAVING]
        cordoned = [node.name for node in alive if node.state == NodeState.CORDONED]
        if cordoned and not self._sharing.planned:
            which = f"{', '.join(cordoned)} {'is' if len(cordoned) == 1 else 'are'} cordoned"
            text = f"no node takes shards, because {which}: nothing is sent; shardd cluster uncordon NODE"
            yield Problem(ProblemKind.LEASES, text)
        elif alive:
            yield from self._free_shards()
        yield from _differing_leases(alive)
        yield from self._missing()

    def _missing(self) -> Iterator[Problem]:
        for node in self._nodes:
            if node.id == self._id or (missed := _missed(node)) is None or missed > LATELY:
                continue
            text = f"node {node.name} on {node.host} was not heard of for {span(missed)}: it is down or cut off from the database"
            if node.alive:
                text += f"; its shards go to other nodes after {format_duration(node.ttl)}"
            yield Problem(ProblemKind.NODE, f"{text}; look there: shardd status")

    def _free_shards(self) -> Iterator[Problem]:
        ages = {shard: self._looked_at - since for shard, since in self._free_since.items()}
        free = [shard for shard, age in ages.items() if age >= FREE_SHOWN]
        if free:
            one = len(free) == 1
            shards = f"shard {free[0]} has" if one else f"shards {', '.join(map(str, free))} have"
            longest = max(ages[shard] for shard in free)
            whose = "its" if one else "their"
            text = f"{shards} had no node for {longest:.0f} s: {whose} jobs are not sent; see: shardd cluster list"
            yield Problem(ProblemKind.LEASES, text)


def _missed(node: Node) -> float | None:
    """For how long it was not heard of, if that is too long."""
    return node.seen_ago if node.seen_ago is not None and node.seen_ago > node.ttl * MISSED else None


async def report_to_others(
    database: Database, node_id: str, incarnation: UUID, summary: Callable[[], NodeSummary]
) -> None:
    """Store what this node says about itself now. Raises DatabaseError."""
    await report_summary(database, node_id, incarnation, msgspec.json.encode(summary()).decode())


def summary_of(node: Node) -> NodeSummary | None:
    """What the node last said about itself; None: nothing, or it is of a release that says something else."""
    try:
        return msgspec.convert(node.summary, NodeSummary)
    except msgspec.ValidationError:
        return None


def _differing_leases(nodes: Iterable[Node]) -> Iterator[Problem]:
    """Nodes that take over from each other must agree when one is silent."""
    found: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        if node.margin is not None:
            found[f"ttl: {format_duration(node.ttl)}, margin: {format_duration(node.margin)}"].append(node.name)
    if len(found) > 1:
        which = "; ".join(f"{lease} on {', '.join(names)}" for lease, names in sorted(found.items()))
        yield Problem(
            ProblemKind.LEASES, f"the nodes have different `lease` settings: {which}. Give all of them the same"
        )
