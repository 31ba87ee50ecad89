"""How values are read that say when a device may send: quiet hours and the steps of a warm-up."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationInfo

from shardd.config.values import Reader, RefusedError, Whole
from shardd.pacing import NO_QUIET, QuietHours

MOST_STEPS: Final = 60
"""Days of a warm-up."""
_HOURS_HELP: Final = f"write two times such as 21:00-08:00, or {NO_QUIET}"


@dataclass(frozen=True)
class Hours(Reader):
    """A part of the day such as `21:00-08:00`, or `none`; in Python the same text."""

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The text, without spaces."""
        return re.sub(r"\s", "", text)

    def check(self, value: Any) -> Any:
        """Two times that differ."""
        try:
            QuietHours.read(value)
        except ValueError:
            begin, _, end = value.partition("-")
            if begin and begin == end:
                raise RefusedError(f"begins and ends at the same time; {_HOURS_HELP}") from None
            raise RefusedError(f"is no part of a day; {_HOURS_HELP}") from None
        return value


@dataclass(frozen=True)
class Steps(Reader):
    """Whole numbers that do not fall, such as `50, 100, 200`; in Python a tuple."""

    low: int = 1
    high: int = 1_000_000

    def read(self, text: str, base: Path) -> tuple[int, ...]:
        """The numbers."""
        whole = Whole(self.low, self.high)
        numbers = []
        for part in text.split(","):
            try:
                numbers.append(whole.check(whole.read(part, base)))
            except RefusedError as error:
                raise RefusedError(f"has a part {part.strip() or '(nothing)'} that {error}") from None
        return tuple(numbers)

    def check(self, value: Any) -> Any:
        """Not more steps than a warm-up has, none below the one before."""
        if len(value) > MOST_STEPS:
            raise RefusedError(f"has {len(value)} steps; write at most {MOST_STEPS}")
        if fall := next(((high, low) for high, low in pairwise(value) if low < high), None):
            raise RefusedError(f"falls from {fall[0]} to {fall[1]}; write numbers that grow, such as 50, 100, 200")
        return value

    def show(self, value: Any) -> str:
        """With commas."""
        return ", ".join(str(number) for number in value)

    def _validate(self, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, list):
            raise RefusedError("is a list in brackets; write the numbers without them: 50, 100, 200")
        return super()._validate(value, info)
