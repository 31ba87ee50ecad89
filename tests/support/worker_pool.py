"""A pool of real workers without a database: nothing is claimed, so nothing is sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from shardd import ipc
from shardd.clock import Deadlines, boot_now
from shardd.config import Config
from shardd.queue.settle import Claim
from shardd.states import ShardState
from shardd.supervisor.defects import Defects
from shardd.supervisor.workers.messages import MessageHandlers
from shardd.supervisor.workers.pool import WorkerPool
from shardd.supervisor.workers.process import WorkerProcess
from shardd.supervisor.workers.spares import Spares

HANG = 60.0
FAR = Deadlines(boot_now() + 10**6, boot_now() + 2 * 10**6)
"""Beyond the end of a test session, at whose start this module is imported."""


@dataclass
class NoDispatch:
    """Nothing is sent."""

    up: list[tuple[int, int]] = field(default_factory=list)
    changes: list[tuple[str, int]] = field(default_factory=list)
    blamed: list[bool] = field(default_factory=list)
    """For each worker that died, whether a job may be the cause."""

    def shard_up(self, shard: int, epoch: int) -> None:
        self.up.append((shard, epoch))

    def shard_down(self, shard: int) -> None:
        """Nothing was up."""

    def sent_by(self, shard: int) -> int:
        return 0

    def outcomes(self, shard: int, outcomes: list[ipc.Outcome]) -> None:
        """There are none."""

    def clients_changed(self, shard: int, report: ipc.Clients) -> None:
        """Nothing is claimed here."""

    def in_flight(self, shard: int) -> list[Claim]:
        return []


def make_pool(config: Config, spares: Spares, may_settle: asyncio.Event | None = None) -> WorkerPool:
    """What a dead worker had in flight, which is nothing, is settled once `may_settle` is set; None: at once."""
    dispatch = NoDispatch()

    async def settled(shard: int, how: str, *, by_itself: bool) -> Claim | None:
        if may_settle is not None:
            await may_settle.wait()
        dispatch.blamed.append(by_itself)
        return None

    return WorkerPool(
        config,
        spares=spares,
        state_id="0" * 32,
        settle_dead=settled,
        devices_of=lambda _: [],
        sessions_dsn=None,
        handlers=MessageHandlers(
            dispatch=dispatch,  # type: ignore[arg-type]  # nothing is claimed here
            defects=Defects(),
            device_changed=lambda message, epoch: dispatch.changes.append((message.device_id, epoch)),
            receipt=lambda _: None,
            opt_out_asked=lambda *_: None,
            arrived=lambda _: None,
            visited=lambda _: None,
            login_answered=lambda _: None,
            unencodable_device=lambda *_: None,
        ),
        deadlines=lambda: FAR,
    )


async def run_first(pool: WorkerPool) -> WorkerProcess:
    """Shard 0 is this node's, and its worker runs."""
    pool.leases({0: 1})
    async with asyncio.timeout(HANG):
        while pool.shards[0].state is not ShardState.RUNNING:
            await pool.tick()
            await asyncio.sleep(0.01)
    process = pool.shards[0].process
    assert process is not None
    return process
