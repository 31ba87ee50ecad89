"""Leases in the database: the statements of `sql/leases.sql` as typed calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from shardd.queue.database import Database


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
    """What the database knows of a node that lives."""

    pid: int | None
    """Of its supervisor, on its own host."""
    age: float
    """Seconds since it was heard of."""
    away: bool
    """It serves nothing, for its state folder is gone."""
    shards: int
    """That it holds."""


async def find_registration(database: Database, node: str, ttl: float) -> Registration | None:
    """Of a node that was heard of within `ttl` seconds and has not stopped; None: there is none. Raises DatabaseError."""
    rows = await database.fetch_all("node_registration", {"node": node, "ttl": ttl})
    return Registration(*rows[0]) if rows else None


class Leases:
    """The leases' statements, on behalf of one incarnation of one node."""

    def __init__(self, database: Database, *, node: str, incarnation: UUID, ttl: float) -> None:
        """`ttl`: seconds for which a lease is good."""
        self._database = database
        self._who = {"node": node, "incarnation": incarnation}
        self._ttl = ttl

    async def register(self, shards: int, version: str) -> None:
        """Say that this incarnation has started."""
        await self._database.execute(
            "register_node", {**self._who, "shards": shards, "version": version, "pid": os.getpid()}
        )

    async def release_earlier(self) -> None:
        """End the leases of earlier incarnations of this node."""
        await self._database.execute("release_earlier_leases", self._who)

    async def live_nodes(self) -> list[Node]:
        """The nodes that were seen within a lease's time."""
        return [Node(*row) for row in await self._database.fetch_all("live_nodes", {"ttl": self._ttl})]

    async def renew(self, epochs: Sequence[int], *, away: bool = False) -> set[int]:
        """Prolong leases; returns the epochs that are still good. `away`: this node takes none for now."""
        rows = await self._database.fetch_all(
            "renew_leases", {**self._who, "ttl": self._ttl, "epochs": list(epochs), "away": away}
        )
        return {row[0] for row in rows}

    async def take(self, shard: int) -> int | None:
        """Take a shard; returns the new epoch, or None when another node has it."""
        rows = await self._database.fetch_all("take_lease", {**self._who, "ttl": self._ttl, "shard": shard})
        return int(rows[0][0]) if rows else None

    async def release(self, epochs: Sequence[int]) -> None:
        """Give shards back."""
        await self._database.execute("release_leases", {"epochs": list(epochs)})

    async def forget(self) -> None:
        """Say that this incarnation has stopped."""
        await self._database.execute("forget_node", self._who)
