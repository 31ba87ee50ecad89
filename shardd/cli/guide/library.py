"""The pages of the guide: their order, their text, and what they name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from typing import Final

from shardd.errors import UsageError

CHAPTERS: Final = {
    "Begin": ("install", "pair", "platforms"),
    "Send": ("insert", "outcomes", "pace", "campaigns", "media"),
    "Listen": ("replies", "opt-outs", "webhooks"),
    "Run": (
        "operate",
        "dashboard",
        "api",
        "failures",
        "producers",
        "several-hosts",
        "regions",
        "container",
        "sizing",
        "upgrade",
        "library",
        "backup",
        "migrate",
    ),
    "Background": ("how-it-works", "third-party"),
}
"""The names of all pages, in the order in which they are listed."""

_FENCE: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK: Final = re.compile(r"\]\(([a-z-]+)\.md(?:#[^)]*)?\)")
_CLOSE: Final = 0.75
"""Similarity from which on a name is suggested (see difflib)."""
_SUGGESTED: Final = 3
"""Pages that an error names, at most."""


@dataclass(frozen=True)
class GuidePage:
    """A page; `text` is Markdown."""

    name: str
    text: str

    @property
    def title(self) -> str:
        """Its heading."""
        return self.text.partition("\n")[0].removeprefix("# ")

    @property
    def summary(self) -> str:
        """What it lets the reader do: the paragraph below the heading."""
        return self.text.split("\n\n")[1]

    @property
    def headings(self) -> list[str]:
        """All of them, the title first."""
        return _HEADING.findall(_FENCE.sub("", self.text))

    @property
    def others(self) -> list[str]:
        """The names of other pages that it refers to, in their order there."""
        return list(dict.fromkeys(name for name in _LINK.findall(self.text) if name != self.name))

    @property
    def mentioned(self) -> list[tuple[str, str]]:
        """The two words after each `shardd` (the second may be empty), in their order there: perhaps a command."""
        return list(dict.fromkeys(re.findall(r"\bshardd ([a-z-]+) ?([a-z-]*)", self.text)))


def page_names() -> list[str]:
    """The names of all pages, in their order."""
    return [name for names in CHAPTERS.values() for name in names]


def read_page(name: str) -> GuidePage:
    """The page of this name. Raises UsageError, which suggests others, if there is none."""
    if name not in page_names():
        *most, last = _suggested(name) or [""]
        question = f"did you mean {' or '.join(filter(None, (', '.join(most), last)))}? " if last else ""
        raise UsageError(f"the guide has no page {name!r}; {question}all pages: shardd guide")
    return GuidePage(name, files("shardd").joinpath("guide", f"{name}.md").read_text(encoding="utf-8"))


def _suggested(name: str) -> list[str]:
    """Pages with this title, a similar name, or the words in a heading; otherwise those that mention them most."""
    words = name.lower().replace("_", "-")
    pages = [read_page(each) for each in page_names()]
    found = [page.name for page in pages if words in {page.name, page.title.lower()}]
    found += get_close_matches(words, page_names(), cutoff=_CLOSE)
    found += [
        page.name for page in pages if any(words in heading.lower().replace(" ", "-") for heading in page.headings)
    ]
    if not found:
        counts = {page.name: page.text.lower().replace("_", "-").count(words) for page in pages}
        found = [page for page in sorted(counts, key=lambda page: -counts[page]) if counts[page]]
    return list(dict.fromkeys(found))[:_SUGGESTED]
