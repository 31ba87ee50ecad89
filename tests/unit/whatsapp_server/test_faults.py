from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from tests.whatsapp_server.faults import Fault, FaultList, Kind, Occasion, Stage, device_matches

MESSAGE = Occasion(Stage.MESSAGE, "62811:1", ("62899",), stranger=True)


def error(**rule: Any) -> Fault:
    fields: dict[str, Any] = {"kind": "error", "at": "message", "code": 463}
    return Fault(**fields | rule)


@pytest.mark.parametrize(
    ("rule", "strikes"),
    [
        ({}, True),
        ({"at": "usync"}, False),
        ({"device": "62811"}, True),
        ({"device": "62811:1"}, True),
        ({"device": "62811:2"}, False),
        ({"device": "6281"}, False),
        ({"recipient": "62899"}, True),
        ({"recipient": "62898"}, False),
        ({"strangers_only": True}, True),
        ({"xmlns": "w:m"}, False),
    ],
)
def test_a_fault_strikes_only_what_it_names(rule: dict[str, Any], strikes: bool) -> None:
    faults = FaultList()
    faults.inject(error(**rule))
    assert (faults.strike(MESSAGE) is not None) is strikes


def test_a_fault_for_strangers_spares_known_chats() -> None:
    faults = FaultList()
    faults.inject(error(strangers_only=True))
    assert faults.strike(replace(MESSAGE, stranger=False)) is None


def test_a_fault_is_used_up_and_the_next_one_follows() -> None:
    faults = FaultList()
    faults.inject(error(times=2, code=1))
    faults.inject(error(times=None, code=2))
    codes = []
    for _ in range(5):
        fault = faults.strike(MESSAGE)
        codes.append(fault.code if fault else None)
    assert codes == [1, 1, 2, 2, 2]
    assert [fault.struck for fault in faults.in_force()] == [3]


def test_a_fault_with_a_probability_strikes_about_that_often() -> None:
    faults = FaultList(random.Random(1))
    faults.inject(error(times=None, probability=0.25))
    strikes = sum(faults.strike(MESSAGE) is not None for _ in range(4000))
    assert 850 < strikes < 1150


def test_faults_can_be_removed() -> None:
    faults = FaultList()
    first, _second = faults.inject(error()), faults.inject(error(code=1))
    assert faults.remove(first.id)
    assert not faults.remove(first.id)
    struck = faults.strike(MESSAGE)
    assert struck is not None
    assert struck.code == 1
    faults.inject(error())
    faults.clear()
    assert faults.strike(MESSAGE) is None


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "nonsense"},
        {"at": "nowhere"},
        {"kind": "failure", "at": "message"},
        {"kind": "ignore", "at": "tls"},
        {"kind": "error", "at": "tls"},
        {"kind": "stream_error", "at": "upgrade"},
        {"code": None},
        {"probability": 0},
        {"probability": 1.5},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"nonsense|nowhere|cannot apply|needs a code|probability"):
        error(**rule)


def test_a_refused_proxy_request_needs_no_code() -> None:
    assert Fault(Kind.ERROR, Stage.CONNECT).code is None


@pytest.mark.parametrize(
    ("pattern", "device", "matches"),
    [
        ("", "", True),
        ("", "62811:1", True),
        ("62811", "", False),
        ("62811:1", "62811", True),  # before the login only the number is known
        ("62812:1", "62811", False),
    ],
)
def test_device_patterns(pattern: str, device: str, matches: bool) -> None:
    assert device_matches(pattern, device) is matches
