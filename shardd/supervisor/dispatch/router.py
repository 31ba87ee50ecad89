"""The router: from the table to the workers and back.

One loop turns the wheel: settle what ended, claim for the devices whose turn it is, in one round trip and one commit;
hand the jobs to their shards. While a turn is in the database, outcomes gather for the next one, so the batch sizes
itself. It is the only claimer of this node.

When the database does not answer, nothing is lost and nothing is claimed: outcomes wait here (and in the journals), and
after the first answer an audit asks what the database thinks is in flight, because a claim may have been committed
whose answer we never saw.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from shardd import ipc
from shardd.backoff import full_jitter
from shardd.errors import DatabaseError, ErrorClass
from shardd.ipc import ClaimKey, JobSpec, Outcome
from shardd.logs import get_logger
from shardd.queue.jobs import Jobs
from shardd.queue.records import ClaimedJob, ClaimRequest, Sends, count_sends
from shardd.queue.settle import Claim, Finish, JobBackoff, Release, settle
from shardd.states import JobState, Verdict
from shardd.supervisor.dispatch.cycle_writer import REFUSED_FOR, CycleWriter, resolve_apart
from shardd.supervisor.dispatch.in_flight import Entry, InFlight
from shardd.supervisor.dispatch.verdicts import OUTCOME_WORDS
from shardd.supervisor.scheduling.scheduler import NO_SHARD, Scheduler
from shardd.supervisor.services import Service
from shardd.tasks import wait_for_event

log = get_logger(__name__)

RETRY_FIRST, RETRY_CAP = 0.2, 5.0
"""Seconds between tries while the database does not answer."""

EPOCH_KEPT: Final = 600.0
"""Seconds for which claims under the epoch of an ended lease are looked for: a commit that hung is seen long before."""

OptOutCheck = Callable[[Sequence[ClaimedJob]], Awaitable[set[int]]]
"""Tells which of these jobs must not be sent, because their recipients opted out. Raises DatabaseError."""


class Router(Service):
    """Claims, dispatches and settles; `send(shard, message)` reaches a shard's worker and tells whether it could."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        scheduler: Scheduler,
        send: Callable[[int, ipc.ToWorker], bool],
        may_claim: Callable[[], bool],
        batch: Callable[[], int],
        backoff: Callable[[], JobBackoff],
        set_aside: Callable[[Claim, str | None], None],
        opt_out_check: OptOutCheck | None = None,
        defect: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`may_claim`: whether this node's leases are surely good now; `batch`: the most jobs of one claim.

        `set_aside`: hears of a job that is ended because it ends workers. `opt_out_check`: a second
        look for opt-outs, at what the database cannot tell by itself. `defect` is told what went wrong.
        """
        self._jobs = jobs
        self.scheduler = scheduler
        self._send = send
        self._may_claim = may_claim
        self._batch = batch
        self._set_aside = set_aside
        self._opt_out_check = opt_out_check
        self._backoff = backoff
        self._in_flight = InFlight()
        self._epochs: dict[int, float] = {}
        """Epochs under which something may be claimed still, and when each stopped being its shard's (infinity: it has not)."""
        self._epoch_of: dict[int, int] = {}
        self._audit_due = False
        self._suspects: set[int] = set()
        self._try_aside_at = 0.0
        self.lost_claims = (0, float("-inf"))
        """How many claims that no worker had were returned to the queue the last time, and when (monotonic)."""
        self.writer = CycleWriter(jobs, scheduler, self._counts, defect)
        self._failures = 0
        self._wake = asyncio.Event()
        self._settled = asyncio.Condition()
        self._claiming = True
        self._closing = False
        self.shard_totals: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self.database_error: str | None = None

    # ---- what others tell the router

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    def shard_up(self, shard: int, epoch: int) -> None:
        """A shard's worker takes jobs."""
        now = time.monotonic()
        before = self._epoch_of.get(shard)
        if before is not None and before != epoch:
            self._epochs[before] = now
        self._epoch_of[shard], self._epochs[epoch] = epoch, math.inf
        known = self._in_flight.epochs()
        self._epochs = {e: ended for e, ended in self._epochs.items() if ended > now - EPOCH_KEPT or e in known}
        self.scheduler.shard_up(shard, epoch, now)
        self._wake.set()

    def shard_down(self, shard: int) -> None:
        """A shard's worker takes no more jobs; what it has in flight stays in flight."""
        self.scheduler.shard_down(shard)

    def outcomes(self, shard: int, outcomes: Iterable[Outcome]) -> None:
        """Claims of a shard ended. What is not in its hand was settled before and is ignored."""
        now, wall = time.monotonic(), time.time()
        for outcome in outcomes:
            if (claim := self._in_flight.returned(shard, outcome)) is not None:
                self._end(shard, claim, outcome, now, wall)
        self._wake.set()

    def in_flight(self, shard: int) -> list[Claim]:
        """What a shard has in flight."""
        return self._in_flight.of_shard(shard)

    def in_flight_since(self, before: float) -> list[tuple[int, Claim]]:
        """What shards have had in flight since a moment of the monotonic clock, or longer: (shard, claim), the oldest first."""
        return list(self._in_flight.since(before))

    def set_aside(self) -> list[tuple[Claim, str]]:
        """Claims that ended, but the database refuses to write that; with the errors."""
        return self._in_flight.aside()

    @property
    def epochs(self) -> list[int]:
        """Of every lease under which this supervisor may have claimed something."""
        return sorted(self._epochs)

    def suspect(self, claims: list[Claim]) -> None:
        """The database has these claims: those under our epochs that nobody here knows of are returned to the queue.

        They may have been made or settled just now, so the database is asked again while no cycle is under way.
        """
        self._suspects = {claim.id for claim in self._in_flight.missing(claims) if claim.epoch in self._epochs}
        if self._suspects:
            self._wake.set()

    def in_flight_count(self, shard: int) -> int:
        """How many jobs a shard has in flight."""
        return self._in_flight.count(shard)

    def sent_by(self, shard: int) -> int:
        """How many messages a shard has sent since the supervisor's start."""
        return self.shard_totals[shard][Verdict.SENT]

    async def wait_settled(self, shard: int) -> None:
        """Until nothing of a shard is in flight or waits to be settled. Bounded by the caller: the database may be away."""
        async with self._settled:
            await self._settled.wait_for(lambda: self.unsettled(shard) == 0)

    def unsettled(self, shard: int) -> int:
        """How many claims of a shard are not settled yet."""
        return self._in_flight.unsettled(shard)

    def stop_claiming(self) -> None:
        """Claim nothing any more; settling goes on."""
        self._claiming = False

    async def stop(self) -> None:
        """Settle what is known, as far as the database answers."""
        self._stopped = True
        self.finish()
        if self._task is not None:
            await asyncio.wait([self._task])

    def finish(self) -> None:
        """End `run` after one more try to settle what is known."""
        self._claiming = False
        self._closing = True
        # A commit that hung until now must not look as if a worker had taken the jobs with it.
        self._audit_due = True
        self._in_flight.try_aside()
        self._wake.set()

    # ---- the wheel

    async def serve(self) -> None:
        """Main loop: settle, claim, dispatch; until `finish`."""
        while True:
            closing = self._closing
            if not closing:
                await self._wait_for_work()
            try:
                await self._turn()
                self._answered()
            except DatabaseError as error:
                if closing:
                    left = self._in_flight.waiting()
                    log.error(
                        "not settled before the end; the journals remember",
                        action="settle",
                        jobs=left,
                        error=str(error),
                    )
                    return
                await self._unanswered(error)
            if closing and not self._in_flight:
                for claim, why in self._in_flight.aside():
                    log.error(
                        "not settled before the end; its journal remembers", action="settle", job=claim.id, error=why
                    )
                return

    async def _wait_for_work(self) -> None:
        if self._in_flight or self._audit_due or self._suspects:
            return
        now = time.monotonic()
        wait = self.scheduler.seconds_until_next(now) if self._claiming and self._may_claim() else None
        if self._in_flight.aside():
            again = max(0.0, self._try_aside_at - now)
            wait = again if wait is None else min(wait, again)
        if wait != 0.0:
            await wait_for_event(self._wake, wait)
        self._wake.clear()

    async def _turn(self) -> None:
        if self._audit_due:
            await self._cycle([])
            await self._audit()
        if self._suspects:
            self._return_lost(await self._jobs.live_claims(sorted(self._suspects)))
            self._suspects = set()
        if time.monotonic() >= self._try_aside_at:
            self._in_flight.try_aside()
        requests = (
            self.scheduler.next_requests(self._batch(), time.monotonic())
            if self._claiming and self._may_claim()
            else []
        )
        if requests or self._in_flight:
            await self._cycle(requests)

    async def _cycle(self, requests: list[ClaimRequest]) -> None:
        batch = self._in_flight.begin(4 * self._batch())
        try:
            cycle, refused = await self.writer.write(batch, requests)
        except DatabaseError:
            self._in_flight.again(batch)
            self.scheduler.claim_failed(requests, time.monotonic())
            raise
        finally:
            self._in_flight.settled()
        now = time.monotonic()
        for entry, error in refused:
            self._try_aside_at = now + REFUSED_FOR
            self._in_flight.set_aside(entry, error)
            batch.remove(entry)
        self.scheduler.claimed(requests, cycle.taken, now)
        for device_id, lane, position in cycle.advanced:
            self.scheduler.hint(device_id, lane, position, now)
        await self._dispatch(cycle.taken)
        await self._tell_settled(batch, cycle.settled)

    def _counts(self, batch: Sequence[Entry]) -> list[Sends]:
        sends = (self.scheduler.send_to_count(claim, outcome) for _, claim, outcome, _ in batch)
        return count_sends(send for send in sends if send is not None)

    async def _dispatch(self, taken: list[ClaimedJob]) -> None:
        unwanted = {job.claim.id for job in taken if job.opted_out}
        faults = {job.claim.id: job.fault for job in taken if job.fault is not None}
        untold: set[int] = set()
        if self._opt_out_check is not None and taken:
            try:
                unwanted |= await self._opt_out_check([job for job in taken if job.fault is None])
            except DatabaseError as error:
                # Whoever may have opted out is not written to.
                untold = {job.claim.id for job in taken}
                log.warning("opt-outs could not be looked up; jobs go back", action="screen", error=str(error))
        good = self._may_claim()
        for job in taken:
            claim = job.claim
            shard = self.scheduler.shard_of(claim.device_id)
            self._in_flight.claimed(shard, claim)
            if claim.id in faults:
                self.outcomes(shard, [_ended(job.spec, Verdict.PERMANENT, faults[claim.id], ErrorClass.CONTENT)])
            elif claim.id in unwanted:
                self.outcomes(
                    shard, [_ended(job.spec, Verdict.OPTED_OUT, "the recipient opted out", ErrorClass.OPTED_OUT)]
                )
            # The shard went down during the claim, or the lease may have run out: then the job has gone nowhere.
            # Each has a message of its own: one that the worker cannot read costs no other job an attempt.
            elif claim.id in untold or shard == NO_SHARD or not good or not self._send(shard, ipc.SendJob(job.spec)):
                self.outcomes(shard, [_ended(job.spec, Verdict.RETURNED)])

    async def _tell_settled(self, batch: list[Entry], settled: set[int]) -> None:
        if not batch:
            return
        self._forget([entry for entry in batch if entry[1].id in settled])
        if stale := [entry for entry in batch if entry[1].id not in settled]:
            await self._resolve(stale)
            self._forget(stale)
        async with self._settled:
            self._settled.notify_all()

    def _forget(self, entries: list[Entry]) -> None:
        """Tell the workers that their journals need not remember these."""
        by_shard: dict[int, list[ClaimKey]] = {}
        for shard, claim, _, _ in entries:
            by_shard.setdefault(shard, []).append(claim.key)
        for shard, claims in by_shard.items():
            self._send(shard, ipc.Settled(claims=claims))

    async def _resolve(self, stale: list[Entry]) -> None:
        """Claims that were settled before, by us or by somebody who could only call them in doubt."""
        try:
            changed = await resolve_apart(self._jobs, [outcome for _, _, outcome, _ in stale])
        except DatabaseError:
            # Nobody is told yet that the journal may forget them; settling once more is harmless.
            self._in_flight.again(stale)
            raise
        log.info("settled before", action="settle", jobs=len(stale), resolved=changed)

    def _end(self, shard: int, claim: Claim, outcome: Outcome, now: float, wall: float) -> None:
        decision = settle(claim, outcome, self._backoff(), wall)
        back = isinstance(decision, Release) and decision.due_at is None
        self._in_flight.end((shard, claim, outcome, decision))
        self.scheduler.ended(claim, outcome, now, back=back)
        self.shard_totals[shard][outcome.verdict] += 1
        if outcome.suspect and isinstance(decision, Finish) and decision.state is JobState.FAILED:
            self._set_aside(claim, decision.error)
        if (words := OUTCOME_WORDS.get(Verdict(outcome.verdict))) is not None:
            log.info(
                words,
                action="outcome",
                shard=shard,
                device=claim.device_id,
                job=claim.id,
                verdict=outcome.verdict,
                error=outcome.error,
            )

    # ---- when the database does not answer

    async def _audit(self) -> None:
        """Return the claims that the database has under our epochs and we do not know of."""
        self._return_lost(await self._jobs.claims_of_epochs(self.epochs))
        self._audit_due = False

    def _return_lost(self, claims: list[Claim]) -> None:
        """Of these claims, which the database has while no cycle is under way, return those that nobody here knows of.

        They were never handed over: that is done only with claims that the answer of a cycle names.
        """
        now, wall = time.monotonic(), time.time()
        lost = [claim for claim in self._in_flight.missing(claims) if claim.epoch in self._epochs]
        for claim in lost:
            self.scheduler.found_in_flight(claim)
            outcome = Outcome(*claim.key, Verdict.RETURNED, at=wall)
            self._end(self.scheduler.shard_of(claim.device_id), claim, outcome, now, wall)
        if lost:
            log.warning("claims that no worker has returned to the queue", action="audit", jobs=len(lost))
            self.lost_claims = (len(lost), now)

    async def _unanswered(self, error: DatabaseError) -> None:
        self._failures += 1
        self._audit_due = True
        if self._failures == 1:
            log.warning("database does not answer; outcomes wait", action="database", error=str(error))
        self.database_error = str(error)
        await asyncio.sleep(full_jitter(self._failures, RETRY_FIRST, RETRY_CAP))

    def _answered(self) -> None:
        if self._failures:
            log.info("database answers again", action="database", tries=self._failures)
        self._failures = 0
        self.database_error = None


def _ended(spec: JobSpec, verdict: Verdict, error: str | None = None, error_class: ErrorClass | None = None) -> Outcome:
    """Of a job that no worker was told of."""
    return Outcome(*spec.key, verdict, error=error, at=time.time(), error_class=error_class)
