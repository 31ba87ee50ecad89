"""How long, and in which words, `status` reports jobs that were ended because they end workers."""

from __future__ import annotations

import pytest

from shardd.queue.settle import Claim
from shardd.supervisor.dispatch import set_aside
from shardd.supervisor.dispatch.set_aside import SHOWN, SetAside


def claim(number: int) -> Claim:
    return Claim(number, 3, 2, 9, "a", 0, 5, "hold")


def test_the_last_one_is_named_and_all_are_counted_until_they_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    aside, now = SetAside(), 5000.0
    monkeypatch.setattr(set_aside.time, "monotonic", lambda: now)
    assert list(aside.problems()) == []
    aside.note(claim(7), "it died")
    now += SHOWN / 2
    aside.note(claim(8), "it died, too")
    (problem,) = aside.problems()
    assert problem.text == (
        "2 jobs have failed because of what preparing them does to a worker; job 8 of device a: it died, too; "
        "see shardd job list --error-class=worker"
    )
    now += SHOWN / 2 + 1
    (problem,) = aside.problems()
    assert problem.text.startswith(
        "1 job has failed because of what preparing them does to a worker; job 8 of device a"
    )
    now += SHOWN
    assert list(aside.problems()) == []
