"""Links that sign in: each once, and those that somebody invented are told without the memory of those that were made."""

from __future__ import annotations

from shardd.supervisor.admin.sign_in_links import SignInLinks, is_marked


def test_a_link_is_good_once_and_its_mark_cannot_be_invented() -> None:
    links, others = SignInLinks(), SignInLinks()
    token = links.make()
    assert is_marked(token, links.key)
    for invented in (
        others.make(),
        token[:-1],
        f"a{token}",
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        "a" * 59,
        "ab",
        "",
    ):
        assert not is_marked(invented, links.key), invented
        assert not links.redeem(invented)
    assert (links.is_good(token), links.redeem(token), links.redeem(token)) == (True, True, False)
