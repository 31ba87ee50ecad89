"""The report in `status` about jobs that failed because preparing them kills workers: its text and duration."""

from __future__ import annotations

import pytest

from shardd.ipc import Outcome
from shardd.queue.settle import Claim, Finish
from shardd.states import JobState, Verdict
from shardd.supervisor.dispatch import in_flight
from shardd.supervisor.dispatch.in_flight import POISON_SHOWN, EndedClaim, PoisonJobs


def failed(number: int, error: str, *, suspect: bool = True) -> EndedClaim:
    claim = Claim(number, 3, 2, 9, "a", 0, 5, "hold")
    outcome = Outcome(*claim.key, Verdict.PERMANENT, error=error, suspect=suspect)
    return EndedClaim(0, claim, outcome, Finish(claim, JobState.FAILED, 1, None, error))


def test_the_last_one_is_named_and_all_are_counted_until_they_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    poison, now = PoisonJobs(), 5000.0
    monkeypatch.setattr(in_flight.time, "monotonic", lambda: now)
    assert list(poison.problems()) == []
    poison.check(failed(6, "wrong number", suspect=False))
    assert list(poison.problems()) == []
    poison.check(failed(7, "it died"))
    now += POISON_SHOWN / 2
    poison.check(failed(8, "it died, too"))
    (problem,) = poison.problems()
    assert problem.text == (
        "2 jobs failed because preparing them kills workers; job 8 of device a: it died, too; "
        "see shardd job list --error-class=worker"
    )
    now += POISON_SHOWN / 2 + 1
    (problem,) = poison.problems()
    assert problem.text.startswith("1 job failed because preparing it kills workers; job 8 of device a")
    now += POISON_SHOWN
    assert list(poison.problems()) == []
