"""What became of claims whose worker, supervisor or node died: settled from the journals, else in doubt.

Claimed but never started → returned. Outcome known → settled. Started without outcome → in doubt. Where the journal may be
incomplete (the machine went down), "never started" is in doubt too. What the database has forgotten is settled from the memory of
what was sent (`SentMemory`), and what the journals know is added to that.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Final
from uuid import UUID

from shardd.errors import ErrorClass, JournalError, JournalHeldError, RefusedDataError, UnsafeFileError
from shardd.ipc import ClaimKey, Outcome
from shardd.journal import FOLDER, Journal, boot_id, journal_path, journals_of, read_pid, shard_of_journal
from shardd.journal_lines import Phase, Record
from shardd.logs import get_logger
from shardd.queue.jobs import Jobs, Orphan
from shardd.queue.records import Send, Sends, count_sends
from shardd.queue.settle import Claim, Finish, JobBackoff, Release, resolve, settle
from shardd.state_files import open_folder
from shardd.states import MAY_HAVE_LEFT, JobState, Verdict
from shardd.supervisor.dispatch.cycle_writer import resolve_accepted, settle_accepted
from shardd.supervisor.dispatch.in_flight import EndedClaim, PoisonJobs
from shardd.supervisor.dispatch.memory import SentMemory
from shardd.supervisor.dispatch.router import Router
from shardd.supervisor.dispatch.verdicts import NODE_DIED, Death, prepared_alone, verdicts
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.scheduling.scheduler import NO_SHARD

log = get_logger(__name__)

ORPHAN_WAIT: Final = 12.0
"""Seconds that a worker of a dead supervisor may take to finish; past twice its own grace it is killed."""
LOST_AFTER: Final = 2.0
"""A node is called lost after this many times its leases' ttl."""
HIDDEN_BOOT: Final = (
    "/proc/sys/kernel/random/boot_id cannot be read (ProcSubset=pid?), so a crash cannot be distinguished from a power loss: "
    "unless worker.journal_fsync is on, jobs that a dying worker had not yet handed over will be in doubt"
)


class Recovery:
    """Settles, from the journals of this node, what dead workers and earlier supervisors left behind, and what lost nodes did.

    A journal that cannot be opened (a link or a folder in its place, another user's file, a failing disk) blocks its own shard:
    its claims stay as they are, because it can still be made readable. It is retried until then.
    """

    def __init__(
        self,
        state_dir: Path,
        state: str,
        jobs: Jobs,
        *,
        incarnation: UUID,
        earlier: Collection[UUID],
        shards: int,
        backoff: Callable[[], JobBackoff],
        grace: float,
        zone_of: Callable[[str], tzinfo],
        poison: PoisonJobs,
        memory: SentMemory,
    ) -> None:
        """`state`: the state folder's id; `incarnation`: of this supervisor; `earlier`: those that ran on this folder before.

        `grace`: seconds after which a silent node is lost; `zone_of` a device.
        """
        self._state_dir = state_dir
        self._state = state
        self._jobs = jobs
        self._orphans = jobs.orphaned_claims(grace)
        self._incarnation = incarnation
        self._earlier = earlier
        self._shards = shards
        self._backoff = backoff
        self._grace = grace
        self._zone_of = zone_of
        self._poison = poison
        self._memory = memory
        self._records: dict[int, Record] = {}
        """What the journals contained at the start: a commit of an earlier run may appear later."""
        self.blocked: dict[int, str] = {}
        """Shards that cannot be settled, and why."""
        self.notes: list[str] = []
        """What was lost, in words."""

    # ---- a worker of this supervisor died

    async def settle_dead_worker(self, shard: int, death: Death, router: Router) -> Claim | None:
        """Settle what a dead worker had in flight; returns when that is done. Raises JournalError.

        Returns the job that was being prepared alone, if any.
        """
        journal = await self._open(journal_path(self._state_dir, shard))
        try:
            record = journal.read()
            claims = router.in_flight(shard)
            outcomes = verdicts(claims, record, death)
            if outcomes:
                what = {"jobs": len(outcomes), "in_doubt": _doubts(outcomes), "flaw": record.flaw}
                log.info("settled from the journal", action="recover", shard=shard, **what)
            router.outcomes(shard, outcomes)
            await router.wait_settled(shard)
            journal.clear()
            return prepared_alone(claims, record)
        finally:
            journal.close()

    # ---- an earlier supervisor of this node died

    async def outlive_orphans(self) -> None:
        """Wait until no worker of an earlier supervisor is left; then this one may take its leases.

        Raises JournalHeldError when one does not end.
        """
        for path in journals_of(self._state_dir):
            try:
                (await self._open(path)).close()
            except JournalHeldError:
                raise
            except JournalError as error:
                log.error("a journal cannot be opened", action="recover", error=str(error))

    async def run(self) -> None:
        """Settle everything, before any worker starts. Raises DatabaseError, JournalHeldError.

        Call it when this incarnation holds its leases, so that no earlier epoch of this node has one.
        """
        if boot_id() is None:
            self.notes.append(HIDDEN_BOOT)
            log.warning("the boot id cannot be read", action="recover", effect=HIDDEN_BOOT)
        await asyncio.to_thread(self._memory.load)
        await self._recover()

    async def retry(self) -> set[int]:
        """Try the blocked shards again; returns those that are settled now. Raises DatabaseError."""
        before = dict(self.blocked)
        if before:
            try:
                await self._recover(before)
            except JournalHeldError as error:
                self.blocked = dict.fromkeys(before, str(error))
        return before.keys() - self.blocked.keys()

    def problems(self) -> Iterable[Problem]:
        """The blocked shards; those with the same cause share one."""
        by_cause: dict[str, list[str]] = {}
        for shard, why in sorted(self.blocked.items()):
            by_cause.setdefault(why, []).append(str(shard))
        for why, shards in by_cause.items():
            whose = f"shard {shards[0]}" if len(shards) == 1 else f"shards {', '.join(shards)}"
            yield Problem(
                ProblemKind.JOURNAL,
                f"jobs that an earlier run of {whose} left cannot be settled, and no worker starts: {why}",
            )

    async def _recover(self, only: Collection[int] | None = None) -> None:
        blocked: dict[int, str] = {}
        journals: dict[int, Journal] = {}
        try:
            records = await self._read_all(only, journals, blocked)
            self._remember(records.values())

            def is_due(shard: int) -> bool:
                return shard not in blocked and (only is None or shard in only)

            claims: dict[int, list[Claim]] = {}
            for orphan in await self._jobs.orphaned_claims(self._grace).rest():
                if orphan.incarnation in self._earlier and not orphan.alive and is_due(orphan.shard):
                    claims.setdefault(orphan.shard, []).append(orphan.claim)
            # A missing journal proves nothing.
            outcomes = [o for shard in claims for o in self._verdicts(claims[shard], records.get(shard, Record()))]
            refused = await self._settle([claim for of_shard in claims.values() for claim in of_shard], outcomes)
            shard_of = {claim.key: shard for shard, of_shard in claims.items() for claim in of_shard}
            # Another node may have called some of them in doubt meanwhile; our journals know better.
            unresolved = await self._resolve(records, is_due)
            for shard, error in (*((shard_of[key], error) for key, error in refused.items()), *unresolved.items()):
                blocked[shard] = f"the database refuses to store what its journal knows: {error}"
            self._records |= {shard: record for shard, record in records.items() if shard not in blocked}
            self._report(claims, records, outcomes)
            for shard in journals.keys() - blocked.keys():
                try:
                    journals[shard].clear()
                except JournalError as error:
                    blocked[shard] = str(error)
        finally:
            for journal in journals.values():
                journal.close()
        for why in blocked.values():
            if why not in self.blocked.values():
                log.error("a shard cannot be settled from its journal", action="recover", error=why)
        self.blocked = blocked

    async def _resolve(self, records: Mapping[int, Record], is_due: Callable[[int], bool]) -> dict[int, str]:
        """Resolve the doubts about which the records of journals prove something; returns the refusals by shard.

        A doubt that a journal cannot resolve is marked, because a journal that was emptied would seem to prove that nothing was
        ever started. Raises DatabaseError.
        """
        known = {
            key: outcome
            for record in records.values()
            for key, outcome in record.outcomes.items()
            if record.phase(key) is Phase.ENDED
        }
        decisions: list[Finish | Release] = []
        shard_of: dict[ClaimKey, int] = {}
        for doubt in await self._jobs.find_doubts([key[0] for key in known], self._earlier):
            claim = doubt.claim
            if claim.key in known and (doubt.lost or known[claim.key].verdict != Verdict.IN_DOUBT):
                decisions.append(resolve(claim, known[claim.key]))
            elif doubt.lost and is_due(doubt.shard):
                (outcome,) = self._verdicts([claim], records.get(doubt.shard, Record()))
                decisions.append(resolve(claim, outcome))
            shard_of[claim.key] = doubt.shard
        if not decisions:
            return {}
        changed, refused = await resolve_accepted(self._jobs, decisions)
        left = sum(isinstance(each, Finish) and each.state is JobState.IN_DOUBT for each in decisions)
        log.warning("doubts resolved by journals", action="recover", jobs=changed, still_in_doubt=left)
        return {shard_of[decision.claim.key]: str(error) for decision, error in refused}

    async def _read_all(
        self, only: Collection[int] | None, journals: dict[int, Journal], blocked: dict[int, str]
    ) -> dict[int, Record]:
        records: dict[int, Record] = {}
        try:
            os.close(open_folder(self._state_dir, FOLDER, make=True))
        except (OSError, UnsafeFileError) as error:
            why = str(error) if isinstance(error, UnsafeFileError) else f"{self._state_dir / FOLDER}: {error.strerror}"
            blocked |= dict.fromkeys(range(self._shards), why)
            return records
        for path in journals_of(self._state_dir):
            shard = shard_of_journal(path)
            if only is not None and shard not in only:
                continue
            try:
                journals[shard] = journal = await self._open(path)
                records[shard] = journal.read()
            except JournalHeldError:
                raise
            except JournalError as error:
                blocked[shard] = str(error)
        return records

    async def _open(self, path: Path) -> Journal:
        """Open a journal once its worker is dead; a worker that outlives its grace is killed. Raises JournalError."""
        deadline = time.monotonic() + ORPHAN_WAIT
        killed = False
        while True:
            try:
                return Journal.open(path, state=self._state, shard=shard_of_journal(path))
            except JournalHeldError:
                if time.monotonic() > deadline + 2:
                    raise
                if time.monotonic() > deadline and not killed:
                    killed = True
                    _kill_holder(path)
                await asyncio.sleep(0.05)

    def _report(self, claims: dict[int, list[Claim]], records: dict[int, Record], outcomes: list[Outcome]) -> None:
        if outcomes:
            what = {"jobs": len(outcomes), "in_doubt": _doubts(outcomes)}
            log.warning("recovered the claims of an earlier run", action="recover", **what)
        for shard, of_shard in sorted(claims.items()):
            record = records.get(shard, Record())
            unknown = sum(record.phase(claim.key) is Phase.UNKNOWN for claim in of_shard)
            if unknown:
                flaw = record.flaw or "it contradicts itself"
                jobs = "1 job is" if unknown == 1 else f"{unknown} jobs are"
                text = f"{jobs} in doubt, because the journal of shard {shard} cannot prove whether they were handed over: {flaw}"
                self.notes.append(text)
                log.warning("claims in doubt after a restart", action="recover", shard=shard, jobs=unknown, flaw=flaw)

    # ---- another node is lost

    async def settle_lost_nodes(self) -> int:
        """Settle what lost nodes left; returns how many. Their journals may still resolve what is in doubt then.

        Raises DatabaseError.
        """
        settled, doubts = 0, 0
        refused: list[str] = []
        # Page by page: who is alive may change before a pass ends.
        while (orphans := await self._orphans.page()) is not None:
            ended = {
                orphan.claim: out for orphan in orphans if (out := self._verdict_without_lease(orphan)) is not None
            }
            if ended:
                refused += (await self._settle(list(ended), list(ended.values()))).values()
                settled, doubts = settled + len(ended), doubts + _doubts(ended.values())
            self._orphans.advance()
        # What another node called in doubt since this one started, such as claims whose commit hung.
        refused += (await self._resolve(self._records, lambda shard: shard not in self.blocked)).values()
        if settled:
            log.warning("claims without a lease", action="sweep", jobs=settled, in_doubt=doubts)
        if refused:
            raise RefusedDataError(refused[0])
        return settled

    def _verdict_without_lease(self, orphan: Orphan) -> Outcome | None:
        """How a claim ends whose epoch has no lease any more; None: that may still be known to somebody."""
        claim = orphan.claim
        if orphan.drained:
            return self._recalled(claim, Outcome(*claim.key, Verdict.RETURNED, at=time.time()))
        if orphan.alive or orphan.incarnation == self._incarnation:
            return None  # its supervisor knows
        if orphan.incarnation in self._earlier and orphan.shard in self.blocked:
            return None  # it waits for a readable journal of this node
        if orphan.incarnation in self._earlier:
            (outcome,) = self._verdicts([claim], self._records.get(orphan.shard, Record()))
            return outcome
        error = f"node {orphan.node} was lost while this was in flight"
        doubt = Outcome(*claim.key, Verdict.IN_DOUBT, error=error, at=time.time(), error_class=ErrorClass.NODE)
        return self._recalled(claim, doubt)

    def _verdicts(self, claims: Sequence[Claim], record: Record) -> list[Outcome]:
        """What became of claims of an earlier supervisor, by a journal, or else by the memory of what was sent."""
        proven = verdicts(claims, record, NODE_DIED)
        return [self._recalled(claim, outcome) for claim, outcome in zip(claims, proven, strict=True)]

    def _recalled(self, claim: Claim, outcome: Outcome) -> Outcome:
        """What the memory knows, where that is more than what a journal proves."""
        if outcome.verdict not in (Verdict.RETURNED, Verdict.IN_DOUBT):
            return outcome
        return self._memory.recall(claim, outcome.verdict) or outcome

    def _remember(self, records: Iterable[Record]) -> None:
        """Note what the journals know: the database may have forgotten the claims themselves."""
        for record in records:
            for claim, outcome in record.outcomes.items():
                if record.phase(claim) is Phase.ENDED:
                    self._memory.note(outcome)
            # In one with a hole the outcome may be missing, and the job may rightly be in the queue.
            if record.complete:
                for claim in record.started - record.outcomes.keys():
                    self._memory.note_started(claim)
        self._memory.write()

    async def _settle(self, claims: list[Claim], outcomes: list[Outcome]) -> dict[ClaimKey, str]:
        """Settle without the router; returns the claims that the database refuses to settle, with the errors."""
        ended = [
            EndedClaim(NO_SHARD, claim, outcome, settle(claim, outcome, self._backoff(), time.time()))
            for claim, outcome in zip(claims, outcomes, strict=True)
        ]

        def counts(some: Sequence[EndedClaim]) -> list[Sends]:
            return count_sends(
                # Whether a campaign has a cap is not known yet; an unneeded count does no harm.
                Send(each.claim.device_id, each.outcome.at, self._zone_of(each.claim.device_id), each.claim.campaign)
                for each in some
                if each.outcome.verdict in MAY_HAVE_LEFT
            )

        settled = await settle_accepted(self._jobs, ended, counts)
        for each, error in (*settled.reduced, *settled.refused):
            what = {"job": each.claim.id, "device": each.claim.device_id}
            log.error("an outcome is refused", action="recover", **what, error=str(error))
        refused = {each.claim.key: str(error) for each, error in settled.refused}
        for each in ended:
            if each.claim.key not in refused:
                self._poison.check(each)
        return refused


def _doubts(outcomes: Iterable[Outcome]) -> int:
    return sum(outcome.verdict == Verdict.IN_DOUBT for outcome in outcomes)


def _kill_holder(path: Path) -> None:
    pid = read_pid(path)
    if pid is None:
        return
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The header may be stale, and its pid reused by another process.
        if b"shardd.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            log.warning("killing a worker that outlived its supervisor", action="recover", pid=pid)
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except FileNotFoundError:
        return
    finally:
        os.close(fd)
