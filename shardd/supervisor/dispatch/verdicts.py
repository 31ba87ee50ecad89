"""What a journal proves about the claims of a dead worker: pure, so that every case can be tested without a process.

A job that was being prepared is suspect: see `Outcome.suspect`.
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

DIED: Final = "the worker died after the message was handed over and before an answer arrived"
LOST: Final = "the journal of that time is lost, so whether the message was handed over is unknown"


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended."""

    how: str
    """In words."""
    by_itself: bool = True
    """It was not killed on purpose, so a job that it was preparing may be the cause."""
    with_its_node: bool = False
    """Its supervisor ended too: the whole node may have been killed."""


def verdicts(claims: Iterable[Claim], record: Record, death: Death) -> list[Outcome]:
    """The outcome of each claim."""
    return [_verdict(claim, record, death) for claim in claims]


def prepared_alone(claims: Iterable[Claim], record: Record) -> Claim | None:
    """The claim that was being prepared while no other was, if any."""
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
            error = f"its worker died while preparing it, even when it prepared no other job: {death.how}"
            return Outcome(
                *claim.key, Verdict.PERMANENT, error=error, at=now, error_class=ErrorClass.WORKER, suspect=True
            )
        case Phase.PREPARING | Phase.PREPARING_ALONE if suspect:
            error = f"its worker died while preparing it: {death.how}"
            return Outcome(
                *claim.key, Verdict.RETURNED, error=error, at=now, error_class=ErrorClass.WORKER, suspect=True
            )
        case _:
            return Outcome(*claim.key, Verdict.RETURNED, at=now)


NODE_DIED: Final = Death("it ended together with its supervisor", with_its_node=True)
