"""Writing cycles of which the database may refuse a part: what is wrong with one outcome or lane must not stop the others.

Refused is refused: the same statement would be refused again. So everything is written in halves, and in halves of these, until
what is at fault stands alone. A lane is then left alone for a while. Of an outcome, what is known is written in a reduced form,
without the texts that others chose, and without the counts if need be; if that is refused, too, its claim stays as it is for a
while. Either is a problem in the status until it is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from shardd.errors import RefusedDataError
from shardd.ipc import Outcome
from shardd.logs import get_logger
from shardd.queue.cycle import Cycle, Settlement
from shardd.queue.database import write_accepted
from shardd.queue.jobs import Jobs
from shardd.queue.records import ClaimedJob, ClaimRequest, Sends
from shardd.queue.settle import Finish
from shardd.supervisor.dispatch.in_flight import Entry
from shardd.supervisor.scheduling.scheduler import Scheduler

log = get_logger(__name__)

Counts = Callable[[Sequence[Entry]], list[Sends]]
"""The sends among some entries that are to be counted."""

REFUSED_FOR: Final = 15.0
"""Seconds until the database is asked once more for what it has refused: a person may have fixed it."""
REDUCED: Final = "the database refused to store what was said of it"


@dataclass(slots=True)
class Settled:
    """What became of outcomes that were written apart."""

    cycle: Cycle = field(default_factory=lambda: Cycle(set(), []))
    reduced: list[tuple[Entry, RefusedDataError]] = field(default_factory=list)
    """Written, but without what is said here to be refused."""
    refused: list[tuple[Entry, RefusedDataError]] = field(default_factory=list)
    """Not written at all."""


def settlement_of(entries: Sequence[Entry], counts: list[Sends]) -> Settlement:
    """What is to be written."""
    settlement = Settlement(counts=counts)
    for _, _, _, decision in entries:
        if isinstance(decision, Finish):
            settlement.finishes.append(decision)
        else:
            settlement.releases.append(decision)
    return settlement


async def settle_apart(jobs: Jobs, entries: Sequence[Entry], counts: Counts) -> Settled:
    """Settle all but what is refused. Raises DatabaseError."""
    settled = Settled()

    async def write(some: Sequence[Entry]) -> None:
        _merge(settled.cycle, await jobs.cycle(settlement_of(some, counts(some)), []))

    async def reduce(entry: Entry, error: RefusedDataError) -> None:
        less = reduced(entry)
        for sends in (counts([entry]), []):
            try:
                _merge(settled.cycle, await jobs.cycle(settlement_of([less], sends), []))
            except RefusedDataError:
                continue
            settled.reduced.append((entry, error))
            return
        settled.refused.append((entry, error))

    await write_accepted(entries, write, reduce)
    return settled


async def resolve_apart(jobs: Jobs, outcomes: Sequence[Outcome]) -> int:
    """Give jobs in doubt the outcomes that journals knew, except what is refused; how many changed. Raises DatabaseError."""
    changed = 0

    async def write(some: Sequence[Outcome]) -> None:
        nonlocal changed
        changed += len(await jobs.resolve_doubts(some))

    async def refuse(outcome: Outcome, error: RefusedDataError) -> None:
        log.error(
            "a doubt cannot be resolved", action="refused", job=outcome.id, verdict=outcome.verdict, error=str(error)
        )

    await write_accepted(outcomes, write, refuse)
    return changed


def reduced(entry: Entry) -> Entry:
    """The same decision, with no text but our own."""
    shard, claim, outcome, decision = entry
    if isinstance(decision, Finish):
        return shard, claim, outcome, replace(decision, message_id=None, error=REDUCED, error_class=None)
    return shard, claim, outcome, replace(decision, error=REDUCED, error_class=None)


def _merge(into: Cycle, cycle: Cycle) -> None:
    into.settled.update(cycle.settled)
    into.advanced.extend(cycle.advanced)


class CycleWriter:
    """Writes a router's cycles."""

    def __init__(self, jobs: Jobs, scheduler: Scheduler, counts: Counts, defect: Callable[[str], None]) -> None:
        self._jobs = jobs
        self._scheduler = scheduler
        self._counts = counts
        self._defect = defect

    async def write(self, entries: list[Entry], requests: list[ClaimRequest]) -> tuple[Cycle, list[tuple[Entry, str]]]:
        """Settle and claim; returns also the entries that are refused, with the errors. Raises DatabaseError."""
        try:
            cycle = await self._jobs.cycle(settlement_of(entries, self._counts(entries)), requests)
        except RefusedDataError as error:
            log.warning("the database refuses something: writing it piece by piece", action="refused", error=str(error))
        else:
            return cycle, []
        settled = await settle_apart(self._jobs, entries, self._counts)
        taken = await self._claim_apart(requests)
        self._tell(settled)
        cycle = Cycle(settled.cycle.settled, taken, settled.cycle.advanced)
        return cycle, [(entry, str(error)) for entry, error in settled.refused]

    async def _claim_apart(self, requests: list[ClaimRequest]) -> list[ClaimedJob]:
        """Claim from all lanes but those that are refused."""
        taken: list[ClaimedJob] = []

        async def claim(some: Sequence[ClaimRequest]) -> None:
            taken.extend((await self._jobs.cycle(Settlement(), some)).taken)

        async def refuse(request: ClaimRequest, error: RefusedDataError) -> None:
            what = {"device": request.device_id, "lane": request.lane, "error": str(error)}
            log.error("a lane cannot be claimed from", action="refused", **what)
            self._scheduler.claim_refused(request, time.monotonic() + REFUSED_FOR, str(error))

        await write_accepted(requests, claim, refuse)
        return taken

    def _tell(self, settled: Settled) -> None:
        for (_, claim, outcome, _), error in settled.reduced:
            what = {"job": claim.id, "device": claim.device_id, "verdict": outcome.verdict, "error": str(error)}
            log.error("an outcome is stored without its texts", action="refused", **what, message_id=outcome.message_id)
            self._defect(f"an outcome was stored without its texts: {error}")
        for (_, claim, _, _), error in settled.refused:
            what = {"job": claim.id, "device": claim.device_id, "error": str(error)}
            log.error("an outcome cannot be stored", action="refused", **what)
