"""The router: the only claimer of this node, from the table to the workers and back.

A cycle settles what ended and claims for the devices that may send, in one round trip and one commit, then hands the jobs to
their shards. While it is in the database, outcomes gather for the next one, so the batch sizes itself. When many have gathered,
another cycle begins beside it, so that the database works while an answer is handed over; they have no claim and no device in
common.

When the database does not answer, nothing is lost and nothing is claimed: outcomes wait here (and in the journals). After the
first answer an audit asks which claims the database has, because a claim may have been committed whose answer never arrived.

When the database has forgotten commits, it offers jobs again whose messages were sent. So each claim is compared with what is in
flight and with what was sent (`SentMemory`) before a worker gets it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import Final
from uuid import UUID

import msgspec

from shardd import ipc
from shardd.backoff import full_jitter
from shardd.errors import DatabaseError, ErrorClass
from shardd.ipc import ClaimKey, Outcome
from shardd.logs import get_logger
from shardd.queue.jobs import Jobs
from shardd.queue.records import ClaimedJob, ClaimRequest, Sends, WorkHint, count_sends
from shardd.queue.settle import Claim, JobBackoff, Release, resolve, settle
from shardd.states import Verdict
from shardd.supervisor.dispatch.audit import Audit
from shardd.supervisor.dispatch.cycle_writer import REFUSED_FOR, CycleWriter, resolve_accepted
from shardd.supervisor.dispatch.in_flight import EndedClaim, InFlight, PoisonJobs
from shardd.supervisor.dispatch.latencies import Latencies
from shardd.supervisor.dispatch.memory import SentMemory
from shardd.supervisor.scheduling.scheduler import NO_SHARD, Scheduler
from shardd.supervisor.services import RETRY_CAP, RETRY_FIRST, Service
from shardd.tasks import end_tasks, wait_for_event

log = get_logger(__name__)

AT_ONCE: Final = 2
"""Cycles: one is in the database while the answer of the other is handed over."""
BESIDE: Final = 100
"""Claims to settle for which a cycle begins beside another one, at least: one for a few costs the database as much."""

LOG_WORDS: Final = {
    Verdict.PERMANENT: "send failed",
    Verdict.TRANSIENT: "send failed",
    Verdict.UNAVAILABLE: "device cannot send",
    Verdict.RETURNED: "job returned to the queue",
    Verdict.IN_DOUBT: "outcome unknown",
    Verdict.EXPIRED: "job expired",
}
"""Log messages for outcomes other than a success."""

CheckOptOuts = Callable[[Sequence[ClaimedJob], float], Awaitable[set[int]]]
"""Returns which of these jobs must not be sent, because their recipients opted out. Raises DatabaseError.

With the time at which their claim began, on the monotonic clock."""


class Router(Service):
    """Claims, dispatches and settles."""

    def __init__(
        self,
        *,
        incarnation: UUID,
        jobs: Jobs,
        scheduler: Scheduler,
        in_flight: InFlight,
        poison: PoisonJobs,
        memory: SentMemory,
        send: Callable[[int, ipc.ToWorker], bool],
        may_claim: Callable[[], bool],
        batch: Callable[[], int],
        backoff: Callable[[], JobBackoff],
        opt_out_check: CheckOptOuts,
        defect: Callable[[str], None],
    ) -> None:
        """`incarnation`: of this supervisor; `send`: sends a message to a shard's worker; False if that is impossible.

        `may_claim`: whether this node's leases are certainly good now; `batch`: the most jobs of one claim; `opt_out_check`: a
        second check for opt-outs, of what the database cannot know by itself.
        """
        self._incarnation = incarnation
        self._jobs = jobs
        self._scheduler = scheduler
        self._in_flight = in_flight
        self._poison = poison
        self._memory = memory
        self._send = send
        self._may_claim = may_claim
        self._batch = batch
        self._backoff = backoff
        self._opt_out_check = opt_out_check
        self._writer = CycleWriter(jobs, scheduler, self._counts, defect)
        self._epoch_of: dict[int, int] = {}
        self._audit = Audit(jobs, incarnation)
        self._unchecked: set[int] = set()
        self._doubts_unchecked = False
        self._retry_refused_at = 0.0
        self.lost_claims = (0, float("-inf"))
        """How many claims that no worker had were returned to the queue the last time, and when (monotonic)."""
        self._failures = 0
        self._cycles: dict[asyncio.Task[None], int] = {}
        """Under way, with how many claims each settles."""
        self.on_advanced: Callable[[list[WorkHint]], None] = lambda _: None
        """Called with the jobs that joined their lanes, whoever has to send them."""
        self._wake = asyncio.Event()
        self._settled = asyncio.Condition()
        self._claiming = True
        self._closing = False
        self.shard_totals: defaultdict[int, Counter[str]] = defaultdict(Counter)
        """Outcomes by shard and verdict, since the supervisor's start."""
        self.database_error: str | None = None
        self.latencies = Latencies()

    # ---- called by others

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    def shard_up(self, shard: int, epoch: int) -> None:
        """A shard's worker takes jobs."""
        self._epoch_of[shard] = epoch
        self._scheduler.shard_up(shard, epoch, time.monotonic())
        self._wake.set()

    def shard_down(self, shard: int) -> None:
        """A shard's worker takes no more jobs; what it has in flight stays in flight."""
        self._scheduler.shard_down(shard)

    def clients_changed(self, shard: int, report: ipc.Clients) -> None:
        """A shard's worker opened or closed clients, or can open more or fewer at a time."""
        self._scheduler.clients_changed(shard, report, time.monotonic())
        self._wake.set()

    def outcomes(self, shard: int, outcomes: Iterable[Outcome]) -> None:
        """Claims of a shard ended. Outcomes of claims that its worker does not have are ignored: they were settled before."""
        now, wall = time.monotonic(), time.time()
        for outcome in outcomes:
            if (found := self._in_flight.returned(shard, outcome)) is not None:
                claim, since = found
                if outcome.verdict == Verdict.SENT:
                    self.latencies.send.observe(now - since)
                self._end(shard, claim, outcome, now, wall)
                if (waiting := self._in_flight.joined(claim.key)) is not None:
                    of, again = waiting
                    same = msgspec.structs.replace(outcome, epoch=again.epoch, attempt=again.attempt)
                    self._end(of, again, same, now, wall, known=True)
        self._wake.set()

    def in_flight(self, shard: int) -> list[Claim]:
        """What the worker of a shard has."""
        return self._in_flight.of_shard(shard)

    def drained(self, epochs: Iterable[int]) -> list[int]:
        """Those of these epochs under which nothing is in flight or waits to be settled."""
        known = self._in_flight.epochs()
        return [epoch for epoch in epochs if epoch not in known]

    def check_claims(self, claims: list[Claim], doubts: list[Claim]) -> None:
        """Return to the queue those of these claims and doubts that are unknown here; the database has all of them as ours.

        `doubts`: claims that another node called in doubt. They may have been made or settled just now, so the database is asked
        again while no cycle is under way.
        """
        self._unchecked = {claim.id for claim in self._in_flight.missing(claims)}
        self._doubts_unchecked = bool(self._in_flight.missing(doubts))
        if self._unchecked or self._doubts_unchecked:
            self._wake.set()

    def sent_by(self, shard: int) -> int:
        """How many messages a shard has sent since the supervisor's start."""
        return self.shard_totals[shard][Verdict.SENT]

    async def wait_settled(self, shard: int) -> None:
        """Wait until nothing of a shard is in flight or waits to be settled; endless while the database does not answer."""
        async with self._settled:
            await self._settled.wait_for(lambda: self._in_flight.unsettled(shard) == 0)

    def stop_claiming(self) -> None:
        """Claim nothing any more; settling goes on."""
        self._claiming = False

    async def stop(self) -> None:
        """End after one more try to settle what is known."""
        self._stopped = True
        self._claiming = False
        self._closing = True
        # Otherwise a commit that hung until now would look like claims that died with a worker.
        self._audit.due = self._audit.needed_at_end
        self._in_flight.retry_refused()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    # ---- the main loop

    async def serve(self) -> None:
        """Settle, claim, dispatch; until `stop`."""
        try:
            while not await self._take_turn():
                pass
        finally:
            await end_tasks(self._cycles)

    async def _take_turn(self) -> bool:
        """Begin a cycle when there is work; returns whether that was the last one."""
        closing = self._closing
        if not closing:
            await self._wait_for_work()
        try:
            await self._end_cycles(all_=closing or self._must_be_alone)
            if self._must_be_alone:
                await self._check_claims()
            if not self._cycles or self._may_begin_beside:
                self._begin_cycle()
            if closing:
                await self._end_cycles(all_=True)
        except DatabaseError as error:
            if closing:
                jobs = self._in_flight.waiting()
                log.error("not settled at the end; journals know", action="settle", jobs=jobs, error=str(error))
                return True
            await self._unanswered(error)
        if closing and not self._in_flight.ended:
            for claim, why in self._in_flight.refused():
                log.error("not settled at the end; its journal knows", action="settle", job=claim.id, error=why)
            return True
        return False

    async def _wait_for_work(self) -> None:
        """Until another cycle may begin, or one has ended."""
        while self._cycles:
            if any(cycle.done() for cycle in self._cycles) or self._may_begin_beside:
                return
            await self._wake.wait()
            self._wake.clear()
        if self._in_flight.ended or self._must_be_alone:
            return
        now = time.monotonic()
        wait = self._scheduler.seconds_until_next(now) if self._claiming and self._may_claim() else None
        if self._in_flight.refused():
            again = max(0.0, self._retry_refused_at - now)
            wait = again if wait is None else min(wait, again)
        if wait != 0.0:
            await wait_for_event(self._wake, wait)
        self._wake.clear()

    @property
    def _must_be_alone(self) -> bool:
        """Whether claims have to be compared with the database's, which no cycle may change meanwhile."""
        return self._audit.due or self._audit.under_way or bool(self._unchecked) or self._doubts_unchecked

    @property
    def _may_begin_beside(self) -> bool:
        """Whether a cycle may begin although others are under way: for half as many claims as each of them."""
        least = max(BESIDE, *(settled // 2 for settled in self._cycles.values())) if self._cycles else 0
        return len(self._cycles) < AT_ONCE and not self._must_be_alone and self._in_flight.ended >= least

    async def _end_cycles(self, *, all_: bool) -> None:
        """Forget cycles that have ended; `all_`: wait for the others. Raises DatabaseError, of one that had no answer."""
        if all_ and self._cycles:
            await asyncio.wait(self._cycles)
        done = [cycle for cycle in self._cycles if cycle.done()]
        for cycle in done:
            del self._cycles[cycle]
        errors = [error for cycle in done if (error := cycle.exception()) is not None]
        # A defect ends the supervisor, whatever else there is.
        for error in sorted(errors, key=lambda error: isinstance(error, DatabaseError)):
            raise error

    async def _check_claims(self) -> None:
        """Compare the claims of this node with the database's, while no cycle is under way. Raises DatabaseError."""
        if self._audit.due:
            await self._cycle(self._in_flight.begin_settling(4 * self._batch()), [])
            self._audit.begin()
        while self._audit.under_way:
            self._return_lost(await self._audit.page())
            if not self._closing:
                break
        if self._unchecked:
            self._return_lost(await self._jobs.live_claims(sorted(self._unchecked), self._incarnation))
            self._unchecked = set()
        if self._doubts_unchecked:
            await self._return_doubts()
            self._doubts_unchecked = False

    def _begin_cycle(self) -> None:
        """Begin one, if there is work."""
        if time.monotonic() >= self._retry_refused_at:
            self._in_flight.retry_refused()
        requests: list[ClaimRequest] = []
        if self._claiming and self._may_claim():
            requests = self._scheduler.next_requests(self._batch(), time.monotonic())
            if held := [request for request in requests if self._audit.holds(request)]:
                self._scheduler.claim_failed(held, time.monotonic())
                requests = [request for request in requests if not self._audit.holds(request)]
        if requests or self._in_flight.ended:
            batch = self._in_flight.begin_settling(4 * self._batch())
            cycle = asyncio.create_task(self._cycle(batch, requests))
            cycle.add_done_callback(lambda _: self._wake.set())
            self._cycles[cycle] = len(batch)

    async def _cycle(self, batch: list[EndedClaim], requests: list[ClaimRequest]) -> None:
        began = time.monotonic()
        try:
            cycle, refused = await self._writer.write(batch, requests)
        except DatabaseError:
            self._in_flight.settle_again(batch)
            self._scheduler.claim_failed(requests, time.monotonic())
            self._audit.unanswered(requests)
            raise
        finally:
            self._in_flight.settling_done(batch)
        self._answered()
        now = time.monotonic()
        if requests:
            self.latencies.claim.observe(now - began)
        for ended, error in refused:
            self._retry_refused_at = now + REFUSED_FOR
            self._in_flight.refuse(ended, error)
            batch.remove(ended)
        for ended in batch:
            self.latencies.settle.observe(now - ended.at)
        self._scheduler.claimed(requests, cycle.claimed, now)
        asked = {(request.device_id, request.lane) for request in requests}
        for device_id, lane, position in (*cycle.advanced, *_released(batch, asked)):
            self._scheduler.hint(device_id, lane, position, now)
        if cycle.advanced:
            self.on_advanced(cycle.advanced)
        await self._dispatch(cycle.claimed, began)
        if batch:
            await self._finish([ended for ended in batch if ended.claim.id in cycle.settled])
            await self._resolve([ended for ended in batch if ended.claim.id not in cycle.settled])

    def _counts(self, batch: Sequence[EndedClaim]) -> list[Sends]:
        sends = (self._scheduler.send_to_count(ended.claim, ended.outcome) for ended in batch)
        return count_sends(send for send in sends if send is not None)

    async def _dispatch(self, claimed: list[ClaimedJob], began: float) -> None:
        opted_out = await self._check_opt_outs(claimed, began) if claimed else set()
        may_send = self._may_claim()
        for job in claimed:
            claim = job.claim
            shard = self._scheduler.shard_of(claim.device_id)
            if self._in_flight.joins(shard, claim):
                continue
            if (known := self._memory.recall(claim)) is not None:
                self._end(shard, claim, known, time.monotonic(), time.time(), known=True)
                continue
            self._in_flight.claimed(shard, claim)
            if job.fault is not None:
                ended = _ended(claim, Verdict.PERMANENT, job.fault, ErrorClass.CONTENT)
            elif job.opted_out or (opted_out is not None and claim.id in opted_out):
                ended = _ended(claim, Verdict.OPTED_OUT, "the recipient opted out", ErrorClass.OPTED_OUT)
            # The shard went down during the claim, or the lease may have run out: then the job has gone nowhere.
            # Each has a message of its own: one that the worker cannot read costs no other job an attempt.
            # An answer that took long may come when the shard has another epoch: then another node may have taken it meanwhile.
            elif (
                opted_out is None
                or shard == NO_SHARD
                or claim.epoch != self._epoch_of.get(shard)
                or not may_send
                or not self._send(shard, ipc.SendJob(job.spec, self._scheduler.sends_again_in(claim.device_id)))
            ):
                ended = _ended(claim, Verdict.RETURNED)
            else:
                continue
            self.outcomes(shard, [ended])

    async def _check_opt_outs(self, claimed: Sequence[ClaimedJob], began: float) -> set[int] | None:
        """Jobs whose recipients opted out; None: unknown, so that none may be sent."""
        try:
            return await self._opt_out_check([job for job in claimed if job.fault is None], began)
        except DatabaseError as error:
            log.warning("opt-outs could not be checked; jobs go back", action="opt_out_check", error=str(error))
            return None

    async def _finish(self, settled: list[EndedClaim]) -> None:
        """Let the workers' journals forget these claims, and wake whoever waits for them."""
        self._memory.write()
        by_shard: dict[int, list[ClaimKey]] = {}
        for ended in settled:
            by_shard.setdefault(ended.shard, []).append(ended.claim.key)
        for shard, claims in by_shard.items():
            self._send(shard, ipc.Settled(claims=claims))
        async with self._settled:
            self._settled.notify_all()

    async def _resolve(self, stale: list[EndedClaim]) -> None:
        """Claims that were settled before, by us or by another node that could only call them in doubt."""
        if not stale:
            return
        decisions = {ended.claim.key: resolve(ended.claim, ended.outcome) for ended in stale}
        try:
            changed, refused = await resolve_accepted(self._jobs, list(decisions.values()))
        except DatabaseError:
            # The journals may not forget them yet; settling once more is harmless.
            self._in_flight.settle_again(stale)
            raise
        log.info("settled before", action="settle", jobs=len(stale), resolved=changed)
        errors = {decision.claim.key: str(error) for decision, error in refused}
        for ended in stale:
            if ended.claim.key in errors:
                self._retry_refused_at = time.monotonic() + REFUSED_FOR
                self._in_flight.refuse(ended, errors[ended.claim.key])
        await self._finish([ended for ended in stale if ended.claim.key not in errors])

    def _end(self, shard: int, claim: Claim, outcome: Outcome, now: float, wall: float, *, known: bool = False) -> None:
        """A claim ended. `known`: as its job did before, which the database has forgotten."""
        self._memory.note(outcome)
        decision = settle(claim, outcome, self._backoff(), wall)
        ended = EndedClaim(shard, claim, outcome, decision)
        self._in_flight.end(ended)
        self._scheduler.ended(claim, outcome, now, back=isinstance(decision, Release) and decision.due_at is None)
        if known:
            log.warning("settled again: the database lost it", action="recall", job=claim.id, verdict=outcome.verdict)
            return
        self.shard_totals[shard][outcome.verdict] += 1
        self._poison.check(ended)
        if (words := LOG_WORDS.get(Verdict(outcome.verdict))) is not None:
            what = {"job": claim.id, "device": claim.device_id, "shard": shard}
            log.info(words, action="outcome", **what, verdict=outcome.verdict, error=outcome.error)

    # ---- when the database does not answer

    def _return_lost(self, claims: list[Claim]) -> None:
        """Of these claims, which the database has while no cycle is under way, return those that are unknown here.

        They never reached a worker: only claims named by the answer of a cycle do. Unless the database has lost their outcome.
        """
        now, wall = time.monotonic(), time.time()
        returned = 0
        for claim in self._in_flight.missing(claims):
            self._scheduler.found_in_flight(claim)
            known = self._memory.recall(claim)
            returned += known is None
            outcome = known or _ended(claim, Verdict.RETURNED)
            self._end(self._scheduler.shard_of(claim.device_id), claim, outcome, now, wall, known=known is not None)
        if returned:
            log.warning("claims that no worker has returned to the queue", action="audit", jobs=returned)
            self.lost_claims = (returned, now)

    async def _return_doubts(self) -> None:
        """Likewise for claims that another node called in doubt while this one was out of reach.

        What a worker had is known here until its outcome is stored, and is then no such doubt any more.
        """
        doubts = await self._jobs.find_doubts([], [self._incarnation])
        never = self._in_flight.missing(doubt.claim for doubt in doubts if doubt.lost)
        outcomes = [self._memory.recall(one) or _ended(one, Verdict.RETURNED) for one in never]
        decisions = [resolve(one, outcome) for one, outcome in zip(never, outcomes, strict=True)]
        changed, _ = await resolve_accepted(self._jobs, decisions)
        if changed:
            log.warning("jobs in doubt that no worker had returned to the queue", action="audit", jobs=changed)

    async def _unanswered(self, error: DatabaseError) -> None:
        self._failures += 1
        self._audit.database_failed()
        if self._failures == 1:
            log.warning("database does not answer; outcomes wait", action="database", error=str(error))
        self.database_error = str(error)
        await asyncio.sleep(full_jitter(self._failures, RETRY_FIRST, RETRY_CAP))

    def _answered(self) -> None:
        if self._failures:
            log.info("database answers again", action="database", tries=self._failures)
        self._failures = 0
        self.database_error = None


def _released(batch: Iterable[EndedClaim], asked: Collection[tuple[str, str]]) -> Iterator[WorkHint]:
    """Jobs that are in their lanes again, which a claim beside this one could not see yet; not of lanes that it claimed from."""
    for ended in batch:
        claim, decision = ended.claim, ended.decision
        back = isinstance(decision, Release) and decision.due_at is None
        if back and (claim.device_id, claim.lane) not in asked:
            yield claim.device_id, claim.lane, (claim.ord, claim.id)


def _ended(claim: Claim, verdict: Verdict, error: str | None = None, error_class: ErrorClass | None = None) -> Outcome:
    """The outcome of a claim that never reached a worker."""
    return Outcome(*claim.key, verdict, error=error, at=time.time(), error_class=error_class)
