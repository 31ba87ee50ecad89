"""After a crash: what became of the claims that nobody answered for.

The journal decides. Claimed but never started → returned. Outcome known → settled. Started without outcome → in doubt.
And where the journal cannot be trusted to be whole (the machine went down), "never started" is in doubt too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Final

from shardd.errors import ErrorClass, JournalError, JournalHeldError, RefusedDataError, UnsafeFileError
from shardd.ipc import ClaimKey, Outcome
from shardd.journal import FOLDER, Journal, boot_id, journal_path, journals_of, read_pid, shard_of_journal
from shardd.journal_lines import Phase, Record
from shardd.logs import get_logger
from shardd.queue.jobs import Jobs
from shardd.queue.records import Send, Sends, count_sends
from shardd.queue.settle import Claim, Finish, JobBackoff, settle
from shardd.state_files import open_folder
from shardd.states import MAY_HAVE_LEFT, JobState, Verdict
from shardd.supervisor.dispatch.cycle_writer import resolve_apart, settle_apart
from shardd.supervisor.dispatch.in_flight import Entry
from shardd.supervisor.dispatch.router import Router
from shardd.supervisor.dispatch.verdicts import NODE_DIED, Death, prepared_alone, verdicts
from shardd.supervisor.problems import Problem, ProblemKind

log = get_logger(__name__)

ORPHAN_WAIT: Final = 12.0
"""Seconds that a worker of a dead supervisor may take to finish; past twice its own grace it is killed."""
LOST_AFTER: Final = 2.0
"""A node is called lost after this many times its leases' ttl."""
Zones = Callable[[str], tzinfo]
"""The time zone of a device."""
HIDDEN_BOOT: Final = (
    "/proc/sys/kernel/random/boot_id cannot be read (ProcSubset=pid?), so a crash cannot be told from a loss of power: unless "
    "worker.journal_fsync is on, what a worker that dies had not yet handed over will be in doubt"
)
NO_SHARD: Final = -1


async def open_journal(path: Path, state: str) -> Journal:
    """Open a shard's journal once its worker is dead; one that outlives its grace is killed. Raises JournalError.

    `state`: the state folder's id.
    """
    deadline = time.monotonic() + ORPHAN_WAIT
    killed = False
    while True:
        try:
            return Journal.open(path, state=state, shard=shard_of_journal(path))
        except JournalHeldError:
            if time.monotonic() > deadline + 2:
                raise
            if time.monotonic() > deadline and not killed:
                killed = True
                _kill_holder(path)
            await asyncio.sleep(0.05)


async def settle_from_journal(state_dir: Path, state: str, shard: int, router: Router, death: Death) -> Claim | None:
    """Settle what a dead worker had in flight, as its journal says; returns when it is settled. Raises JournalError.

    Returns the job that was being prepared alone, if one was.
    """
    journal = await open_journal(journal_path(state_dir, shard), state)
    try:
        record = journal.read()
        claims = router.in_flight(shard)
        outcomes = verdicts(claims, record, death)
        doubts = sum(o.verdict == Verdict.IN_DOUBT for o in outcomes)
        if outcomes:
            log.info(
                "settled from the journal",
                action="bury",
                shard=shard,
                jobs=len(outcomes),
                in_doubt=doubts,
                flaw=record.flaw,
            )
        router.outcomes(shard, outcomes)
        await router.wait_settled(shard)
        journal.clear()
        return prepared_alone(claims, record)
    finally:
        journal.close()


class Recovery:
    """What an earlier supervisor of this node left behind, settled shard by shard before that shard's worker starts.

    A journal that cannot be opened (a link, a folder in its place, somebody else's file, a disk that fails) blocks its own shard:
    its claims stay as they are, because a person can still make it readable. It is tried again until then.
    """

    def __init__(
        self,
        state_dir: Path,
        state: str,
        jobs: Jobs,
        *,
        node: str,
        shards: int,
        backoff: Callable[[], JobBackoff],
        grace: float,
        zones: Zones,
        set_aside: Callable[[Claim, str | None], None],
    ) -> None:
        """`state`: the state folder's id; `grace`: seconds; `zones`: of the devices, whose days and hours the limits count.

        `set_aside`: hears of a job that is ended because it ends workers.
        """
        self._set_aside = set_aside
        self._state_dir = state_dir
        self._state = state
        self._jobs = jobs
        self._node = node
        self._shards = shards
        self._backoff = backoff
        self._grace = grace
        self._zones = zones
        self.blocked: dict[int, str] = {}
        """Shards that wait for a person, and why."""
        self.notes: list[str] = []
        """What was lost, in words."""

    async def outlive_orphans(self) -> None:
        """Until no worker of an earlier supervisor is left: before this one says that its leases are its own.

        Raises JournalHeldError when one does not end.
        """
        for path in journals_of(self._state_dir):
            try:
                (await open_journal(path, self._state)).close()
            except JournalHeldError:
                raise
            except JournalError as error:
                log.error("a journal cannot be opened", action="recover", error=str(error))

    async def run(self) -> None:
        """Settle everything, before any worker starts. Raises DatabaseError, JournalHeldError.

        Call it when this incarnation holds its leases, so that every earlier epoch of this node is without one.
        """
        if boot_id() is None:
            self.notes.append(HIDDEN_BOOT)
            log.warning("the boot id cannot be read", action="recover", effect=HIDDEN_BOOT)
        await self._recover(None)

    async def retry(self) -> set[int]:
        """Try the blocked shards again; returns those that are settled now. Raises DatabaseError."""
        before = dict(self.blocked)
        if before:
            try:
                await self._recover(set(before))
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
                f"what an earlier run left behind of {whose} cannot be settled, and no worker starts: {why}",
            )

    async def _recover(self, only: set[int] | None) -> None:
        blocked: dict[int, str] = {}
        journals: dict[int, Journal] = {}
        try:
            records = await self._read_all(only, journals, blocked)
            claims: dict[int, list[Claim]] = {}
            for claim, node, shard, alive in await self._jobs.orphaned_claims(self._grace):
                if node == self._node and not alive and shard not in blocked and (only is None or shard in only):
                    claims.setdefault(shard, []).append(claim)
            # A journal that is gone proves nothing.
            outcomes = [o for shard in claims for o in verdicts(claims[shard], records.get(shard, Record()), NODE_DIED)]
            blocked |= await self._settle(claims, outcomes)
            # Another node may have called some of them in doubt meanwhile; our journals know better.
            await resolve_apart(self._jobs, [o for record in records.values() for o in record.outcomes.values()])
            self._tell(claims, records, outcomes)
            for shard, journal in journals.items():
                if shard in blocked:
                    continue
                try:
                    journal.clear()
                except JournalError as error:
                    blocked[shard] = str(error)
        finally:
            for journal in journals.values():
                journal.close()
        for why in blocked.values():
            if why not in self.blocked.values():
                log.error("a shard cannot be settled from its journal", action="recover", error=why)
        self.blocked = blocked

    async def _settle(self, claims: dict[int, list[Claim]], outcomes: list[Outcome]) -> dict[int, str]:
        """Returns the shards of which something cannot be settled, and why: their journals are still needed."""
        everything = [claim for its_claims in claims.values() for claim in its_claims]
        settled, refused = await settle_all(self._jobs, everything, outcomes, self._backoff(), self._zones)
        for _, claim, outcome, decision in settled:
            if outcome.suspect and isinstance(decision, Finish) and decision.state is JobState.FAILED:
                self._set_aside(claim, decision.error)
        return {
            shard: f"the database refuses to store what its journal knows: {refused[claim.key]}"
            for shard, its_claims in claims.items()
            for claim in its_claims
            if claim.key in refused
        }

    async def _read_all(
        self, only: set[int] | None, journals: dict[int, Journal], blocked: dict[int, str]
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
                journals[shard] = journal = await open_journal(path, self._state)
                records[shard] = journal.read()
            except JournalHeldError:
                raise
            except JournalError as error:
                blocked[shard] = str(error)
        return records

    def _tell(self, claims: dict[int, list[Claim]], records: dict[int, Record], outcomes: list[Outcome]) -> None:
        if outcomes:
            doubts = sum(o.verdict == Verdict.IN_DOUBT for o in outcomes)
            log.warning("recovered the claims of an earlier run", action="recover", jobs=len(outcomes), in_doubt=doubts)
        for shard, its_claims in sorted(claims.items()):
            record = records.get(shard, Record())
            unknown = sum(record.phase(claim.key) is Phase.UNKNOWN for claim in its_claims)
            if unknown:
                self.notes.append(
                    f"{unknown} {'job is' if unknown == 1 else 'jobs are'} in doubt, because the journal of shard {shard} could "
                    f"not tell whether they had left: {record.flaw or 'it contradicts itself'}"
                )
                log.warning("a journal could not tell", action="recover", shard=shard, jobs=unknown, flaw=record.flaw)


async def sweep(
    jobs: Jobs, *, backoff: JobBackoff, grace: float, zones: Zones, spare: Callable[[str, int], bool] = lambda *_: False
) -> int:
    """Call in doubt what nodes had in flight that are gone; returns how many. Their journals may still resolve it later.

    `spare`: whether the claims of a (node, shard) wait for something else.
    """
    orphans = [
        (claim, node)
        for claim, node, shard, alive in await jobs.orphaned_claims(grace)
        if not alive and not spare(node, shard)
    ]
    now = time.time()
    outcomes = [
        Outcome(
            *c.key,
            Verdict.IN_DOUBT,
            error=f"node {node} was lost with it in flight",
            at=now,
            error_class=ErrorClass.WORKER,
        )
        for c, node in orphans
    ]
    _, refused = await settle_all(jobs, [claim for claim, _ in orphans], outcomes, backoff, zones)
    if orphans:
        log.warning("claims of lost nodes", action="sweep", jobs=len(orphans), refused=len(refused))
    if refused:
        raise RefusedDataError(next(iter(refused.values())))
    return len(orphans)


async def settle_all(
    jobs: Jobs, claims: list[Claim], outcomes: list[Outcome], backoff: JobBackoff, zones: Zones
) -> tuple[list[Entry], dict[ClaimKey, str]]:
    """Settle outside the router. Raises DatabaseError.

    Returns what is settled, and the claims that the database refuses to settle, with the errors.
    """
    entries = [
        (NO_SHARD, claim, outcome, settle(claim, outcome, backoff, time.time()))
        for claim, outcome in zip(claims, outcomes, strict=True)
    ]

    def counts(some: Sequence[Entry]) -> list[Sends]:
        return count_sends(
            # Whether a campaign has a cap is not known yet: a count too many harms nobody.
            Send(claim.device_id, outcome.at, zones(claim.device_id), claim.campaign)
            for _, claim, outcome, _ in some
            if outcome.verdict in MAY_HAVE_LEFT
        )

    settled = await settle_apart(jobs, entries, counts)
    for (_, claim, _, _), error in (*settled.reduced, *settled.refused):
        log.error("an outcome is refused", action="recover", job=claim.id, device=claim.device_id, error=str(error))
    refused = {claim.key: str(error) for (_, claim, _, _), error in settled.refused}
    return [entry for entry in entries if entry[1].key not in refused], refused


def _kill_holder(path: Path) -> None:
    pid = read_pid(path)
    if pid is None:
        return
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The header may be stale and its pid somebody else's by now.
        if b"shardd.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            log.warning("killing a worker that outlived its supervisor", action="recover", pid=pid)
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except FileNotFoundError:
        return
    finally:
        os.close(fd)
