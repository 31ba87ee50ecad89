"""A supervisor that was stopped does not take for silence what it could not hear."""

from __future__ import annotations

from shardd.supervisor.silence import Silence


def test_of_a_gap_between_two_looks_only_a_moment_counts() -> None:
    now = [100.0]
    silence = Silence(counts=2.0, clock=lambda: now[0])
    for _ in range(5):
        now[0] += 1.0
        silence.look()
    assert silence.look() == 5.0
    now[0] += 3600.0  # it was stopped
    assert silence.look() == 7.0
    silence.end()
    now[0] += 0.5
    assert silence.look() == 0.5
