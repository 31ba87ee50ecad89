"""Patterns of kinds of events."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as some

from shardd.event_kinds import EventKind, fits, names_a_kind


@given(pattern=some.text("*ab.", max_size=8), kind=some.text("ab.", max_size=8))
def test_a_pattern_matches_what_a_shell_would_match(pattern: str, kind: str) -> None:
    assert fits(pattern, kind) is fnmatch.fnmatchcase(kind, pattern)


@pytest.mark.timeout(10)
def test_many_stars_take_no_time() -> None:
    assert names_a_kind("*" * 4000)
    assert not names_a_kind("*" * 4000 + "x")
    assert not fits("*a" * 2000 + "x", EventKind.JOB_SENT)
