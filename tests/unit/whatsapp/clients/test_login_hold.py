"""When a worker may log in while WhatsApp refuses the version of the library."""

from __future__ import annotations

import pytest

from shardd.errors import DeviceUnavailableError
from shardd.states import LIBRARY_PROOF, DeviceState
from shardd.transports.whatsapp.clients.login_hold import BY_ITSELF, LoginHold


def holds(hold: LoginHold, now: float = 0.0) -> bool:
    try:
        hold.check(now)
    except DeviceUnavailableError as error:
        return error.state == DeviceState.CLIENT_OUTDATED.value
    return False


@pytest.fixture
def proven() -> LoginHold:
    """After as many refusals as count as a proof."""
    hold = LoginHold()
    for number in range(LIBRARY_PROOF):
        assert not holds(hold)
        hold.refused(f"d{number}", 0.0)
    return hold


def test_the_supervisor_decides_for_as_long_as_it_says() -> None:
    hold = LoginHold()
    hold.hold(held=True)
    assert holds(hold, 1e9)
    hold.hold(held=False)
    assert not holds(hold)


def test_after_several_refusals_a_worker_waits_for_that_decision_only_for_a_moment(proven: LoginHold) -> None:
    assert holds(proven, BY_ITSELF - 1)
    assert not holds(proven, BY_ITSELF)


def test_one_device_that_is_refused_again_and_again_holds_no_other() -> None:
    hold = LoginHold()
    for now in range(10):
        hold.refused("d", now)
    assert not holds(hold, 9.0)


def test_an_accepted_login_or_the_supervisor_ends_it(proven: LoginHold) -> None:
    proven.accepted()
    assert not holds(proven)
    proven.refused("d", 0.0)
    assert not holds(proven)
    proven.refused("d", 0.0)
    proven.refused("e", 0.0)
    proven.refused("f", 0.0)
    proven.hold(held=False)
    assert not holds(proven)
