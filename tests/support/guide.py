"""The pages for users, README.md and those of the guide, and their blocks of code.

A comment in the line before a block says how it is run, where the language does not:

    <!-- not run: WHY -->          nothing runs it
    <!-- as: ROLE -->              SQL of this role of the embedded database; without it, of a producer
    <!-- output of: STATEMENT -->  what psql prints on stderr for a producer's statement
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
GUIDE: Final = ROOT / "shardd/guide"
README: Final = ROOT / "README.md"
PAGES: Final = {"README": README, **{file.stem: file for file in sorted(GUIDE.glob("*.md"))}}
ON_A_FRESH_DEBIAN: Final = {"install", "upgrade", "backup"}
"""Pages that scripts/boot carries out."""
WITH_TWO_DATABASES: Final = {"regions"}
"""Pages that tests/acceptance/test_regions.py carries out."""

_PARTS: Final = re.compile(
    r"^(?:<!-- (?P<word>[a-z ]+): (?P<value>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$|^#+ (?P<heading>[^\n]+)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block; `number` counts those of a page."""

    page: str
    number: int
    heading: str
    language: str
    text: str
    word: str | None
    value: str | None

    @property
    def name(self) -> str:
        return f"{self.page}-{self.number}-{self.language}"

    @property
    def runs(self) -> bool:
        return self.word != "not run"


def pictures() -> list[Path]:
    """Those that the README shows."""
    found = re.findall(
        r"!\[[^]]*\]\(([^)]+)\)|<(?:img|source) [^>]*src(?:set)?=\"([^\"]+)\"", README.read_text(encoding="utf-8")
    )
    return [ROOT / (of_markdown or of_html) for of_markdown, of_html in found]


def blocks(page: str) -> list[Block]:
    """Of one page, in their order."""
    heading, found = "", []
    for part in _PARTS.finditer(PAGES[page].read_text(encoding="utf-8")):
        if part["heading"] is not None:
            heading = part["heading"]
            continue
        found.append(Block(page, len(found) + 1, heading, part["language"], part["text"], part["word"], part["value"]))
    return found
