"""The shards that this node may serve, and until when.

Shards map to live nodes by rendezvous hashing; a node holds a shard through a lease row with an epoch, by the
database's clock. The node's own deadline is earlier and needs no clock in common with anybody: the start of the last
good renewal plus ttl minus a margin, on the monotonic clock. Past it the leases may belong to somebody else, so the
clients are closed before it. The config is refused unless renew_every + twice the database's timeout fits into ttl -
margin: one renewal may fail without consequence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final
from uuid import UUID, uuid4

from shardd import __version__
from shardd.errors import AlreadyRunningError, DatabaseError
from shardd.hashing import assignment
from shardd.logs import get_logger
from shardd.queue.database import Database
from shardd.queue.leases import Leases

log = get_logger(__name__)

RENEWALS: Final = 5
"""Times that leases are renewed within their time while shards are given back."""


class LeaseKeeper:
    """Registers the node, takes what it should have, renews, and gives back what another node should have."""

    def __init__(self, database: Database, *, node: str, shards: int, ttl: float, margin: float) -> None:
        self.incarnation: UUID = uuid4()
        self._node = node
        self._shards = shards
        self._ttl = ttl
        self._margin = margin
        self._leases = Leases(database, node=node, incarnation=self.incarnation, ttl=ttl)
        self._epochs: dict[int, int] = {}
        self._deadline = 0.0
        self._away = False
        self.on_renewed: Callable[[dict[int, int]], None] = lambda _: None
        """Told shard → epoch after each renewal."""

    @property
    def epochs(self) -> dict[int, int]:
        """Shard → epoch of what this node holds."""
        return dict(self._epochs)

    def good(self) -> bool:
        """Whether the leases are surely this node's at this moment."""
        return bool(self._epochs) and time.monotonic() < self._deadline

    def known(self) -> bool:
        """Whether what this node holds, be it nothing, was seen in the database lately."""
        return time.monotonic() < self._deadline

    def seconds_left(self) -> float:
        """Until `good` ends by itself."""
        return self._deadline - time.monotonic()

    async def register(self) -> None:
        """Announce this incarnation. Raises AlreadyRunningError when live nodes count their shards differently."""
        for node in await self._leases.live_nodes():
            if node.name != self._node and node.shards != self._shards:
                raise AlreadyRunningError(
                    f"node {node.name} is running with shards: {node.shards}, this config has shards: {self._shards}; "
                    "all nodes on one database need the same number: stop that node first, or change this config"
                )
        await self._leases.register(self._shards, __version__)
        # Also of shards that now belong elsewhere: what was in flight under them is settled from this node's journals.
        await self._leases.release_earlier()

    async def run_cycle(
        self, give_back: Callable[[int], Awaitable[None]], *, may_take: bool = True, away: bool = False
    ) -> set[int]:
        """Renew, take and give back; returns the shards that were lost. Raises DatabaseError: nothing is known then.

        `give_back` drains a shard that another node should have, before its lease is released. That may take longer than a
        lease lasts, so the others are renewed meanwhile. `may_take`: it may get more than it has. `away`: give everything back,
        and let the others share it out among themselves.
        """
        self._away = away
        lost = await self._renew()
        wanted = set() if away else await self._wanted()
        if not may_take:
            wanted &= self._epochs.keys()
        if surplus := self._epochs.keys() - wanted:
            lost |= await self._give_back(surplus, give_back)
        for shard in sorted(wanted - self._epochs.keys() - lost):
            epoch = await self._leases.take(shard)
            if epoch is not None:
                self._epochs[shard] = epoch
                log.info("shard taken", action="lease", shard=shard, epoch=epoch)
        return lost

    def drop_all(self) -> set[int]:
        """The deadline has passed: nothing is held any more. Returns what was held."""
        held = set(self._epochs)
        self._epochs.clear()
        return held

    async def give_up(self) -> None:
        """Give everything back at an orderly end."""
        try:
            await self._leases.release(list(self._epochs.values()))
            await self._leases.forget()
        except DatabaseError as error:
            log.warning("leases not given back; they run out by themselves", action="lease", error=str(error))
        self._epochs.clear()

    async def _renew(self) -> set[int]:
        """Prolong what is held; returns the shards that were lost."""
        began = time.monotonic()
        good = await self._leases.renew(list(self._epochs.values()), away=self._away)
        lost = {shard for shard, epoch in self._epochs.items() if epoch not in good}
        for shard in lost:
            del self._epochs[shard]
        self._deadline = began + self._ttl - self._margin
        self.on_renewed(self.epochs)
        return lost

    async def _give_back(self, shards: Iterable[int], drain: Callable[[int], Awaitable[None]]) -> set[int]:
        """Give these back, all at once; returns the shards that were lost meanwhile."""
        lost: set[int] = set()
        going = asyncio.gather(*(self._hand_over(shard, drain) for shard in sorted(shards)))
        try:
            while not going.done():
                await asyncio.wait([going], timeout=(self._ttl - self._margin) / RENEWALS)
                try:
                    lost |= await self._renew()
                except DatabaseError as error:
                    log.warning(
                        "leases not renewed", action="lease", left=round(self.seconds_left(), 1), error=str(error)
                    )
        finally:
            going.cancel()
        await going
        return lost

    async def _hand_over(self, shard: int, drain: Callable[[int], Awaitable[None]]) -> None:
        log.info("shard goes to another node", action="lease", shard=shard)
        await drain(shard)
        epoch = self._epochs.pop(shard, None)
        if epoch is not None:
            await self._leases.release([epoch])

    async def _wanted(self) -> set[int]:
        names = [node.name for node in await self._leases.live_nodes() if node.serves]
        if self._node not in names:
            return set()
        return {shard for shard, node in assignment(self._shards, names).items() if node == self._node}
