"""The pauses of periodic work."""

from __future__ import annotations

from shardd.errors import DatabaseError
from shardd.supervisor.services import RETRY_CAP, Periodic, Steps


async def _nothing() -> None:
    """Work that is never done here."""


def test_only_a_run_that_succeeded_makes_the_pause_as_long_as_it_was_dear() -> None:
    steps = Steps()
    periodic = Periodic(steps, "counting", _nothing, every=2.0, share=20.0)
    assert periodic.pause_after(4.0) == 80.0
    assert periodic.pause_after(3.0) == 60.0
    (step,) = steps.all
    with step:
        raise DatabaseError("no answer within 5 s")
    # Five seconds of waiting for a database that is away are no reason to show its old numbers for 100 s.
    assert periodic.pause_after(5.0) <= RETRY_CAP
    with step:
        pass
    assert periodic.pause_after(3.0) == 60.0


def test_one_run_that_waited_for_the_database_does_not_make_the_pause_long() -> None:
    periodic = Periodic(Steps(), "counting", _nothing, every=2.0, share=20.0)
    assert periodic.pause_after(0.01) == 2.0
    assert periodic.pause_after(3.0) == 2.0
    assert periodic.pause_after(3.0) == 60.0
