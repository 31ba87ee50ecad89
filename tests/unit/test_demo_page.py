"""The demonstration's links: there is always one that is not too old, and none where there is no page."""

from __future__ import annotations

import io
from collections.abc import Iterator

import demo_page
import pytest
from demo_page import Page
from rich.console import Console

from shardd.config import Config
from shardd.errors import UsageError

LINKS = [f"http://127.0.0.1:8484/sign-in/{letter * 43}" for letter in "abc"]


class PageOf(Page):
    """Whose links are these; then there is no page."""

    def __init__(self, links: list[str], console: Console) -> None:
        super().__init__(Config(), console)
        self._links: Iterator[str] = iter(links)

    def link(self) -> str:
        if (found := next(self._links, None)) is None:
            raise UsageError("no dashboard: the port is in use")
        return found


@pytest.fixture
def console() -> Console:
    return Console(width=40, file=io.StringIO(), force_terminal=True, color_system=None)


def said(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_link_is_replaced_before_it_is_too_old(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    page = PageOf(LINKS, console)
    page.say("open:")
    page.keep_fresh()
    assert said(console) == ["open:", LINKS[0]]
    monkeypatch.setattr(demo_page, "ANOTHER_AFTER", 0.0)
    page.keep_fresh()
    assert said(console)[-1] == LINKS[1]


def test_without_a_page_it_says_why_once(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_page, "ANOTHER_AFTER", 0.0)
    page = PageOf([], console)
    page.say("open:")
    page.keep_fresh()
    assert said(console) == ["no dashboard: the port is in use"]
