"""The shards that this node may serve, and until when.

Live nodes share the shards evenly (`plan`). A node holds a shard through a lease row with an epoch, by the database's clock. The
node's own deadlines are earlier and need no shared clock: they count from the start of the last successful renewal, on the clock
of the host that goes on during a suspend. A margin before the lease expires nothing more is handed over; half a margin before, no
worker is left. The config is refused unless renew_every + twice the database's timeout fits into ttl - margin: one renewal may
fail without consequence.

A node is its state folder. A supervisor whose folder is a copy of one that is in use, or whose name another node has, is refused;
after a crash, one that cannot know whether its predecessor is dead (another host, or the machine restarted) waits until that has
been silent for a lease's time. Of two machines that were resumed from one snapshot, one goes on (`shardd.queue.beats`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import datetime
from typing import Final
from uuid import UUID

from shardd import __version__
from shardd.clock import Deadlines, boot_now
from shardd.errors import AlreadyRunningError, DatabaseError
from shardd.logs import get_logger
from shardd.postgres.servers import Identity
from shardd.queue.beats import BeatMemory
from shardd.queue.database import Database
from shardd.queue.leases import LastBeat, Leases, Node, NodeIdentity, Renewed, describe
from shardd.queue.lives import Lives, Past, compare, what_is_lost
from shardd.supervisor.cluster.caution import Caution
from shardd.supervisor.cluster.outage import Outage
from shardd.supervisor.cluster.past import doubt_of
from shardd.supervisor.cluster.picture import ClusterPicture
from shardd.supervisor.cluster.plan import reserve
from shardd.supervisor.cluster.settling import Settling
from shardd.supervisor.cluster.sharing import share
from shardd.supervisor.cluster.wall_clock import WallClock
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.tasks import do_nothing, end_tasks

log = get_logger(__name__)

SETTLING_LOOK: Final = 0.5
"""Seconds between looks whether all nodes have settled again what a fail-over lost."""
WAIT_STEP: Final = 1.0
"""Seconds between checks whether an earlier incarnation is still alive."""
RIVAL_SHOWN: Final = 300.0
"""Seconds for which the status shows that another supervisor was refused; systemd starts it again every few seconds."""
FREE_AGAIN: Final = 5.0
"""Seconds until the next look at a shard that nobody took."""
LOSS_SHOWN: Final = 3600.0
"""Seconds for which the status shows what a fail-over lost."""
CAREFUL_SHARE: Final = 4
"""Of the margin: by so much the database's clock may jump forward without danger."""
COPIED: Final = (
    "their state folders have the same id, because one is a copy of the other. Stop one of them; to run both, delete state.id, "
    "incarnations and journal/ in the copy, and give it a `node` of its own"
)
CLONED: Final = (
    "both were resumed from one snapshot of a machine. This one ends without another word to the database. Stop one of the "
    "machines; to run both, delete state.id, incarnations and journal/ in one of them, and give it a `node` of its own"
)


class LeaseKeeper:
    """Registers the node, takes the shards it should have, renews them, and gives back those of other nodes."""

    def __init__(
        self,
        database: Database,
        *,
        node: NodeIdentity,
        incarnation: UUID,
        shards: int,
        ttl: float,
        margin: float,
        memory: BeatMemory | None = None,
    ) -> None:
        """`memory`: of earlier renewals."""
        self.incarnation = incarnation
        self._node = node
        self._shards = shards
        self._ttl = ttl
        self._margin = margin
        self._leases = Leases(database, node=node, incarnation=self.incarnation, ttl=ttl, memory=memory)
        self._lives = Lives(database)
        self._caution = Caution(ttl, margin / CAREFUL_SHARE, None if memory is None else memory.server)
        self._outage = Outage(ttl)
        self.wall_clock = WallClock(node.name)
        self.settling = Settling(node.id, ttl, self._leases.memory.server)
        self._epochs: dict[int, int] = {}
        self.deadlines = Deadlines(0.0, 0.0)
        """Until when what it holds is good; on `shardd.clock`."""
        self._away = False
        self._leaving = False
        self._free_at = float("inf")
        self._moving: dict[int, asyncio.Task[None]] = {}
        self._nodes: list[Node] = []  # alive when the leases were last renewed
        self.reserve = 0
        """How many more shards it may have to take at once, as of the last renewal."""
        self.picture = ClusterPicture(node.id)
        """What all nodes do, as of the last renewal."""
        self.displaced_by: str | None = None
        """The supervisor that is this node now; None: there is none."""
        self.cloned = False
        """That is a copy of this process: it has the same leases, claims, and jobs in flight."""
        self.doubt: str | None = None
        """Why the database seems to be older than a state folder; None: it does not. This supervisor ends, and claims nothing."""
        self._lost_at = time.time()
        self.on_renewed: Callable[[dict[int, int]], None] = lambda _: None
        """Called with shard → epoch after each renewal."""
        self.on_leaving: Callable[[], None] = lambda: None
        """Called when a renewal should tell the other nodes soon that this one stops: they share without it."""
        self.on_lost: Callable[[set[int]], None] = lambda _: None
        """Called at once with shards whose leases turned out to be another node's, or to have run out."""
        self.before_release: Callable[[], Awaitable[None]] = do_nothing
        """Writes what only the holder of a lease may write. Raises DatabaseError."""
        self.drained: Callable[[list[int]], list[int]] = lambda _: []
        """Which of these epochs have nothing in flight or unsettled any more."""

    @property
    def epochs(self) -> dict[int, int]:
        """Shard → epoch of what this node holds."""
        return dict(self._epochs)

    @property
    def nodes(self) -> list[Node]:
        """The nodes that were alive when the leases were last renewed."""
        return self._nodes

    @property
    def migrations(self) -> int:
        """How many the database had when the leases were last renewed."""
        return self._leases.migrations

    @property
    def serving(self) -> dict[int, int]:
        """Shard → epoch of what it holds and keeps."""
        return {shard: epoch for shard, epoch in self._epochs.items() if shard not in self._moving}

    @property
    def moving(self) -> dict[int, asyncio.Task[None]]:
        """Shards that are being given back; each task ends with the lease."""
        return dict(self._moving)

    def due(self) -> float:
        """Seconds until the earliest moment at which a lease of another node may have expired."""
        return self._free_at - boot_now()

    def leave(self) -> None:
        """This node stops: it takes nothing any more, and shards go back by `release`."""
        self._leaving = True
        self.on_leaving()

    def good(self) -> bool:
        """Whether this node certainly holds its leases at this moment."""
        return bool(self._epochs) and self.known() and self.doubt is None

    def known(self) -> bool:
        """Whether the last successful renewal is recent enough to know what this node holds, even if that is nothing."""
        return boot_now() < self.deadlines.soft

    def alone(self) -> bool:
        """Whether no other node was alive at the last renewal."""
        return all(node.id == self._node.id for node in self._nodes)

    def seconds_left(self) -> float:
        """Seconds until `good` becomes false without a renewal."""
        return self.deadlines.soft - boot_now()

    async def register(self) -> None:
        """Announce this incarnation; waits while it is unknown whether another supervisor is alive that would be this node.

        Raises AlreadyRunningError when it is, or when a live node has another number of shards.
        """
        last_seen: dict[str, datetime | None] = {}
        while True:
            nodes = await self._leases.live_nodes()
            other = next((node for node in nodes if self._conflicts(node)), None)
            if other is None:
                self._check_shards(nodes)
                if await self._leases.register(self._shards, __version__, margin=self._margin):
                    break
            elif other.id not in last_seen:
                last_seen[other.id] = other.seen_at
                log.warning("waiting: whether %s is alive is unknown", other.where, action="start", at_most=other.ttl)
            elif last_seen[other.id] != other.seen_at:
                await self._leases.report_rival(other.incarnation, self._me)
                raise AlreadyRunningError(self._refusal(other))
            await asyncio.sleep(WAIT_STEP)
        # Also of shards that now belong to other nodes: their claims are settled from this node's journals.
        await self._leases.release_earlier()

    def _conflicts(self, other: Node) -> bool:
        """Whether a live node may be another supervisor of this node, or has its name; what had our lock before is dead."""
        same = other.id == self._node.id or other.name == self._node.name
        dead = self._node.place is not None and other.place == self._node.place and other.beat in self._leases.former
        return same and not dead

    def _check_shards(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.id != self._node.id and node.place != self._node.place and node.shards != self._shards:
                raise AlreadyRunningError(
                    f"node {node.name} is running with shards: {node.shards}, this config has shards: {self._shards}; "
                    "all nodes on one database need the same number: stop that node first, or change this config"
                )

    def _refusal(self, other: Node) -> str:
        if other.id != self._node.id:
            return f"{other.where} is running, and {self._me} would be a second node of that name: change `node` in its config"
        return f"{other.where} is running, and {self._me} would be the same node: {COPIED}"

    def displacement(self) -> str:
        """What `displaced_by` means, in words."""
        if self.cloned:
            return f"{self.displaced_by} is this very supervisor, {self._me}, on another machine: {CLONED}"
        return f"{self.displaced_by} took over as this node while this supervisor, {self._me}, was silent: {COPIED}"

    @property
    def _me(self) -> str:
        return describe(self._node.name, self._node.host, os.getpid(), self._node.state_dir)

    async def run_cycle(
        self, give_back: Callable[[int], Awaitable[None]], *, may_take: bool = True, away: bool = False
    ) -> set[int]:
        """Renew, take, and begin to give back; returns the shards that were lost. Raises DatabaseError: then nothing is known.

        `give_back` drains a shard that another node should have, before its lease is released. That may take longer than a
        lease lasts, so it goes on in a task of its own (`moving`). `may_take`: whether new shards may be taken. `away`: give all
        shards back, for the other nodes.
        """
        self._away = away
        outage = 0.0 < self.deadlines.soft < boot_now()
        lost = await self._renew()
        if self.displaced_by is not None:
            return lost  # at once: before what its workers had can be settled
        # The leases before the nodes: one that expires between the two is seen, hence awaited, and no share of a dead node's.
        held = await self._leases.held()
        asked, asked_at = boot_now(), self.wall_clock.now()
        database_time = await self._leases.time()
        self._caution.look(database_time, asked, self._lives.server)
        self.wall_clock.look(asked_at, database_time)
        others = {lease.shard: lease.seconds_left for lease in held if lease.node_id != self._node.id}
        # What was lost is taken again, but not before its worker was told to end.
        self._free_at = boot_now() + (0.0 if lost else min(others.values(), default=float("inf")))
        careful = self._caution.advised()
        nodes = await self._leases.nodes()
        self._nodes = [node for node in nodes if node.alive]
        expected = self._outage.look(nodes, ended=outage)
        if expected:
            self._free_at = min(self._free_at, self._outage.until)
        if self._leaving or self.doubt is not None:
            self.picture.look(self._shards, nodes, held, self._epochs, boot_now())
            return lost
        server = self._lives.server
        if await self.settling.look(server, self._nodes):
            self._free_at = boot_now()
        planned = share(self._shards, nodes, held, expected).planned_for(self._node.id)
        wanted = set() if away else set(planned)
        if not may_take:
            wanted &= self._epochs.keys()
        for shard in sorted(self._epochs.keys() - wanted - self._moving.keys()):
            log.info("shard goes to another node", action="lease", shard=shard)
            self._moving[shard] = asyncio.create_task(self._move(shard, give_back(shard)))
        await self._take(wanted - self._epochs.keys() - lost - others.keys(), server, only_own=careful)
        serving = [node.id for node in self._nodes if node.serves]
        self.reserve = reserve(self._shards, len(serving), len(self._epochs)) if self._node.id in serving else 0
        self.picture.look(self._shards, nodes, held, self._epochs, boot_now())
        if self.picture.any_free:
            self._free_at = min(self._free_at, boot_now() + FREE_AGAIN)
        return lost

    async def _take(self, free: set[int], server: Identity | None, *, only_own: bool) -> None:
        """Take shards; `server`: the one that was asked about the nodes; `only_own`: whose last lease was this node's."""
        if free and not self.settling.is_over(server, self._nodes):
            self._free_at = boot_now() + SETTLING_LOOK
            return
        for shard in sorted(free):
            if self._leaving:
                return
            epoch = await self._leases.take(shard, only_own=only_own)
            if self._lives.server != server:
                return  # it may have to wait for what other nodes have sent: it is taken again
            if epoch is not None:
                self._epochs[shard] = epoch
                log.info("shard taken", action="lease", shard=shard, epoch=epoch)

    def drop_all(self) -> set[int]:
        """The soft deadline has passed: no lease is relied on any more. Returns the shards that were held."""
        held = set(self._epochs)
        self._epochs.clear()
        return held

    async def release(self, shard: int) -> None:
        """Release a shard that has no worker any more, and nothing in flight; nothing happens if it is not held."""
        try:
            await self.before_release()
            # From here on it is not renewed, whether the answer arrives or not: another node may have it.
            epoch = self._epochs.pop(shard, None)
            if epoch is not None:
                await self._leases.release([epoch], self.drained([epoch]), leaving=self._leaving)
                log.info("shard given back", action="lease", shard=shard, epoch=epoch)
        except DatabaseError as error:
            log.warning("lease not given back; it expires", action="lease", shard=shard, error=str(error))

    async def give_up(self) -> None:
        """Give all leases back at an orderly stop."""
        await end_tasks(self._moving.values())
        epochs = list(self._epochs.values())
        try:
            await self._leases.release(epochs, self.drained(epochs), leaving=True)
            await self._leases.forget()
        except DatabaseError as error:
            log.warning("leases not given back; they expire", action="lease", error=str(error))
        self._epochs.clear()

    async def _renew(self) -> set[int]:
        """Renew what is held; returns the shards that were lost."""
        began = boot_now()
        renewed = await self._ask_to_renew()
        if not renewed.current and await self._goes_on():
            renewed = await self._ask_to_renew()
        self.doubt = self.doubt or renewed.doubt
        lost = {shard for shard, epoch in self._epochs.items() if epoch not in renewed.epochs}
        for shard in lost:
            del self._epochs[shard]
        if lost:
            # At once: what follows in this cycle may take long, or fail.
            self.on_lost(lost)
        end = began + self._ttl
        self.deadlines = Deadlines(soft=end - self._margin, hard=end - self._margin / 2)
        self.on_renewed(self.epochs)
        return lost

    async def _ask_to_renew(self) -> Renewed:
        epochs, timeline = list(self._epochs.values()), self.settling.timeline
        return await self._leases.renew(epochs, away=self._away, leaving=self._leaving, timeline=timeline)

    async def _goes_on(self) -> bool:
        """The database does not know the last beat of this supervisor: whether it goes on all the same."""
        memory, known = self._leases.memory, await self._lives.last_beat(self._node.id)
        if compare(memory, known, await self._lives.last()) is not Past.DATABASE_OLDER:
            await self._displaced(known)
            return False
        lost = what_is_lost(memory, known, self._lives.server)
        if lost.is_small and known is not None and known.incarnation == self.incarnation:
            log.warning("a fail-over lost commits", action="lease", beats=lost.lost_beats, seconds=lost.seconds)
            memory.lost, self._lost_at = lost, time.time()
            await self._leases.go_on_with(known)
            return True
        self.doubt = doubt_of(self._me, lost)
        if not lost.is_small:
            await self._lives.doubt(self.doubt)
        return False

    async def _displaced(self, other: LastBeat | None) -> None:
        self.displaced_by = "another supervisor" if other is None else other.where
        if other is not None and other.incarnation == self.incarnation:
            self.cloned = True
            if other.address is not None:
                self.displaced_by += f" at {other.address}"
            await self._leases.report_rival(
                self.incarnation, f"{self._me}, resumed from the same snapshot of a machine,"
            )

    async def _move(self, shard: int, drained: Awaitable[None]) -> None:
        try:
            await drained
            await self.release(shard)
        except Exception as error:  # a defect: the shard is held, and given back again at the next renewal
            log.critical("a shard could not be given back", action="defect", shard=shard, exc_info=error)
        finally:
            del self._moving[shard]

    def notes(self) -> list[str]:
        """What a fail-over lost that was noticed within the last hour."""
        lost = self._leases.memory.lost
        if lost is None or time.time() > self._lost_at + LOSS_SHOWN:
            return []
        at = time.strftime("%H:%M:%S", time.localtime(self._lost_at))
        note = f"a fail-over of the database lost what it had acknowledged, {lost.how_much}, as was noticed at {at}"
        return [f"{note}: what nodes sent in that time is settled again; what was inserted in that time is gone"]

    def problems(self) -> Iterator[Problem]:
        """Other supervisors that would be this node, and nodes of the same name."""
        for node in self._nodes:
            if node.incarnation == self.incarnation:
                if node.rival is not None and node.rival_age is not None and node.rival_age < RIVAL_SHOWN:
                    text = f"{node.rival} was refused {node.rival_age:.0f} s ago, because {self._me} is running: see its log"
                    yield Problem(ProblemKind.NODE, text)
            elif node.name == self._node.name and node.id != self._node.id:
                text = f"{node.where} and {self._me} have the same name: change `node` in one of the configs"
                yield Problem(ProblemKind.NODE, text)
