"""Durations such as `250ms`, `30s`, `5m`, `1h30m` or `1d`; in Python seconds as a float.

By hand: pydantic's timedelta reads ISO 8601 and takes a bare number for seconds, humanfriendly and pytimeparse round or guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from shardd.config.values.numbers import DECIMAL, Bounded
from shardd.config.values.reader import RefusedError

_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NAMES: Final = {
    **dict.fromkeys(("msec", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("sec", "secs", "second", "seconds", "S"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes", "M"), "m"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours", "H"), "h"),
    **dict.fromkeys(("day", "days", "D"), "d"),
    **dict.fromkeys(_UNITS),
}
_PARTS: Final = re.compile(rf"(?:{DECIMAL}(?:ms|[dhms]))+")
NEVER: Final = "never"
_HELP: Final = "write a duration such as 250ms, 30s, 5m, 1h30m or 1d"


@dataclass(frozen=True)
class Seconds(Bounded):
    """A duration within bounds."""

    low: str = "0"
    high: str = "366d"

    def convert(self, text: str) -> float:
        """Seconds."""
        return parse_duration(text)

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
        try:
            if (seconds := parse_duration(text)) > 0:
                return seconds
        except RefusedError as error:
            raise RefusedError(f"{error}, or {NEVER}") from None
        raise RefusedError(f"is no time at all; {_HELP}, or {NEVER}")

    def check(self, value: Any) -> Any:
        """Within the bounds, or 0."""
        return value if value == 0 else super().check(value)

    def show(self, value: float) -> str:
        """The shortest spelling."""
        return format_duration(value) if value else NEVER


def parse_duration(text: str) -> float:
    """Seconds. Raises RefusedError: also for a bare number other than 0, which might mean seconds or milliseconds."""
    text = text.strip()
    if text == "0":
        return 0.0
    if _PARTS.fullmatch(text):
        parts = re.findall(rf"({DECIMAL})(ms|[dhms])", text)
        sizes = [_UNITS[unit] for _, unit in parts]
        if sizes != sorted(set(sizes), reverse=True):
            raise RefusedError("has units out of order or twice; write the largest first, such as 1h30m")
        return round(sum(float(number) * _UNITS[unit] for number, unit in parts), 6)
    if re.fullmatch(DECIMAL, text):
        raise RefusedError(f"has no unit; write {text}s for seconds, or ms, m, h, d")
    if text.startswith("-"):
        raise RefusedError(f"is negative; {_HELP}")
    if (match := re.fullmatch(rf"({DECIMAL})\s*([A-Za-z]+)", text)) and match[2] in _NAMES:
        raise RefusedError(f"is not a valid duration; write {match[1]}{_NAMES[match[2]] or match[2]}")
    raise RefusedError(f"is not a duration; {_HELP}")


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
