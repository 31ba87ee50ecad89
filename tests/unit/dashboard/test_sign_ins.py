"""Who is signed in, and for how long; links that sign in once."""

from __future__ import annotations

import pytest

from shardd.dashboard import sign_ins
from shardd.dashboard.sign_ins import IDLE, LASTS, How, Role, SignIn, SignIns
from shardd.supervisor.admin import sign_in_links
from shardd.supervisor.admin.sign_in_links import LIVES, SignInLinks


def begin(everyone: SignIns, user: str) -> SignIn:
    return everyone.begin(user, How.PASSWORD, Role.LOOK, "192.0.2.1")


class Clock:
    """A clock that stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_browser_is_signed_in_by_its_cookie_until_it_signs_out() -> None:
    everyone = SignIns()
    one, other = begin(everyone, "ada"), begin(everyone, "ada")
    assert everyone.of(one.cookie) is one
    everyone.end(one)
    assert everyone.of(one.cookie) is None
    assert everyone.of(other.cookie) is other
    assert everyone.of(None) is None
    assert everyone.of("") is None


def test_a_sign_in_ends_when_nobody_uses_it() -> None:
    clock = Clock()
    everyone = SignIns(clock)
    one = begin(everyone, "ada")
    clock.now += IDLE
    assert everyone.of(one.cookie) is one
    clock.now += 0.5 * IDLE
    assert everyone.of(one.cookie) is one
    other = begin(everyone, "ada")
    clock.now += IDLE + 1
    assert everyone.of(other.cookie) is None


def test_a_sign_in_ends_after_a_day_however_much_it_is_used() -> None:
    clock = Clock()
    everyone = SignIns(clock)
    one = begin(everyone, "ada")
    for _ in range(4):
        clock.now += LASTS / 4
        assert everyone.of(one.cookie) is one
    clock.now += 1
    assert everyone.of(one.cookie) is None


def test_the_longest_idle_one_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_ins, "MOST", 2)
    clock = Clock()
    everyone = SignIns(clock)
    first, second = begin(everyone, "ada"), begin(everyone, "bob")
    clock.now += 1
    everyone.of(first.cookie)
    third = begin(everyone, "cy")
    assert [everyone.of(one.cookie) for one in (first, second, third)] == [first, None, third]


def test_who_signs_in_often_signs_out_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_ins, "MOST_OF_USER", 2)
    monkeypatch.setattr(sign_ins, "MOST", 4)
    clock = Clock()
    everyone = SignIns(clock)
    ada = begin(everyone, "ada")
    own = []
    for _ in range(5):
        clock.now += 1
        own.append(begin(everyone, "eve"))
    assert everyone.of(ada.cookie) is ada
    assert [everyone.of(one.cookie) for one in own] == [None, None, None, *own[3:]]


def test_the_token_of_a_form_is_another_than_the_cookie() -> None:
    everyone = SignIns()
    one, other = begin(everyone, "ada"), begin(everyone, "ada")
    assert one.wrote(one.form_token)
    assert not one.wrote(one.cookie)
    assert not one.wrote(other.form_token)
    assert not one.wrote("")


def test_a_link_is_good_once() -> None:
    links = SignInLinks()
    token = links.make()
    assert links.redeem(token)
    assert not links.redeem(token)
    assert not links.redeem("another")


def test_a_link_is_good_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(sign_in_links.time, "monotonic", clock)
    links = SignInLinks()
    early, late = links.make(), links.make()
    clock.now += LIVES - 1
    assert links.redeem(early)
    clock.now += 1
    assert not links.redeem(late)
