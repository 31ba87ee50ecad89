"""Which answers to logins prove that WhatsApp refuses the version of the library."""

from __future__ import annotations

import pytest

from shardd.states import LIBRARY_PROOF, LibraryState
from shardd.supervisor.scheduling.library_answers import LibraryAnswers

MANY = 3000


def answers(*refused: str, devices: int = MANY) -> LibraryAnswers:
    made = LibraryAnswers()
    for number, device in enumerate(refused):
        made.outdated(device, devices, 100.0 + number)
    return made


def test_one_refusal_is_a_doubt_that_the_next_accepted_login_ends() -> None:
    one = answers("a")
    assert (one.state, one.since) == (LibraryState.DOUBTED, 100.0)
    one.accepted()
    assert (one.state, one.since, one.refused) == (LibraryState.ACCEPTED, None, set())


def test_several_devices_in_a_row_are_proof() -> None:
    assert answers("a", "b").state is LibraryState.DOUBTED
    assert LIBRARY_PROOF == 3
    proven = answers("a", "b", "c")
    assert (proven.state, proven.since) == (LibraryState.REFUSED, 100.0)


def test_one_device_that_is_refused_again_and_again_is_not_proof() -> None:
    assert answers(*"aaaaaaaaa").state is LibraryState.DOUBTED


def test_a_login_that_is_accepted_between_two_refusals_keeps_them_apart() -> None:
    mixed = answers("a", "b")
    mixed.accepted()
    mixed.outdated("c", MANY, 200.0)
    assert (mixed.state, mixed.since) == (LibraryState.DOUBTED, 200.0)


@pytest.mark.parametrize("devices", [1, 2])
def test_few_devices_need_no_more_proof_than_they_can_give(devices: int) -> None:
    assert answers(*"ab"[:devices], devices=devices).state is LibraryState.REFUSED


def test_what_another_node_found_holds_until_a_login_is_accepted() -> None:
    told = LibraryAnswers()
    told.proven(50.0)
    told.outdated("a", MANY, 60.0)
    assert (told.state, told.since) == (LibraryState.REFUSED, 50.0)
    told.accepted()
    assert told.state is LibraryState.ACCEPTED
