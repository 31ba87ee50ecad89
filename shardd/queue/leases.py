"""Leases in the database: the statements of `sql/leases.sql` as typed calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from shardd.queue.database import Database, first


@dataclass(frozen=True, slots=True)
class Node:
    """A host's supervisor."""

    name: str
    incarnation: UUID
    shards: int
    serves: bool
    """Whether it takes shards now."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A live node, as the database knows it."""

    pid: int | None
    """Of its supervisor, on its own host."""
    age: float
    """Seconds since its last sign of life."""
    away: bool
    """It serves nothing, because its state folder is gone."""
    shards: int
    """The number of its leases."""


async def find_registration(database: Database, node: str, ttl: float) -> Registration | None:
    """The node, if it was alive within `ttl` seconds and has not stopped. Raises DatabaseError."""
    return first(await database.rows(Registration, "node_registration", {"node": node, "ttl": ttl}))


class Leases:
    """The leases' statements, on behalf of one incarnation of one node."""

    def __init__(self, database: Database, *, node: str, incarnation: UUID, ttl: float) -> None:
        """`ttl`: seconds for which a lease is valid."""
        self._database = database
        self._who = {"node": node, "incarnation": incarnation}
        self._ttl = ttl

    async def register(self, shards: int, version: str) -> None:
        """Record that this incarnation has started."""
        await self._database.execute(
            "register_node", {**self._who, "shards": shards, "version": version, "pid": os.getpid()}
        )

    async def release_earlier(self) -> None:
        """End the leases of earlier incarnations of this node."""
        await self._database.execute("release_earlier_leases", self._who)

    async def live_nodes(self) -> list[Node]:
        """The nodes that were seen within a lease's time."""
        return await self._database.rows(Node, "live_nodes", {"ttl": self._ttl})

    async def renew(self, epochs: Sequence[int], *, away: bool = False) -> set[int]:
        """Renew leases; returns the epochs that are still valid. `away`: this node takes no leases for now."""
        params = {**self._who, "ttl": self._ttl, "epochs": list(epochs), "away": away}
        return set(await self._database.column("renew_leases", params))

    async def take(self, shard: int) -> int | None:
        """Take a shard; returns the new epoch, or None when another node has it."""
        epoch: int | None = await self._database.value("take_lease", {**self._who, "ttl": self._ttl, "shard": shard})
        return epoch

    async def release(self, epochs: Sequence[int]) -> None:
        """Release leases."""
        await self._database.execute("release_leases", {"epochs": list(epochs)})

    async def forget(self) -> None:
        """Record that this incarnation has stopped."""
        await self._database.execute("forget_node", self._who)
