"""The start of a node, before anything is claimed: its leases, and what its earlier run left behind."""

from __future__ import annotations

from dataclasses import dataclass

from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.jobs import Jobs
from shardd.supervisor.cluster.leases import LeaseKeeper
from shardd.supervisor.cluster.ownership import Ownership
from shardd.supervisor.dispatch.recovery import Recovery
from shardd.supervisor.inbound.opt_outs import OptOutInbox
from shardd.supervisor.scheduling.table_sync import CampaignSync, DeviceSync
from shardd.supervisor.workers.pool import WorkerPool

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The steps of a start, and the parts that take them."""

    keeper: LeaseKeeper
    ownership: Ownership
    recovery: Recovery
    workers: WorkerPool
    jobs: Jobs
    device_sync: DeviceSync
    campaign_sync: CampaignSync
    opt_outs: OptOutInbox

    async def run(self) -> None:
        """Take the leases and settle what an earlier run left. Raises DatabaseError, JournalHeldError, AlreadyRunningError."""
        await self.recovery.outlive_orphans()
        await self.keeper.register()
        await self.ownership.take()
        await self.device_sync.read_all()
        await self.recovery.run()
        self.workers.block(self.recovery.blocked)
        await self._prepare_archive()
        await self.opt_outs.configure_database()
        # Opt-outs of an earlier run must be stored before anything is claimed.
        await self.opt_outs.flush()
        # Again, with what recovery has counted.
        await self.device_sync.read_all()
        await self.campaign_sync.sync()
        self.keeper.settling.may_settle = True
        self.workers.leases(self.keeper.serving)

    async def retry(self) -> None:
        """Try again to settle what could not be settled. Raises DatabaseError."""
        if await self.recovery.retry():
            # With what recovery has counted.
            await self.device_sync.read_all()
        self.workers.block(self.recovery.blocked)

    async def _prepare_archive(self) -> None:
        try:
            await self.jobs.prepare_archive()
        except DatabaseError as error:
            # A long transaction that reads outcomes blocks the creation of a month; the archive takes every row without it.
            log.warning("months of the archive not prepared", action="start", error=str(error))
