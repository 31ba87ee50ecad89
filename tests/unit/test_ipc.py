"""The messages between supervisor and worker: they can carry every value of the database, and show no secret."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd import ipc
from shardd.states import DeviceState, Verdict
from shardd.storable import MAX_TIME, storable


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("plain", "plain"),
        ("ünï \U0001f600", "ünï \U0001f600"),
        ("a\0b", "a\N{REPLACEMENT CHARACTER}b"),
        ("half \ud83d", "half ?"),
        ("x" * 5000, "x" * ipc.MAX_TEXT),
    ],
)
def test_texts_of_strangers_become_what_a_database_can_hold(said: str, kept: str) -> None:
    outcome = ipc.Outcome(1, 1, 1, 9, Verdict.PERMANENT, said, said)
    assert (outcome.error, outcome.message_id) == (kept, kept)
    assert ipc.DeviceChanged("a", DeviceState.BANNED, said).reason == kept
    assert ipc.Receipt("a", ["ok", said], "read", 1.0).message_ids == ["ok", kept]
    assert ipc.Defect(said).text == kept


@pytest.mark.parametrize(("said", "kept"), [(0, 0), (99, 99), (-1, ipc.MAX_INDEX), (2**40, ipc.MAX_INDEX)])
def test_the_index_of_a_device_becomes_what_a_database_can_hold(said: int, kept: int) -> None:
    assert ipc.Receipt("a", ["x"], "unreadable", 1.0, by=said).by == kept


@given(st.text(st.characters()))
def test_every_text_can_be_stored(said: str) -> None:
    kept = storable(said, ipc.MAX_TEXT)
    assert "\0" not in kept
    assert kept.encode().decode() == kept
    assert len(kept) <= ipc.MAX_TEXT


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (0.0, 0.0),
        (1.5, 1.5),
        (MAX_TIME, MAX_TIME),
        (-1.0, 0.0),
        (math.nan, 0.0),
        (-math.inf, 0.0),
        (math.inf, MAX_TIME),
        (1e300, MAX_TIME),
        (10**400, MAX_TIME),
    ],
)
def test_times_of_strangers_become_what_a_database_can_hold(said: float, kept: float) -> None:
    outcome = ipc.Outcome(1, 1, 1, 9, Verdict.UNAVAILABLE, retry_after=said, at=said)
    changed = ipc.DeviceChanged("a", DeviceState.BANNED, "why", until=said, at=said)
    assert (outcome.retry_after, outcome.at, changed.until, changed.at) == (kept, kept, kept, kept)
    assert ipc.Receipt("a", [], "read", said).at == kept
    assert ipc.DeviceChanged("a", DeviceState.BANNED, "why").until is None


def test_the_text_of_a_device_holds_no_secret() -> None:
    device = ipc.DeviceSpec("d1", "wablas", {"token": "geheim"}, None, "http://user:geheim@proxy")
    assert "geheim" not in repr(device)
    assert "d1" in repr(device)
