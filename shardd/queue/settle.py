"""What an outcome means for its job's row: pure, so that every case can be tried without a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shardd.backoff import half_jitter
from shardd.ipc import ClaimKey, Outcome
from shardd.states import JOB_TRANSITIONS, DeviceState, JobState, Verdict

RESTRICTED_WAIT: Final = 3600.0
"""Seconds that a job to a new contact waits when WhatsApp did not say how long the restriction lasts."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job in hand, as the router remembers it."""

    id: int
    epoch: int
    attempt: int
    token: int
    device_id: str
    failures: int
    max_attempts: int
    on_doubt: str
    ord: int = 0
    """Place in its lane."""
    lane: str = "/marketing"
    """`campaign/class`"""
    order_group: str | None = None
    address: str = ""
    """The recipient in one spelling, as far as the database can tell."""
    producer: str = ""
    """The bound role whose `order_group` this is; empty: everybody else's."""

    @property
    def key(self) -> ClaimKey:
        """Names the claim."""
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


@dataclass(frozen=True, slots=True)
class Release:
    """The job goes back into the queue: at once (`due_at` None) or at a time in POSIX seconds."""

    claim: Claim
    failures: int
    due_at: float | None
    error: str | None
    error_class: str | None = None


@dataclass(frozen=True, slots=True)
class JobBackoff:
    """Seconds; the wait after the first failure of a job and the longest one."""

    first: float = 5.0
    cap: float = 600.0


def settle(claim: Claim, outcome: Outcome, backoff: JobBackoff, now: float) -> Finish | Release:
    """Decide. `now`: POSIX seconds."""
    if outcome.verdict == Verdict.SENT:  # nearly every one: without the questions below
        return Finish(claim, JobState.SENT, claim.failures, outcome.message_id, outcome.error)
    table = JOB_TRANSITIONS[JobState.SENDING]
    verdict = Verdict(outcome.verdict)
    event: str = verdict
    failures = claim.failures
    if verdict in (Verdict.TRANSIENT, Verdict.IN_DOUBT, Verdict.PERMANENT):
        failures += 1
    if verdict is Verdict.TRANSIENT and failures >= claim.max_attempts:
        event = "transient_last"
    elif verdict is Verdict.IN_DOUBT and claim.on_doubt == "retry" and failures < claim.max_attempts:
        event = "in_doubt_retry"
    elif verdict is Verdict.UNAVAILABLE and outcome.device_state == DeviceState.RESTRICTED:
        # Only this message must wait; the device goes on with contacts that it knows.
        event = "restricted"
    state = table[event]
    match state:
        case JobState.SCHEDULED if event == "restricted":
            wait = RESTRICTED_WAIT if outcome.retry_after is None else outcome.retry_after
            return Release(claim, failures, now + wait, outcome.error, outcome.error_class)
        case JobState.QUEUED:
            return Release(claim, failures, None, outcome.error, outcome.error_class)
        case JobState.SCHEDULED:
            wait = half_jitter(failures, backoff.first, backoff.cap)
            due_at = now + max(wait, outcome.retry_after or 0.0)
            return Release(claim, failures, due_at, outcome.error, outcome.error_class)
        case _:
            return Finish(claim, state, failures, outcome.message_id, outcome.error, outcome.error_class)
