"""What follows a worker's death: its claims are settled from the journal, and the cause is found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from shardd.errors import JournalError
from shardd.logs import get_logger
from shardd.queue.settle import Claim
from shardd.states import ALONE_FROM, ShardState
from shardd.supervisor.workers.messages import Dispatch
from shardd.supervisor.workers.shard import Shard
from shardd.tasks import TaskSet

log = get_logger(__name__)

JOURNAL_RETRY: Final = 5.0
"""Seconds between tries to read the journal of a dead worker."""


class SettleDead(Protocol):
    """Settles what a shard's dead worker had in flight, as its journal says."""

    async def __call__(self, shard: int, how: str, *, by_itself: bool) -> Claim | None:
        """Returns the job that was being prepared alone, if one was. Raises JournalError.

        `how`: how the worker ended, in words; `by_itself`: unrequested, so a job may be the cause.
        """


class Deaths:
    """Follows up on the deaths of a node's workers."""

    def __init__(
        self,
        settle: SettleDead,
        dispatch: Dispatch,
        defect: Callable[[Shard, str, Exception], None],
        settled: Callable[[], None],
    ) -> None:
        """`defect`: reports one of a shard; `settled`: called when a dead worker's claims are, or cannot be for now."""
        self._settle = settle
        self._dispatch = dispatch
        self._defect = defect
        self._settled = settled
        self._tasks = TaskSet()

    def died(self, shard: Shard, how: str) -> None:
        """A worker is gone; `how`: in words."""
        self._dispatch.shard_down(shard.index)
        by_itself = shard.dies_by_itself
        try:
            shard.died(how, now=time.monotonic())
        except Exception as error:  # noqa: BLE001  # a defect: the shard is tried again, and what was in flight is settled
            self._defect(shard, "the end of its worker could not be noted", error)
            shard.process, shard.state = None, ShardState.BACKOFF
            shard.next_start = time.monotonic() + shard.config.backoff.cap
        failed = partial(self._defect, shard, "what its worker had in flight could not be settled")
        self._tasks.start(self._settle_all(shard, how, by_itself=by_itself, failed=failed), failed)

    async def end(self) -> None:
        """Stop trying; the journals have what is not settled."""
        await self._tasks.end()

    async def _settle_all(
        self, shard: Shard, how: str, *, by_itself: bool, failed: Callable[[Exception], None]
    ) -> None:
        while not shard.clean:
            try:
                alone = await self._settle(shard.index, how, by_itself=by_itself)
            except JournalError as error:
                shard.last_error = shard.unsettled = str(error)
                self._settled()
                log.error("journal cannot be read", action="settle", shard=shard.index, error=str(error))
                await asyncio.sleep(JOURNAL_RETRY)
            except Exception as error:  # noqa: BLE001  # a defect: this shard fails, visibly, and is tried again
                failed(error)
                await asyncio.sleep(JOURNAL_RETRY)
            else:
                self._count_death(shard, alone)
                shard.clean, shard.unsettled = True, None
        self._settled()

    def _count_death(self, shard: Shard, alone: Claim | None) -> None:
        """Whether a death counts for the breaker, which stops a shard whose workers fail whatever the jobs.

        It does not if a known job is the cause and the last workers were healthy: they sent other jobs. Without that proof it
        counts when a job comes under suspicion and when it is ended: if the workers are the cause, few jobs are ended, and if the
        shard has nothing but such jobs, each probe ends one.
        """
        if shard.state is not ShardState.BACKOFF:
            return
        if alone is None:
            shard.count_crash(time.monotonic())
            return
        shard.prepared_alone(f"job {alone.id} of device {alone.device_id}")
        healthy = self._dispatch.sent_by(shard.index) > shard.sent_before[0]
        if healthy or 0 < alone.worker_deaths < ALONE_FROM:
            shard.discount_crash()
        else:
            shard.count_crash(time.monotonic())
