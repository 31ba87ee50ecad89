"""Writing cycles of which the database may refuse a part: one bad outcome or lane must not stop the others.

A refused statement would be refused again, so everything is written in halves, and in halves of these, until what is at fault is
isolated. A lane is then left alone for a while. An outcome is stored in a reduced form, without the texts that others chose, and
without the counts if need be; if that is refused, too, its claim stays as it is for a while. Either is a problem in the status
until it is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from shardd.errors import RefusedDataError
from shardd.logs import get_logger
from shardd.queue.cycle import Cycle, Settlement
from shardd.queue.database import write_accepted
from shardd.queue.jobs import Jobs
from shardd.queue.records import ClaimedJob, ClaimRequest, Sends
from shardd.queue.settle import Finish, Release
from shardd.supervisor.dispatch.in_flight import EndedClaim
from shardd.supervisor.scheduling.scheduler import Scheduler

log = get_logger(__name__)

Counts = Callable[[Sequence[EndedClaim]], list[Sends]]
"""The sends among some claims that are to be counted."""

REFUSED_FOR: Final = 15.0
"""Seconds until something refused is tried again: its cause may have been fixed."""
REDUCED: Final = "the database refused to store the details of this outcome"


@dataclass(slots=True)
class Settled:
    """The result of settling claims one by one."""

    cycle: Cycle = field(default_factory=lambda: Cycle(set(), []))
    reduced: list[tuple[EndedClaim, RefusedDataError]] = field(default_factory=list)
    """Stored without the details that were refused."""
    refused: list[tuple[EndedClaim, RefusedDataError]] = field(default_factory=list)
    """Not stored at all."""


def settlement_of(ended: Sequence[EndedClaim], counts: list[Sends]) -> Settlement:
    """What is to be written."""
    settlement = Settlement(counts=counts)
    for each in ended:
        if isinstance(each.decision, Finish):
            settlement.finishes.append(each.decision)
        else:
            settlement.releases.append(each.decision)
    return settlement


async def settle_accepted(jobs: Jobs, ended: Sequence[EndedClaim], counts: Counts) -> Settled:
    """Settle all claims but those that are refused. Raises DatabaseError."""
    settled = Settled()

    async def settle(some: Sequence[EndedClaim], sends: list[Sends]) -> None:
        cycle = await jobs.cycle(settlement_of(some, sends), [])
        settled.cycle.settled.update(cycle.settled)
        settled.cycle.advanced.extend(cycle.advanced)

    async def write(some: Sequence[EndedClaim]) -> None:
        await settle(some, counts(some))

    async def reduce(one: EndedClaim, error: RefusedDataError) -> None:
        for sends in (counts([one]), []):
            try:
                await settle([reduced(one)], sends)
            except RefusedDataError:
                continue
            settled.reduced.append((one, error))
            return
        settled.refused.append((one, error))

    await write_accepted(ended, write, reduce)
    return settled


async def resolve_accepted(
    jobs: Jobs, decisions: Sequence[Finish | Release]
) -> tuple[int, list[tuple[Finish | Release, RefusedDataError]]]:
    """Resolve doubts as journals prove; returns how many changed, and what is refused even without its texts.

    What is refused must not be forgotten by its journal, which would then look as if the claim had never been started. Raises
    DatabaseError.
    """
    changed = 0
    refused: list[tuple[Finish | Release, RefusedDataError]] = []

    async def write(some: Sequence[Finish | Release]) -> None:
        nonlocal changed
        changed += len(await jobs.resolve_doubts(some))

    async def reduce(decision: Finish | Release, error: RefusedDataError) -> None:
        log.error("a doubt cannot be resolved", action="refused", job=decision.claim.id, error=str(error))
        try:
            await write([_without_texts(decision)])
        except RefusedDataError:
            refused.append((decision, error))

    await write_accepted(decisions, write, reduce)
    return changed, refused


def reduced(ended: EndedClaim) -> EndedClaim:
    """The same decision, with no text but our own."""
    return replace(ended, decision=_without_texts(ended.decision))


def _without_texts(decision: Finish | Release) -> Finish | Release:
    if isinstance(decision, Finish):
        return replace(decision, message_id=None, error=REDUCED, error_class=None)
    return replace(decision, error=REDUCED, error_class=None)


class CycleWriter:
    """Writes the cycles of a router."""

    def __init__(self, jobs: Jobs, scheduler: Scheduler, counts: Counts, defect: Callable[[str], None]) -> None:
        self._jobs = jobs
        self._scheduler = scheduler
        self._counts = counts
        self._defect = defect

    async def write(
        self, ended: list[EndedClaim], requests: list[ClaimRequest]
    ) -> tuple[Cycle, list[tuple[EndedClaim, str]]]:
        """Settle and claim; returns also the claims that are refused, with the errors. Raises DatabaseError."""
        try:
            return await self._jobs.cycle(settlement_of(ended, self._counts(ended)), requests), []
        except RefusedDataError as error:
            log.warning("the database refuses something: writing it piece by piece", action="refused", error=str(error))
        settled = await settle_accepted(self._jobs, ended, self._counts)
        claimed = await self._claim_accepted(requests)
        self._report(settled)
        cycle = Cycle(settled.cycle.settled, claimed, settled.cycle.advanced)
        return cycle, [(each, str(error)) for each, error in settled.refused]

    async def _claim_accepted(self, requests: list[ClaimRequest]) -> list[ClaimedJob]:
        """Claim from all lanes but those that are refused."""
        claimed: list[ClaimedJob] = []

        async def claim(some: Sequence[ClaimRequest]) -> None:
            claimed.extend((await self._jobs.cycle(Settlement(), some)).claimed)

        async def refuse(request: ClaimRequest, error: RefusedDataError) -> None:
            what = {"device": request.device_id, "lane": request.lane, "error": str(error)}
            log.error("a lane cannot be claimed from", action="refused", **what)
            self._scheduler.claim_refused(request, time.monotonic() + REFUSED_FOR, str(error))

        await write_accepted(requests, claim, refuse)
        return claimed

    def _report(self, settled: Settled) -> None:
        for each, error in settled.reduced:
            what = {"job": each.claim.id, "device": each.claim.device_id, "error": str(error)}
            outcome = {"verdict": each.outcome.verdict, "message_id": each.outcome.message_id}
            log.error("an outcome is stored without its details", action="refused", **what, **outcome)
            self._defect(f"an outcome was stored without its details: {error}")
        for each, error in settled.refused:
            what = {"job": each.claim.id, "device": each.claim.device_id, "error": str(error)}
            log.error("an outcome cannot be stored", action="refused", **what)
