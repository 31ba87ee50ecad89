"""Repeated steps fail and are retried independently, and are reported when they keep failing."""

from __future__ import annotations

import time
from typing import cast

import pytest

from shardd.embedded import EmbeddedPostgres
from shardd.errors import DatabaseError, SharddError
from shardd.supervisor.cluster.upkeep import revive
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.services import PATIENCE, REPORT_AFTER, RETRY_CAP, Step, Steps


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def fail(step: Step, error: str = "away") -> None:
    with step:
        raise DatabaseError(error)


def test_what_fails_is_tried_again_sooner_and_sooner_or_later(clock: list[float]) -> None:
    step = Step("scanning")
    assert step.pause(60.0) == 60.0
    for _ in range(50):
        fail(step)
        assert 0.0 <= step.pause(60.0) <= RETRY_CAP
    with step:
        pass
    assert step.pause(60.0) == 60.0


def test_a_failure_that_lasts_is_a_problem_until_it_is_over(clock: list[float]) -> None:
    steps = Steps()
    scan, poll = steps.add("scanning"), steps.add("polling")
    fail(scan)
    assert list(steps.problems()) == []
    clock[0] += REPORT_AFTER
    # Once is no "again and again": work that is done once in an hour fails once.
    assert list(steps.problems()) == []
    fail(scan)
    fail(poll)
    assert list(steps.problems()) == [Problem(ProblemKind.STEP, "scanning: failing for 10 s: away")]
    clock[0] += 30.0
    fail(poll, "locked")
    assert [problem.text for problem in steps.problems()] == [
        "scanning: failing for 40 s: away",
        "polling: failing for 30 s: locked",
    ]
    fail(poll)
    assert [problem.text for problem in steps.problems()] == ["scanning, polling: failing for 40 s: away"]
    for step in (scan, poll):
        with step:
            pass
    assert list(steps.problems()) == []


def test_a_failure_after_a_success_is_a_new_one(clock: list[float]) -> None:
    steps = Steps()
    scan = steps.add("scanning")
    fail(scan)
    with scan:
        pass
    clock[0] += 10 * REPORT_AFTER
    fail(scan)
    fail(scan)
    assert list(steps.problems()) == []
    clock[0] += REPORT_AFTER
    assert [problem.text for problem in steps.problems()] == ["scanning: failing for 10 s: away"]


def test_steps_that_fail_with_the_same_error_are_few_words(clock: list[float]) -> None:
    steps = Steps()
    made = [steps.add(name) for name in ("scanning", "polling", "counting", "purging", "listening")]
    for _ in range(2):
        for step in made:
            fail(step)
        clock[0] += REPORT_AFTER
    (problem,) = steps.problems()
    assert problem.text == "scanning, polling, counting and 2 more steps: failing for 20 s: away"


def test_a_database_that_is_away_explains_the_steps_that_fail_because_of_it(clock: list[float]) -> None:
    steps = Steps()
    scan, look, renew = steps.add("scanning"), steps.add("looking"), steps.add("renewing")
    steps.vital = renew
    for _ in range(2):
        fail(renew, "no answer")
        fail(scan, "no answer in time")
        with look:
            raise SharddError("the file is gone")
    assert steps.database_error() is None, "it may only have been restarted"
    clock[0] += REPORT_AFTER
    assert steps.database_error() == "no answer"
    assert [problem.text for problem in steps.problems()] == ["looking: failing for 10 s: the file is gone"]
    clock[0] += 1.0
    with renew:
        pass
    assert steps.database_error() is None
    assert len(list(steps.problems())) == 1, "scanning has not been tried since"
    fail(scan, "no answer in time")
    assert len(list(steps.problems())) == 2


async def test_why_the_embedded_server_does_not_start_is_told_while_it_is_away(clock: list[float]) -> None:
    class Full:
        async def restart_if_dead(self) -> bool:
            raise DatabaseError("its disk is full")

    steps = Steps()
    restart, steps.vital = steps.add("restarting"), steps.add("renewing")
    for _ in range(2):
        fail(steps.vital, "no answer")
        with restart:
            await revive(cast("EmbeddedPostgres", Full()))
    clock[0] += REPORT_AFTER
    assert [problem.text for problem in steps.problems()] == ["restarting: failing for 10 s: its disk is full"]


def test_work_that_does_not_end_is_a_problem(clock: list[float]) -> None:
    steps = Steps()
    with steps.add("counting"), steps.add("forgetting", patience=None):
        clock[0] += PATIENCE - 1.0
        assert list(steps.problems()) == []
        clock[0] += 1.0
        assert [problem.text for problem in steps.problems()] == ["counting: has been running for 60 s"]
    assert list(steps.problems()) == []


def test_a_defect_passes() -> None:
    with pytest.raises(ZeroDivisionError), Step("counting"):
        raise ZeroDivisionError
