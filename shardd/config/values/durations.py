"""Durations such as `250ms`, `30s`, `5m`, `1h30m` or `1d`; in Python seconds as a float.

By hand: pydantic's timedelta reads ISO 8601 and takes a bare number for seconds, humanfriendly and pytimeparse round or guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from shardd.config.values.numbers import DECIMAL, Bounded
from shardd.config.values.reader import OtherSpellingError, RefusedError

_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NAMES: Final = {
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("w", "week", "weeks"), "w"),
}
"""How people write units, in lower case."""
_PARTS: Final = re.compile(rf"(?:{DECIMAL}(?:ms|[dhms]))+")
NEVER: Final = "never"
_WORDS: Final = re.compile(rf"(?:{DECIMAL}\s*[A-Za-z]+(?:\s*,?\s*(?:and\s+)?))+")
_HELP: Final = "write a duration such as 250ms, 30s, 5m, 1h30m or 1d"


@dataclass(frozen=True)
class Seconds(Bounded):
    """A duration within bounds."""

    low: str = "0"
    high: str = "366d"

    def convert(self, text: str) -> float:
        """Seconds."""
        return parse_duration(text, self._range)

    def _bounds(self) -> tuple[float, float]:
        return parse_duration(self.low), parse_duration(self.high)

    def show(self, value: float) -> str:
        """The shortest spelling."""
        return format_duration(value)


@dataclass(frozen=True)
class SecondsOrNever(Seconds):
    """A duration within bounds, or `never`, which is 0 in Python."""

    def convert(self, text: str) -> float:
        """Seconds."""
        if text.strip().lower() == NEVER:
            return 0.0
        if (seconds := parse_duration(text, self._range)) > 0:
            return seconds
        raise RefusedError(f"is no time at all; {self._range()}")

    def _range(self) -> str:
        return f"{super()._range()}, or {NEVER}"

    def check(self, value: Any) -> Any:
        """Within the bounds, or 0."""
        return value if value == 0 else super().check(value)

    def show(self, value: float) -> str:
        """The shortest spelling."""
        return format_duration(value) if value else NEVER


def parse_duration(text: str, fix: Callable[[], str] = lambda: _HELP) -> float:
    """Seconds. Raises RefusedError: also for a bare number other than 0, which might mean seconds or milliseconds.

    `fix`: for what is no duration at all.
    """
    text = text.strip()
    if text == "0":
        return 0.0
    if _PARTS.fullmatch(text):
        parts = re.findall(rf"({DECIMAL})(ms|[dhms])", text)
        ordered = sorted(parts, key=lambda part: _UNITS[part[1]], reverse=True)
        if len({unit for _, unit in parts}) < len(parts):
            raise RefusedError(f"has a unit twice; {fix()}")
        if parts != ordered:
            raise OtherSpellingError("has units out of order", "".join(map("".join, ordered)))
        return round(sum(float(number) * _UNITS[unit] for number, unit in parts), 6)
    if re.fullmatch(DECIMAL, text):
        raise OtherSpellingError("has no unit", f"{text}s", " for seconds, or ms, m, h, d")
    if text.startswith("-"):
        raise RefusedError(f"is negative; {fix()}")
    if (meant := _in_units(text)) is not None:
        raise OtherSpellingError("is not a valid duration", meant)
    raise RefusedError(f"is not a duration; {fix()}")


def _in_units(text: str) -> str | None:
    """What `2 hours 30 min` means, written with units, if it is a duration."""
    text = re.sub(r"([0-9]),([0-9]{1,2}(?![0-9]))", r"\1.\2", text)
    if not _WORDS.fullmatch(text):
        return None
    spelt = ""
    for number, word in re.findall(rf"({DECIMAL})\s*([A-Za-z]+)", text):
        unit = _NAMES.get(word.lower())
        if unit is None:
            return None
        spelt += f"{float(number) * 7:g}d" if unit == "w" else f"{number}{unit}"
    return spelt


def format_duration(seconds: float) -> str:
    """The shortest spelling that `parse_duration` reads back, to the millisecond."""
    rest = round(seconds * 1000)
    if rest == 0:
        return "0"
    if rest < 1000:
        return f"{rest}ms"
    text = ""
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, round(size * 1000))
        text += f"{count}{unit}" if count else ""
    return text
