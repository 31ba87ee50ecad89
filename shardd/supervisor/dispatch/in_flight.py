"""The claims of this node from their commit to the commit of their settlement, and what `status` reports of those that failed.

A claim is in flight while a worker has it. Once its outcome is known it waits to be settled; if the database refuses to store the
outcome, it waits longer and is retried periodically.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from shardd.ipc import ClaimKey, Outcome
from shardd.logs import get_logger
from shardd.queue.settle import Claim, Finish, Release
from shardd.states import JobState
from shardd.supervisor.problems import Problem, ProblemKind

log = get_logger(__name__)

POISON_SHOWN: Final = 900.0
"""Seconds for which a poison job is reported."""
POISON_MOST: Final = 1000
"""Poison jobs that are counted."""


@dataclass(frozen=True, slots=True)
class EndedClaim:
    """A claim whose outcome is known, and how it is to be settled."""

    shard: int
    claim: Claim
    outcome: Outcome
    decision: Finish | Release
    at: float = field(default_factory=time.monotonic)
    """When the outcome was known, on the monotonic clock."""


class InFlight:
    """The claims of this node that are in flight, and those that ended until they are settled."""

    def __init__(self) -> None:
        self._by_shard: dict[int, dict[ClaimKey, tuple[Claim, float]]] = {}  # with a worker, and since when
        self._jobs: dict[tuple[int, int], ClaimKey] = {}  # with a worker, by id and token
        self._waiting: dict[ClaimKey, tuple[int, Claim]] = {}  # for the outcome of the claim of that key
        self._ended: list[EndedClaim] = []
        self._settling: list[list[EndedClaim]] = []
        self._refused: dict[ClaimKey, tuple[EndedClaim, str]] = {}  # with the error

    # ---- with a worker

    def claimed(self, shard: int, claim: Claim) -> None:
        """A claim is with the worker of a shard from now on."""
        self._by_shard.setdefault(shard, {})[claim.key] = claim, time.monotonic()
        self._jobs[claim.id, claim.token] = claim.key

    def returned(self, shard: int, outcome: Outcome) -> tuple[Claim, float] | None:
        """Remove and return the claim of an outcome, and since when the worker had it; None: it did not have it."""
        found = self._by_shard.get(shard, {}).pop(outcome.key, None)
        if found is not None:
            del self._jobs[outcome.id, outcome.token]
        return found

    def joins(self, shard: int, claim: Claim) -> bool:
        """Whether a worker has the job already, under a claim that the database has lost since.

        Then the new claim waits for the outcome of that one (`joined`), and no worker gets it.
        """
        first = self._jobs.get((claim.id, claim.token))
        if first is None:
            return False
        self._waiting[first] = shard, claim
        return True

    def joined(self, first: ClaimKey) -> tuple[int, Claim] | None:
        """Remove and return the claim, with its shard, that waits for the outcome of this one, if one does."""
        return self._waiting.pop(first, None)

    def of_shard(self, shard: int) -> list[Claim]:
        """What the worker of a shard has."""
        return [claim for claim, _ in self._by_shard.get(shard, {}).values()]

    def since(self, before: float) -> Iterator[tuple[int, Claim]]:
        """(shard, claim) of what workers have had since a monotonic time or longer; the oldest of each shard first."""
        for shard, claims in self._by_shard.items():
            for claim, since in claims.values():
                if since > before:
                    break  # the following ones came later
                yield shard, claim

    # ---- waiting to be settled

    @property
    def ended(self) -> int:
        """How many claims that ended can be settled now."""
        return len(self._ended)

    def end(self, ended: EndedClaim) -> None:
        """A claim ended; it waits to be settled."""
        self._ended.append(ended)

    def begin_settling(self, most: int) -> list[EndedClaim]:
        """The next claims to be settled, up to `most`."""
        batch, self._ended = self._ended[:most], self._ended[most:]
        self._settling.append(batch)
        return batch

    def settling_done(self, batch: list[EndedClaim]) -> None:
        """The claims that `begin_settling` returned are settled, or were given back."""
        self._settling = [one for one in self._settling if one is not batch]

    def settle_again(self, ended: list[EndedClaim]) -> None:
        """These must be settled once more, before all others."""
        self._ended = ended + self._ended

    def refuse(self, ended: EndedClaim, error: str) -> None:
        """The database refuses to store the outcome of a claim."""
        self._refused[ended.claim.key] = ended, error

    def refused(self) -> list[tuple[Claim, str]]:
        """The claims whose outcome the database refuses to store, with the errors."""
        return [(ended.claim, error) for ended, error in self._refused.values()]

    def retry_refused(self) -> None:
        """Let refused outcomes be settled once more."""
        self._ended += [ended for ended, _ in self._refused.values()]
        self._refused = {}

    def waiting(self) -> int:
        """How many claims wait to be settled."""
        return len(self._ended) + len(self._refused)

    # ---- all of them

    def _unsettled(self) -> Iterator[EndedClaim]:
        yield from self._ended
        for batch in self._settling:
            yield from batch
        for ended, _ in self._refused.values():
            yield ended

    def unsettled(self, shard: int) -> int:
        """How many claims of a shard are in flight or wait to be settled."""
        waiting = sum(of == shard for of, _ in self._waiting.values())
        return len(self._by_shard.get(shard, ())) + waiting + sum(ended.shard == shard for ended in self._unsettled())

    def epochs(self) -> set[int]:
        """The epochs of all claims."""
        with_workers = {claim.epoch for claims in self._by_shard.values() for claim, _ in claims.values()}
        waiting = {claim.epoch for _, claim in self._waiting.values()}
        return with_workers | waiting | {ended.claim.epoch for ended in self._unsettled()}

    def ids(self) -> list[int]:
        """The jobs that workers have."""
        return [id_ for id_, _ in self._jobs]

    def missing(self, claims: Iterable[Claim]) -> list[Claim]:
        """Those of these claims that are unknown here, while none is being settled."""
        known = {key for of_shard in self._by_shard.values() for key in of_shard}
        known |= {claim.key for _, claim in self._waiting.values()}
        known |= {ended.claim.key for ended in self._unsettled()}
        return [claim for claim in claims if claim.key not in known]


class PoisonJobs:
    """Jobs that were failed because preparing them kills workers: in the log, and a problem in `status` for a while."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, Claim, str | None]] = deque(maxlen=POISON_MOST)  # with the monotonic time

    def check(self, ended: EndedClaim) -> None:
        """Note the job if it was failed for that reason."""
        claim, decision = ended.claim, ended.decision
        if ended.outcome.suspect and isinstance(decision, Finish) and decision.state is JobState.FAILED:
            log.error("poison job failed", action="poison", job=claim.id, device=claim.device_id, error=decision.error)
            self._recent.append((time.monotonic(), claim, decision.error))

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        while self._recent and self._recent[0][0] < time.monotonic() - POISON_SHOWN:
            self._recent.popleft()
        if self._recent:
            _, claim, error = self._recent[-1]
            one = len(self._recent) == 1
            jobs = (
                "1 job failed because preparing it"
                if one
                else f"{len(self._recent):,} jobs failed because preparing them"
            )
            yield Problem(
                ProblemKind.POISON,
                f"{jobs} kills workers; job {claim.id} of device {claim.device_id}: {error}; see "
                "shardd job list --error-class=worker",
            )
