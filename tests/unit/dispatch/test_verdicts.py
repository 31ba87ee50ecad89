"""The verdicts on a dead worker's claims, from its journal."""

from __future__ import annotations

import pytest

from shardd.ipc import Outcome
from shardd.journal_lines import Record
from shardd.queue.settle import Claim
from shardd.states import Verdict
from shardd.supervisor.dispatch.verdicts import NODE_DIED, Death, prepared_alone, verdicts

ITSELF = Death("SIGSEGV")
WANTED = Death("SIGKILL", by_itself=False)


def claim(deaths: int = 0) -> Claim:
    return Claim(7, 3, 2, 9, "a", 0, 5, "hold", worker_deaths=deaths)


def record(*, preparing: bool | None = None, started: bool = False, known: Outcome | None = None) -> Record:
    key = claim().key
    return Record(
        preparing={} if preparing is None else {key: preparing},
        started={key} if started else set(),
        outcomes={} if known is None else {key: known},
        flaw=None,
    )


@pytest.mark.parametrize(
    ("deaths", "what", "death", "verdict", "suspect"),
    [
        # Its preparation had not begun: it is nobody's fault.
        (0, record(), ITSELF, "returned", False),
        (5, record(), ITSELF, "returned", False),
        # It was one of several.
        (0, record(preparing=False), ITSELF, "returned", True),
        (5, record(preparing=False), ITSELF, "returned", True),
        # It was alone: from the third death on that ends it.
        (0, record(preparing=True), ITSELF, "returned", True),
        (1, record(preparing=True), ITSELF, "returned", True),
        (2, record(preparing=True), ITSELF, "permanent", True),
        # Somebody wanted the worker to end.
        (5, record(preparing=False), WANTED, "returned", False),
        (5, record(preparing=True), WANTED, "returned", False),
        # All of the node was killed: suspect, but no more than that.
        (2, record(preparing=False), NODE_DIED, "returned", True),
        (2, record(preparing=True), NODE_DIED, "returned", True),
        # It was handed over: in doubt whatever else holds.
        (0, record(preparing=False, started=True), ITSELF, "in_doubt", True),
        (2, record(preparing=True, started=True), ITSELF, "in_doubt", True),
        (2, record(preparing=True, started=True), WANTED, "in_doubt", False),
        (2, Record(), ITSELF, "in_doubt", False),
        # What is known is known.
        (2, record(preparing=True, started=True, known=Outcome(7, 3, 2, 9, Verdict.SENT)), ITSELF, "sent", False),
        (2, record(preparing=True, known=Outcome(7, 3, 2, 9, Verdict.RETURNED)), NODE_DIED, "returned", False),
    ],
)
def test_how_far_it_was_and_who_wanted_the_end_decide(
    deaths: int, what: Record, death: Death, verdict: str, suspect: bool
) -> None:
    (outcome,) = verdicts([claim(deaths)], what, death)
    assert (outcome.verdict, outcome.suspect) == (verdict, suspect)
    assert outcome.key == claim().key
    if verdict == "permanent":
        assert outcome.error == "its worker died while preparing it, even when it prepared no other job: SIGSEGV"
        assert outcome.error_class == "worker"


def test_the_one_that_was_prepared_alone_is_named() -> None:
    assert prepared_alone([claim()], record(preparing=True)) == claim()
    assert prepared_alone([claim()], record(preparing=False)) is None
    assert prepared_alone([claim()], record(preparing=True, started=True)) is None
