"""Where a request comes from: the name that it asks for, the page that sent it, the address and the user behind proxies."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from shardd.dashboard.gate import Gate, NobodyError
from shardd.supervisor.admin.dashboard import Access

BEHIND = Gate(
    Access(
        listen="127.0.0.1:8484",
        origin="https://shardd.example",
        trusted_header="X-User",
        trusted_proxies=("127.0.0.1", "10.0.0.0/8"),
    )
)
ALONE = Gate(Access(listen="127.0.0.1:8484"))


def request(*headers: tuple[str, str], peer: str = "127.0.0.1") -> Any:
    made = make_mocked_request("POST", "/", headers=headers)  # type: ignore[arg-type]  # pairs do as well, and may repeat a name
    return made.clone(remote=peer)


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:8484", True),
        ("localhost:9", True),
        ("[::1]:8484", True),
        ("192.0.2.1", True),
        ("shardd.example", True),
        ("shardd.example:8484", False),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("127.0.0.1/evil", False),
        ("127.0.0.1:99999", False),
        ("", False),
    ],
)
def test_a_name_is_ours_only_if_it_is_the_origin_s_or_an_address(host: str, ours: bool) -> None:
    assert (BEHIND.asks_for_another(request(("Host", host))) is None) is ours


@pytest.mark.parametrize(
    ("gate", "host", "origin", "ours"),
    [
        (BEHIND, "shardd.example", "https://shardd.example", True),
        (BEHIND, "shardd.example", "http://shardd.example", False),
        (BEHIND, "127.0.0.1:8484", "http://127.0.0.1:8484", True),
        (BEHIND, "127.0.0.1:8484", "https://shardd.example", False),
        (ALONE, "localhost:8484", "http://localhost:8484", True),
        (ALONE, "localhost:8484", "http://localhost:8485", False),
        (ALONE, "localhost:8484", "null", False),
    ],
)
def test_only_pages_of_the_name_that_was_asked_for_may_act(gate: Gate, host: str, origin: str, ours: bool) -> None:
    assert gate.is_from_another_page(request(("Host", host), ("Origin", origin))) is not ours


def test_a_form_for_signing_in_must_say_where_it_comes_from() -> None:
    silent = request(("Host", "127.0.0.1"))
    assert not ALONE.is_from_another_page(silent)
    assert ALONE.is_from_another_page(silent, must_say=True)
    assert not ALONE.is_from_another_page(
        request(("Host", "127.0.0.1"), ("Sec-Fetch-Site", "same-origin")), must_say=True
    )


def test_a_cookie_is_bound_to_https_where_there_is_https() -> None:
    assert BEHIND.cookie(request(("Host", "shardd.example"))) == "__Host-shardd"
    assert BEHIND.is_encrypted(request(("Host", "shardd.example")))
    assert BEHIND.cookie(request(("Host", "127.0.0.1:8484"))) == "shardd-8484"
    assert not ALONE.is_encrypted(request(("Host", "localhost")))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.5, 198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.5", "198.51.100.1, 10.1.1.1"], "198.51.100.1"),
        ("127.0.0.1", ["nonsense"], "127.0.0.1"),
        ("::ffff:192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
        ("::ffff:127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.5, ::ffff:198.51.100.1, ::ffff:10.1.1.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("127.0.0.1", ["[2001:db8::1]:99, 10.1.1.1:80"], "2001:db8::1"),
        ("127.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("127.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("127.0.0.1", ["[]:99"], "127.0.0.1"),
        ("64:ff9b::7f00:1", ["198.51.100.1"], "64:ff9b::7f00:1"),
    ],
)
def test_an_address_is_believed_of_trusted_proxies_only(peer: str, forwarded: list[str], address: str) -> None:
    assert BEHIND.address(request(*(("X-Forwarded-For", one) for one in forwarded), peer=peer)) == address


@pytest.mark.parametrize("listed", ["::ffff:127.0.0.1", "::ffff:7f00:0/104", "127.0.0.0/8"])
def test_a_proxy_may_be_listed_as_either_kind_of_socket_shows_it(listed: str) -> None:
    gate = Gate(Access(listen="[::]:8484", trusted_proxies=(listed,)))
    for peer in ("127.0.0.1", "::ffff:127.0.0.1"):
        assert gate.address(request(("X-Forwarded-For", "198.51.100.1"), peer=peer)) == "198.51.100.1"


def test_a_user_is_believed_of_trusted_proxies_only() -> None:
    assert BEHIND.named_by_proxy(request(("X-User", "ada"))) == "ada"
    assert BEHIND.named_by_proxy(request(("X-User", "ada"), peer="::ffff:127.0.0.1")) == "ada"
    assert BEHIND.named_by_proxy(request(("X-User", "ada"), peer="192.0.2.9")) is None
    assert ALONE.named_by_proxy(request(("X-User", "ada"))) is None
    assert BEHIND.named_by_proxy(request(("X-User", ""))) is None
    for wrong in ([("X-User", "eve"), ("X-User", "ada")], [("X-User", "a b")], [("X-User", "ada, eve")]):
        with pytest.raises(NobodyError):
            BEHIND.named_by_proxy(request(*wrong))
