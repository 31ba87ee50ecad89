"""What a journal says about claims whose worker is gone: pure, so that every case can be tried without a process.

Claimed but never started → returned. Outcome known → that. Started without outcome → in doubt; and where the journal cannot be
trusted to be whole, "never started" is in doubt, too. What was being prepared is suspect: see `Outcome.suspect`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shardd.errors import ErrorClass
from shardd.ipc import Outcome
from shardd.journal_lines import Phase, Record
from shardd.queue.settle import Claim
from shardd.states import ALONE_FROM, Verdict

OUTCOME_WORDS: Final = {
    Verdict.PERMANENT: "send failed",
    Verdict.TRANSIENT: "send failed",
    Verdict.UNAVAILABLE: "device cannot send",
    Verdict.RETURNED: "job returned to the queue",
    Verdict.IN_DOUBT: "outcome unknown",
    Verdict.EXPIRED: "job expired",
}
"""What the log says of a job that was not sent, as far as anybody knows."""

DIED: Final = "the worker died after the message was handed over and before an answer came"
LOST: Final = "the journal of that moment is lost, so nobody knows whether the message was handed over"


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended that was preparing jobs."""

    how: str
    """In words."""
    by_itself: bool = True
    """Nobody wanted it to end, so that what it prepared may be why."""
    with_its_node: bool = False
    """Its supervisor ended, too: somebody may have killed everything."""


def verdicts(claims: Iterable[Claim], record: Record, death: Death) -> list[Outcome]:
    """What the journal says about each claim."""
    return [_verdict(claim, record, death) for claim in claims]


def prepared_alone(claims: Iterable[Claim], record: Record) -> Claim | None:
    """The one that was being prepared, and nothing else was under way, if that is how it was."""
    return next((claim for claim in claims if record.phase(claim.key) is Phase.PREPARING_ALONE), None)


def _verdict(claim: Claim, record: Record, death: Death) -> Outcome:
    now, suspect = time.time(), death.by_itself
    match record.phase(claim.key):
        case Phase.ENDED:
            return record.outcomes[claim.key]
        case Phase.STARTED:
            return Outcome(
                *claim.key, Verdict.IN_DOUBT, error=DIED, at=now, error_class=ErrorClass.WORKER, suspect=suspect
            )
        case Phase.UNKNOWN:
            return Outcome(*claim.key, Verdict.IN_DOUBT, error=LOST, at=now, error_class=ErrorClass.WORKER)
        case Phase.PREPARING_ALONE if suspect and not death.with_its_node and claim.worker_deaths >= ALONE_FROM:
            error = f"its worker died while it was being prepared, also when no other was: {death.how}"
            return Outcome(
                *claim.key, Verdict.PERMANENT, error=error, at=now, error_class=ErrorClass.WORKER, suspect=True
            )
        case Phase.PREPARING | Phase.PREPARING_ALONE if suspect:
            error = f"its worker died while it was being prepared: {death.how}"
            return Outcome(
                *claim.key, Verdict.RETURNED, error=error, at=now, error_class=ErrorClass.WORKER, suspect=True
            )
        case _:
            return Outcome(*claim.key, Verdict.RETURNED, at=now)


NODE_DIED: Final = Death("it ended together with its supervisor", with_its_node=True)
