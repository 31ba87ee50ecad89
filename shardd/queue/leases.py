"""Leases in the database: the statements of `sql/leases.sql` as typed calls."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from shardd.queue.beats import BeatMemory
from shardd.queue.database import Database
from shardd.queue.queries import Params, Queries, Record, first
from shardd.states import NodeState


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Which node a supervisor is."""

    id: str
    """Of its state folder: this is what makes it a node."""
    name: str
    """From the config, for people."""
    host: str
    state_dir: str
    place: str | None
    """The lock of the state folder, in one run of a kernel; None: unknown. It proves that an earlier holder is dead."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node, as the database knows it."""

    id: str
    name: str
    incarnation: UUID
    shards: int
    """The number in its config."""
    version: str
    pid: int
    host: str
    state_dir: str
    place: str | None
    ttl: float
    margin: float | None
    started_at: datetime
    cordoned_at: datetime | None
    """Since when an operator wants it to hold no shards, whether it runs or not; None: it may."""
    summary: Any
    """What it last said about itself (`report_summary`); None: nothing."""
    state: str
    """One of `NodeState`."""
    since: datetime | None
    """Of the state; None: since it serves, or unknown."""
    beat: UUID | None
    timeline: int | None
    """Of the server, on which it has settled again all that it sent; None: on none yet."""
    seen_at: datetime | None
    """None: it has stopped."""
    seen_ago: float | None
    """Seconds since then, when this was read."""
    rival: str | None
    """The last supervisor that was refused because of this one, in words."""
    rival_age: float | None
    """Seconds since then."""

    @property
    def where(self) -> str:
        """In words."""
        return describe(self.name, self.host, self.pid, self.state_dir)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.state not in (NodeState.SILENT, NodeState.STOPPED)

    @property
    def serves(self) -> bool:
        """Whether it takes shards now."""
        return self.state == NodeState.SERVING


def describe(name: str, host: str, pid: int, state_dir: str) -> str:
    """A supervisor, in words."""
    return f"node {name} on host {host} (pid {pid}, state_dir {state_dir})"


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that has not expired, as the database knows it."""

    shard: int
    node_id: str
    seconds_left: float
    """Until it expires, unless it is renewed."""


@dataclass(frozen=True, slots=True)
class LastBeat:
    """The last renewal of a node, alive or not, as the database knows it."""

    name: str
    incarnation: UUID
    pid: int
    host: str
    state_dir: str
    address: str | None
    """From where it came; None: through a socket."""
    beats: int
    beat: UUID | None
    earlier_beats: list[UUID]
    """The last ones of earlier incarnations."""
    at: float | None
    """By the database's clock."""

    @property
    def where(self) -> str:
        """In words."""
        return describe(self.name, self.host, self.pid, self.state_dir)


class Renewed(NamedTuple):
    """What became of a renewal."""

    current: bool
    """Whether this supervisor is the node's present one."""
    epochs: set[int]
    """Whose leases are still valid."""
    doubt: str | None = None
    """Why the database seems to be older than a state folder: nothing may be claimed. None: it does not."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A live node, as a command sees it."""

    pid: int | None
    """Of its supervisor, on its own host."""
    age: float
    """Seconds since its last sign of life."""
    shards: int
    """The number of its leases."""


async def find_registration(database: Database, name: str, host: str, ttl: float) -> Registration | None:
    """The node, if it was alive within `ttl` seconds and has not stopped. Raises DatabaseError."""
    return first(await database.rows(Registration, "node_registration", {"name": name, "host": host, "ttl": ttl}))


async def is_any_served(database: Database) -> bool:
    """Whether a node, on whichever host, serves any shard. Raises DatabaseError."""
    return bool(await database.value("any_lease"))


async def all_nodes(database: Queries) -> list[Node]:
    """Every node that is not forgotten yet, by name. Raises DatabaseError."""
    return await database.rows(Node, "all_nodes")


async def held_leases(database: Database) -> list[Lease]:
    """The leases of all nodes. Raises DatabaseError."""
    return await database.rows(Lease, "held_leases")


async def report_summary(database: Database, node_id: str, incarnation: UUID, summary: str) -> None:
    """Store what a node says about itself, a JSON object. Raises DatabaseError."""
    await database.execute("report_summary", {"id": node_id, "incarnation": incarnation, "summary": summary})


async def set_cordoned(database: Queries, node_id: str, *, cordoned: bool) -> bool:
    """Cordon a node or end that, which all nodes notice at once; False: nothing was to be changed. Raises DatabaseError."""
    return bool(await database.rows(Record, "cordon_node", {"id": node_id, "cordoned": cordoned}))


class Leases:
    """The leases' statements, on behalf of one incarnation of one node."""

    def __init__(
        self, database: Database, *, node: NodeIdentity, incarnation: UUID, ttl: float, memory: BeatMemory | None = None
    ) -> None:
        """`ttl`: seconds for which a lease is valid."""
        self.memory = memory or BeatMemory()
        self.former = self.memory.beats_known()
        """The last beats of the state folder before this incarnation: who has stored one of them, on this lock, is dead."""
        self.migrations = 0
        """How many the database had at the last renewal: a newer release may have applied some."""
        self._database = database
        # One statement after the other: one that waited for a connection would not know the beat of the one before it.
        self._turn = asyncio.Lock()
        self._node = {**asdict(node), "incarnation": incarnation}
        self._who = {"id": node.id, "incarnation": incarnation}
        self._ttl = ttl

    async def register(self, shards: int, version: str, *, margin: float | None = None) -> bool:
        """Record that this incarnation has started; False: another supervisor may be running on a copy of the state folder."""
        lease = {"ttl": self._ttl, "margin": margin}
        params = {**self._node, **lease, "shards": shards, "version": version, "pid": os.getpid()}
        async with self._turn:
            self.former = self.memory.beats_known()
            await self.memory.intend()
            params |= {"next": self.memory.next, "former": self.former}
            row = first(await self._database.rows(Record, "register_node", params))
            if row is None:
                return False
            await self.memory.acknowledge(**row, server=self._database.server)
        return True

    async def release_earlier(self) -> None:
        """End the leases of earlier incarnations of this node."""
        params = {**self._who, "place": self._node["place"], "former": self.former}
        await self._database.execute("release_earlier_leases", params)

    async def nodes(self) -> list[Node]:
        """Those that are not forgotten yet."""
        return await all_nodes(self._database)

    async def live_nodes(self) -> list[Node]:
        """Those that run."""
        return [node for node in await self.nodes() if node.alive]

    async def held(self) -> list[Lease]:
        """The leases of all nodes."""
        return await held_leases(self._database)

    async def report_rival(self, incarnation: UUID, rival: str) -> None:
        """Tell a live node of another supervisor that was refused because of it."""
        await self._database.execute("report_rival", {"incarnation": incarnation, "rival": rival})

    async def renew(
        self, epochs: Sequence[int], *, away: bool = False, leaving: bool = False, timeline: int | None = None
    ) -> Renewed:
        """Renew leases. `away`: this node takes no leases for now; `leaving`: it stops; `timeline`: see `Node`."""
        params = {"ttl": self._ttl, "epochs": list(epochs), "away": away, "leaving": leaving, "timeline": timeline}
        async with self._turn:
            await self.memory.intend()
            (row,) = await self._database.rows(Record, "renew_leases", self._mine(params))
            if row["beats"] is not None:
                await self.memory.acknowledge(row["beats"], row["at"], row["life"], self._database.server)
            self.migrations = row["migrations"]
        return Renewed(row["beats"] is not None, set(row["epochs"]), row["doubt"])

    async def go_on_with(self, known: LastBeat) -> None:
        """Go on though the database has lost the last beats of this supervisor."""
        params = {**self._who, "beat": self.memory.beat, "beats": self.memory.beats, "known": known.beat}
        async with self._turn:
            await self._database.execute("go_on_with", params)

    async def time(self) -> float:
        """The database's clock."""
        return float(await self._database.value("database_time"))

    async def take(self, shard: int, *, only_own: bool = False) -> int | None:
        """Take a shard; returns the new epoch, or None when another node has it, or with `only_own` had it."""
        params = {"name": self._node["name"], "ttl": self._ttl, "shard": shard, "only_own": only_own}
        async with self._turn:
            epoch: int | None = await self._database.value("take_lease", self._mine(params))
        return epoch

    async def release(self, epochs: Sequence[int], drained: Sequence[int], *, leaving: bool = False) -> None:
        """Release leases; `drained`: the epochs under which nothing is in flight any more; `leaving`: this node stops."""
        params = {"epochs": list(epochs), "drained": list(drained), "leaving": leaving}
        async with self._turn:
            await self._database.execute("release_leases", self._mine(params))

    async def forget(self) -> None:
        """Record that this incarnation has stopped."""
        async with self._turn:
            await self._database.execute("forget_node", self._mine({}))

    def _mine(self, params: Params) -> Params:
        """With what shows that this supervisor is the node."""
        return {**self._who, **params, "beat": self.memory.beat, "next": self.memory.next}
