"""The commands of pages of the guide, as they have them: each fenced block, under its heading.

What stands for the pages' placeholders is in one table, and a block that is not carried out is an error, so that the pages and
what is tested cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STAND_FOR: Final = {
    "…": "correct$horse",  # a shell that reads the environment file would expand it
    "db.example": "localhost",
    "NAME": "alice",
}
"""What stands for the placeholders of the pages."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its text, with the placeholders filled in."""

    heading: str
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The path in the first line's comment, for a block that is a file."""
        found = re.match(r"# (/\S+)\n", self.text)
        return found[1] if found and self.language == "yaml" else None


class Pages:
    """The blocks of some pages; `take` hands out those of a heading, and `left` has the others."""

    def __init__(self, *files: Path) -> None:
        self._blocks = [block for file in files for block in _blocks(file.read_text(encoding="utf-8"))]
        self._taken: set[Block] = set()

    def take(self, heading: str) -> list[Block]:
        """The blocks under this heading."""
        found = [block for block in self._blocks if block.heading == heading]
        if not found:
            raise LookupError(f"no page has commands under {heading!r}")
        self._taken.update(found)
        return found

    def packages(self) -> list[str]:
        """The Debian packages that the pages install."""
        commands = [re.findall(r"^apt-get install --yes ([^#\n]+)", block.text, re.MULTILINE) for block in self._blocks]
        return [package for found in commands for names in found for package in names.split()]

    def left(self) -> list[Block]:
        """Blocks that were never taken."""
        return [block for block in self._blocks if block not in self._taken]


def _blocks(text: str) -> Iterator[Block]:
    heading = ""
    parts = r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w+)\n(?P<block>.*?)^```$"
    for match in re.finditer(parts, text, re.MULTILINE | re.DOTALL):
        if match["heading"]:
            heading = match["heading"]
            continue
        block = match["block"]
        for placeholder, value in STAND_FOR.items():
            word = r"\b" if placeholder.isalnum() else ""  # NAME, but not RENAME
            block = re.sub(f"{word}{re.escape(placeholder)}{word}", lambda _, value=value: value, block)
        yield Block(heading, match["language"], block)
