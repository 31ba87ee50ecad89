"""Searching in windows, each as large as the time that is left allows: no statement takes long, whatever it has to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GROWTH: Final = 4
"""How many times as large as the last one a window may be."""
USED: Final = 0.8
"""How much of the time that is left a window is to take: the next one may be slower."""


@dataclass(slots=True)
class Window:
    """`size`: how many, of whatever is searched."""

    size: int

    def adapt(self, took: float, left: float) -> None:
        """Make the next one as large as most of the time that is left allows, if each takes as long as in the last one."""
        self.size = max(1, min(self.size * GROWTH, int(USED * self.size * left / max(took, 1e-6))))
