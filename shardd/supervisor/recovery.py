"""After a crash: what became of the claims that nobody answered for.

The journal decides. Claimed but never started → returned. Outcome known → settled. Started without outcome → in doubt.
And where the journal cannot be trusted to be whole (the machine went down), "never started" is in doubt too.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from datetime import tzinfo
from pathlib import Path
from typing import Final

from shardd.errors import ErrorClass, JournalHeldError
from shardd.ipc import Outcome
from shardd.journal import Journal, read_pid
from shardd.journal_lines import Phase, Record
from shardd.logs import get_logger
from shardd.queue.cycle import Send, Settlement, count_sends
from shardd.queue.jobs import Jobs
from shardd.queue.settle import Claim, Finish, JobBackoff, settle
from shardd.states import MAY_HAVE_LEFT, Verdict
from shardd.supervisor.router import Router

log = get_logger(__name__)

ORPHAN_WAIT: Final = 12.0
"""Seconds that a worker of a dead supervisor may take to finish; past twice its own grace it is killed."""
Zones = Callable[[str], tzinfo]
"""The time zone of a device."""
DIED: Final = "the worker died after the message was handed over and before an answer came"
LOST: Final = "the journal of that moment is lost, so nobody knows whether the message was handed over"


def journal_path(state_dir: Path, shard: int) -> Path:
    """Where a shard's journal stands."""
    return state_dir / "journal" / f"shard-{shard:03d}.journal"


def shard_of_journal(path: Path) -> int:
    """The shard whose journal this is."""
    return int(path.stem.removeprefix("shard-"))


def verdicts(claims: Iterable[Claim], record: Record) -> list[Outcome]:
    """What the journal says about each claim."""
    return [_verdict(claim, record) for claim in claims]


def _verdict(claim: Claim, record: Record) -> Outcome:
    now = time.time()
    match record.phase(claim.key):
        case Phase.ENDED:
            return record.outcomes[claim.key]
        case Phase.STARTED:
            return Outcome(*claim.key, Verdict.IN_DOUBT, error=DIED, at=now, error_class=ErrorClass.WORKER)
        case Phase.UNKNOWN:
            return Outcome(*claim.key, Verdict.IN_DOUBT, error=LOST, at=now, error_class=ErrorClass.WORKER)
        case Phase.NOTHING | Phase.PREPARING | Phase.PREPARING_ALONE:
            return Outcome(*claim.key, Verdict.RETURNED, at=now)


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


async def settle_from_journal(state_dir: Path, state: str, shard: int, router: Router) -> None:
    """Settle what a dead worker had in hand, as its journal says; returns when it is settled. Raises JournalError."""
    journal = await open_journal(journal_path(state_dir, shard), state)
    try:
        outcomes = verdicts(router.in_hand(shard), journal.read())
        doubts = sum(o.verdict == Verdict.IN_DOUBT for o in outcomes)
        if outcomes:
            log.info("settled from the journal", action="bury", shard=shard, jobs=len(outcomes), in_doubt=doubts)
        router.outcomes(shard, outcomes)
        await router.wait_settled(shard)
        journal.clear()
    finally:
        journal.close()


async def outlive_orphans(state_dir: Path, state: str) -> None:
    """Until no worker of an earlier supervisor is left: before this one says that its leases are its own. Raises JournalError."""
    for path in _journals(state_dir):
        (await open_journal(path, state)).close()


async def recover(
    state_dir: Path, state: str, jobs: Jobs, *, node: str, backoff: JobBackoff, grace: float, zones: Zones
) -> None:
    """Before any worker starts: settle what an earlier supervisor of this node left behind. Raises DatabaseError, JournalError.

    Call it when this incarnation holds its leases, so that every earlier epoch of this node is without one. `grace`:
    seconds; `zones`: of the devices, whose days and hours the limits count.
    """
    journals = [await open_journal(path, state) for path in _journals(state_dir)]
    try:
        records = {journal.path: journal.read() for journal in journals}
        claims: dict[Path, list[Claim]] = {}
        for claim, its_node, shard, alive in await jobs.orphaned_claims(grace):
            if its_node == node and not alive:
                claims.setdefault(journal_path(state_dir, shard), []).append(claim)
        # A journal that is gone proves nothing.
        outcomes = [outcome for path in claims for outcome in verdicts(claims[path], records.get(path, Record()))]
        await settle_all(jobs, [claim for path in claims for claim in claims[path]], outcomes, backoff, zones)
        # Another node may have called some of them in doubt meanwhile; our journals know better.
        await jobs.resolve_doubts([outcome for record in records.values() for outcome in record.outcomes.values()])
        for journal in journals:
            journal.clear()
    finally:
        for journal in journals:
            journal.close()
    if outcomes:
        doubts = sum(o.verdict == Verdict.IN_DOUBT for o in outcomes)
        log.warning("recovered the claims of an earlier run", action="recover", jobs=len(outcomes), in_doubt=doubts)


async def sweep(jobs: Jobs, *, backoff: JobBackoff, grace: float, zones: Zones) -> int:
    """Call in doubt what nodes had in hand that are gone; returns how many. Their journals may still resolve it later."""
    orphans = [(claim, node) for claim, node, _, alive in await jobs.orphaned_claims(grace) if not alive]
    now = time.time()
    outcomes = [
        Outcome(
            *c.key,
            Verdict.IN_DOUBT,
            error=f"node {node} was lost with it in hand",
            at=now,
            error_class=ErrorClass.WORKER,
        )
        for c, node in orphans
    ]
    await settle_all(jobs, [claim for claim, _ in orphans], outcomes, backoff, zones)
    if orphans:
        log.warning("claims of lost nodes", action="sweep", jobs=len(orphans))
    return len(orphans)


async def settle_all(
    jobs: Jobs, claims: list[Claim], outcomes: list[Outcome], backoff: JobBackoff, zones: Zones
) -> None:
    """Settle outside the router."""
    pairs = list(zip(claims, outcomes, strict=True))
    left = [
        # Whether a campaign has a cap is not known yet: a count too many harms nobody.
        Send(claim.device_id, outcome.at, zones(claim.device_id), claim.campaign)
        for claim, outcome in pairs
        if outcome.verdict in MAY_HAVE_LEFT
    ]
    settlement = Settlement(counts=count_sends(left))
    for claim, outcome in pairs:
        decision = settle(claim, outcome, backoff, time.time())
        if isinstance(decision, Finish):
            settlement.finishes.append(decision)
        else:
            settlement.releases.append(decision)
    if settlement:
        await jobs.cycle(settlement, [])


def _journals(state_dir: Path) -> list[Path]:
    found = (state_dir / "journal").glob("shard-*.journal")
    return sorted(path for path in found if re.fullmatch("shard-[0-9]{3,9}", path.stem))


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
