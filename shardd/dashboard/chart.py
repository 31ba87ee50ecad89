"""The last hour as bars, in numbers: what `overview-chart.html` draws as SVG, and writes as text.

Drawn by the server: such a picture follows the theme and the width by its style sheet alone, and needs no script.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from shardd.dashboard.rates import OUTCOMES, Minute

WIDTH, HEIGHT = 600, 120
"""Of the drawing, whose width is stretched to that of the page."""
GAP: Final = 2
DRAWN: Final = ("sent", "failed", "in doubt", "opted out", "expired")
"""Outcomes, from the bottom of a bar to its top. Not `cancelled`: one act may end a million jobs that nobody tried to send."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A piece of a minute's bar."""

    outcome: str
    x: int
    y: float
    width: int
    height: float


class Chart:
    """The picture and the numbers of these minutes, the current one last."""

    def __init__(self, minutes: Sequence[Minute]) -> None:
        self._minutes = minutes
        self.step = WIDTH // len(minutes)
        self.width, self.height = WIDTH, HEIGHT
        self.top = _nice(max((self._drawn(minute) for minute in minutes), default=0))
        """The number at the upper edge."""
        self.unknown = sum(minute.counts is None for minute in minutes)
        """How many minutes, the earliest, are not known."""
        self.totals = {
            outcome: sum((minute.counts or {}).get(outcome, 0) for minute in minutes) for outcome in OUTCOMES.values()
        }
        self.outcomes = [outcome for outcome in DRAWN if self.totals[outcome] or outcome in ("sent", "failed")]

    @property
    def bars(self) -> Iterator[Bar]:
        """All pieces that have a height."""
        for place, minute in enumerate(self._minutes):
            y = float(HEIGHT)
            for outcome in DRAWN:
                if number := (minute.counts or {}).get(outcome, 0):
                    height = max(1.0, HEIGHT * number / self.top)
                    y -= height
                    yield Bar(outcome, place * self.step, round(y, 2), self.step - GAP, round(height, 2))

    @property
    def busiest(self) -> int:
        """The most that was sent in a minute."""
        return max(((minute.counts or {}).get("sent", 0) for minute in self._minutes), default=0)

    @property
    def last(self) -> int:
        """What was sent in the last whole minute."""
        return (self._minutes[-2].counts or {}).get("sent", 0)

    @property
    def rows(self) -> list[tuple[str, dict[str, int]]]:
        """(time, numbers) of the minutes in which something ended, the newest first."""
        return [
            (f"{datetime.fromtimestamp(minute.at, UTC):%H:%M}", minute.counts)
            for minute in reversed(self._minutes)
            if minute.counts is not None and any(minute.counts.values())
        ]

    def _drawn(self, minute: Minute) -> int:
        return sum((minute.counts or {}).get(outcome, 0) for outcome in DRAWN)


def _nice(most: int) -> int:
    """The next number of 10, 20, 50, 100, 200 and so on."""
    size = 10
    while True:
        for factor in (1, 2, 5):
            if most <= factor * size:
                return factor * size
        size *= 10
