"""What an outcome means for its job's row. Pure, so that every case can be tested without a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shardd.backoff import half_jitter
from shardd.ipc import ClaimKey, Outcome
from shardd.states import ALONE_FROM, JOB_TRANSITIONS, DeviceState, JobState, Verdict

RESTRICTED_WAIT: Final = 3600.0
"""Seconds that a job to a new contact waits when WhatsApp did not report the end of the restriction."""
MOST_DEATHS: Final = 10
"""Worker deaths after which a job fails even if each may have another cause, such as the death of the whole node."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job in flight, as the router remembers it."""

    id: int
    epoch: int
    attempt: int
    token: int
    device_id: str
    failures: int
    max_attempts: int
    on_doubt: str
    ord: int = 0
    """Position in its lane, with the id."""
    lane: str = "/marketing"
    """`campaign/class`"""
    order_group: str | None = None
    address: str = ""
    """The recipient in the database's canonical form."""
    producer: str = ""
    """The bound role that owns `order_group`; empty: all unbound producers."""
    worker_deaths: int = 0
    """Workers that died, or were replaced for their memory, while they prepared it."""

    @property
    def key(self) -> ClaimKey:
        """Identifies the claim."""
        return (self.id, self.epoch, self.attempt, self.token)

    @property
    def campaign(self) -> str:
        """Empty: none."""
        return self.lane.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Finish:
    """The job ends."""

    claim: Claim
    state: JobState
    failures: int
    message_id: str | None
    error: str | None
    error_class: str | None = None
    members_without_keys: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """The job goes back into the queue: at once (`due_at` None) or at a time in POSIX seconds."""

    claim: Claim
    failures: int
    due_at: float | None
    error: str | None
    error_class: str | None = None
    worker_deaths: int = 0


@dataclass(frozen=True, slots=True)
class JobBackoff:
    """Seconds; the wait after the first failure of a job and the longest one."""

    first: float = 5.0
    cap: float = 600.0


def settle(claim: Claim, outcome: Outcome, backoff: JobBackoff, now: float) -> Finish | Release:
    """The job ends, or is released. `now`: POSIX seconds."""
    if outcome.verdict == Verdict.SENT:  # nearly every one: skip the rest
        left_out = outcome.members_without_keys
        return Finish(claim, JobState.SENT, claim.failures, outcome.message_id, outcome.error, None, left_out)
    verdict = outcome.verdict
    failures = claim.failures + (verdict in (Verdict.TRANSIENT, Verdict.IN_DOUBT, Verdict.PERMANENT))
    deaths = claim.worker_deaths + outcome.suspect
    event = _event(claim, outcome, failures, deaths)
    error, error_class = outcome.error, outcome.error_class
    if event == "returned_last":
        error = f"{deaths} workers died while they prepared it; the last: {error}"
    state = JOB_TRANSITIONS[JobState.SENDING][event]
    match state:
        case JobState.SCHEDULED if event == "restricted":
            wait = RESTRICTED_WAIT if outcome.retry_after is None else outcome.retry_after
            return Release(claim, failures, now + wait, error, error_class, deaths)
        case JobState.QUEUED:
            return Release(claim, failures, None, error, error_class, deaths)
        case JobState.SCHEDULED:
            wait = half_jitter(failures, backoff.first, backoff.cap)
            due_at = now + max(wait, outcome.retry_after or 0.0)
            return Release(claim, failures, due_at, error, error_class, deaths)
        case _:
            return Finish(claim, state, failures, outcome.message_id, error, error_class)


def resolve(claim: Claim, outcome: Outcome) -> Finish | Release:
    """What a journal that was out of reach proves about a claim in doubt: the job ends, or is queued at once."""
    decision = settle(claim, outcome, JobBackoff(), now=0.0)
    if outcome.verdict == Verdict.IN_DOUBT:
        # Its journal was read and cannot tell: in doubt for good, whatever a later journal does not contain.
        return Finish(
            claim, JobState.IN_DOUBT, decision.failures, outcome.message_id, outcome.error, outcome.error_class
        )
    event = _event(claim, outcome, decision.failures, claim.worker_deaths + outcome.suspect)
    state = JOB_TRANSITIONS[JobState.IN_DOUBT][event]
    if state is JobState.QUEUED:
        deaths = claim.worker_deaths + outcome.suspect
        return Release(claim, decision.failures, None, decision.error, outcome.error_class, deaths)
    left_out = outcome.members_without_keys if state is JobState.SENT else None
    return Finish(claim, state, decision.failures, outcome.message_id, decision.error, outcome.error_class, left_out)


def _event(claim: Claim, outcome: Outcome, failures: int, deaths: int) -> str:
    """The transition of `shardd.states.JOB_TRANSITIONS`."""
    match outcome.verdict:
        case Verdict.TRANSIENT if failures >= claim.max_attempts:
            return "transient_last"
        case Verdict.IN_DOUBT if claim.on_doubt == "retry" and failures < claim.max_attempts:
            # If its worker died while it was alone, the next worker would die, too.
            alone = outcome.suspect and claim.worker_deaths >= ALONE_FROM
            return Verdict.IN_DOUBT if alone else "in_doubt_retry"
        case Verdict.UNAVAILABLE if outcome.device_state == DeviceState.RESTRICTED:
            # Only this message must wait; the device still sends to known contacts.
            return "restricted"
        case Verdict.RETURNED if deaths >= MOST_DEATHS:
            return "returned_last"
    return outcome.verdict
