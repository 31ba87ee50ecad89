"""After a fail-over: what this node sent is settled again at once, whoever would send it next.

The router asks the memory before it sends, but only about jobs that come to this node. A shard, or a job of a device group, may
come to another one, so no node takes either until all that live have done this (`shardd.supervisor.cluster.settling`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from typing import Final

from shardd.logs import get_logger
from shardd.queue.cycle import Settlement
from shardd.queue.jobs import Jobs, Remembered
from shardd.queue.records import Send, count_sends
from shardd.states import JobState
from shardd.supervisor.dispatch.in_flight import InFlight
from shardd.supervisor.dispatch.memory import FORGOTTEN, Job, Sent, SentMemory

log = get_logger(__name__)

PAGE: Final = 1000
"""Jobs of one statement."""


class LostCommits:
    """Settles again what the database has lost."""

    def __init__(self, jobs: Jobs, memory: SentMemory, in_flight: InFlight, zone_of: Callable[[str], tzinfo]) -> None:
        """`zone_of`: whose midnight begins a device's day."""
        self._jobs = jobs
        self._memory = memory
        self._in_flight = in_flight
        self._zone_of = zone_of

    async def settle_again(self) -> None:
        """Settle all that this node remembers and the database does not. Raises DatabaseError; then it may be repeated."""
        remembered = list(self._memory.remembered())
        settled = 0
        for start in range(0, len(remembered), PAGE):
            settled += await self._settle(dict(remembered[start : start + PAGE]))
        if settled:
            log.warning("settled again: the database lost them", action="recall", jobs=settled)
            self._memory.recognized(settled)

    async def _settle(self, page: dict[Job, Sent]) -> int:
        known = [
            Remembered(id_, token, JobState(sent.verdict.value), sent.message_id) for (id_, token), sent in page.items()
        ]
        ended = await self._jobs.finish_remembered(known, self._in_flight.ids(), FORGOTTEN)
        at = {id_: sent.at for (id_, _), sent in page.items()}
        sends = [
            Send(device_id, at[id_], self._zone_of(device_id), campaign)
            for id_, device_id, campaign in ended
            if device_id is not None
        ]
        if sends:
            await self._jobs.cycle(Settlement(counts=count_sends(sends)), [])
        return len(ended)
