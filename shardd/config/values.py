"""How the text of a value is read: durations, sizes, numbers, flags and choices.

Every value of a config file arrives as the text that stands there, and the reader of its field alone decides what the text
means. So YAML's own guesses (`NO` is false, `010` is 8, `1_000` is 1000, `12:30` is 750) never reach a field, and a value
from `${ENV}` is read exactly like one that is written out. Values that come from Python (a default, or what crossed
the socket to a worker) are already typed and are only checked.

A reader says no with `RefusedError`; its text continues the sentence that begins with the value: `is …; write …`.
"""

from __future__ import annotations

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
"""What YAML calls nothing, when it is not quoted."""


class RefusedError(ValueError):
    """A value that its field cannot take; the text continues the sentence that begins with the value."""


class Reader(ABC):
    """Reads and checks the values of one field; stands in the field's `Annotated` type."""

    secret = False
    """Whether the value must not be shown to anybody."""

    @abstractmethod
    def read(self, text: str, base: Path) -> Any:
        """The value that `text` stands for; `base` is the folder of the config file. Raises RefusedError."""

    def check(self, value: Any) -> Any:
        """The typed value, if it lies in the field's bounds. Raises RefusedError."""
        return value

    def show(self, value: Any) -> str:
        """The value as one would write it in the file."""
        return str(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Tell pydantic to put this reader before the field's type."""
        return core_schema.with_info_before_validator_function(self._validate, handler(source))

    def _validate(self, value: Any, info: core_schema.ValidationInfo) -> Any:
        if isinstance(value, (dict, list)):
            raise RefusedError(f"is {'a section' if isinstance(value, dict) else 'a list'}; write one value")
        if isinstance(value, str):
            base = info.context["base"] if info.context else Path.cwd()
            value = self.read(value, base)
        return value if value is None else self.check(value)


class Listed(Reader):
    """Names with commas between them, or the same as a list; in Python a tuple."""

    def read(self, text: str, base: Path) -> tuple[str, ...]:  # noqa: ARG002 - the signature of every reader
        """The names, without spaces around them."""
        return tuple(part.strip() for part in text.split(","))

    def show(self, value: Any) -> str:
        """With commas."""
        return ", ".join(value)

    def _validate(self, value: Any, info: core_schema.ValidationInfo) -> Any:
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = ", ".join(value)
        return super()._validate(value, info)


@dataclass(frozen=True)
class Seconds(Reader):
    """A duration such as `250ms`, `30s`, `5m`, `1h30m` or `1d`; in Python seconds as a float."""

    low: str = "0"
    high: str = "366d"

    def read(self, text: str, base: Path) -> float:  # noqa: ARG002 - the signature of every reader
        """Seconds."""
        return parse_duration(text)

    def check(self, value: Any) -> Any:
        """Within the bounds, both included."""
        return _within(value, parse_duration(self.low), parse_duration(self.high), self.show)

    def show(self, value: Any) -> str:
        """The shortest spelling."""
        return format_duration(value)


@dataclass(frozen=True)
class Bytes(Reader):
    """A size such as `512KiB` or `1GiB`; in Python bytes as an int."""

    low: str = "0"
    high: str = "1024GiB"

    def read(self, text: str, base: Path) -> int:  # noqa: ARG002 - the signature of every reader
        """Bytes."""
        return parse_size(text)

    def check(self, value: Any) -> Any:
        """Within the bounds, both included."""
        return _within(value, parse_size(self.low), parse_size(self.high), self.show)

    def show(self, value: Any) -> str:
        """In the largest unit that leaves a whole number."""
        return format_size(value)


@dataclass(frozen=True)
class Whole(Reader):
    """A whole number in decimal digits."""

    low: int = 0
    high: int = 1_000_000_000

    def read(self, text: str, base: Path) -> int:  # noqa: ARG002 - the signature of every reader
        """An int."""
        text = text.strip()
        if re.fullmatch(r"[+-]?(0|[1-9][0-9]*)", text) and len(text) < 20:
            return int(text)
        meant = _other_spelling(text)
        advice = f"write {meant}" if meant is not None else f"write a number from {self.low} to {self.high}"
        if re.fullmatch(r"[+-]?0[0-9]+", text):
            raise RefusedError(f"begins with 0, which some programs read as octal; {advice}")
        raise RefusedError(f"is not a whole number in plain digits; {advice}")

    def check(self, value: Any) -> Any:
        """Within the bounds, both included."""
        return _within(value, self.low, self.high, str)


@dataclass(frozen=True)
class Fraction(Reader):
    """A share from 0 to 1."""

    def read(self, text: str, base: Path) -> float:  # noqa: ARG002 - the signature of every reader
        """A float."""
        if match := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]+)?)\s*%", text):
            raise RefusedError(f"is a percentage; write {float(match[1]) / 100:g}")
        if not re.fullmatch(r"[+-]?[0-9]{1,9}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", text):
            raise RefusedError("is not a number; write a share from 0.0 to 1.0, such as 0.05 for one in twenty")
        return float(text)

    def check(self, value: Any) -> Any:
        """From 0 to 1, both included."""
        return _within(value, 0.0, 1.0, self.show)


@dataclass(frozen=True)
class Flag(Reader):
    """`true` or `false`."""

    def read(self, text: str, base: Path) -> bool:  # noqa: ARG002 - the signature of every reader
        """A bool."""
        word = text.strip().lower()
        if word in {"true", "false"}:
            return word == "true"
        if word in {"yes", "y", "on", "1"}:
            raise RefusedError("is neither true nor false; write true")
        if word in {"no", "n", "off", "0"}:
            raise RefusedError("is neither true nor false; write false")
        raise RefusedError("is neither true nor false; write true or false")

    def show(self, value: Any) -> str:
        """As YAML spells it."""
        return "true" if value else "false"


@dataclass(frozen=True)
class Choice(Reader):
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The word."""
        return text

    def check(self, value: Any) -> Any:
        """One of the words, letter by letter."""
        if value in self.words:
            return value
        near = closest(str(value).lower(), self.words)
        raise RefusedError(f"is none of {', '.join(self.words)}; write {near or 'one of these'}")


_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NAMES: Final = {
    **dict.fromkeys(("msec", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("sec", "secs", "second", "seconds", "S"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes", "M"), "m"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours", "H"), "h"),
    **dict.fromkeys(("day", "days", "D"), "d"),
}
_NUMBER: Final = r"[0-9]{1,15}(?:\.[0-9]{1,6})?"
_PARTS: Final = re.compile(rf"(?:{_NUMBER}(?:ms|[dhms]))+")
_DURATION_HELP: Final = "write a duration such as 250ms, 30s, 5m, 1h30m or 1d"


def parse_duration(text: str) -> float:
    """Seconds. Bare numbers are refused, except 0, because nobody can tell 30 seconds from 30 milliseconds.

    Raises RefusedError.
    """
    text = text.strip()
    if text == "0":
        return 0.0
    if _PARTS.fullmatch(text):
        parts = re.findall(rf"({_NUMBER})(ms|[dhms])", text)
        sizes = [_UNITS[unit] for _, unit in parts]
        if sizes != sorted(set(sizes), reverse=True):
            raise RefusedError("names its units out of order or twice; write the largest first, such as 1h30m")
        return round(sum(float(number) * _UNITS[unit] for number, unit in parts), 6)
    if re.fullmatch(_NUMBER, text):
        raise RefusedError(f"has no unit; write {text}s for seconds, or ms, m, h, d")
    if text.startswith("-"):
        raise RefusedError(f"is negative; {_DURATION_HELP}")
    if (match := re.fullmatch(rf"({_NUMBER})\s*([A-Za-z]+)", text)) and (match[2] in _UNITS or match[2] in _NAMES):
        raise RefusedError(f"is not how durations are spelled; write {match[1]}{_NAMES.get(match[2], match[2])}")
    raise RefusedError(f"is not a duration; {_DURATION_HELP}")


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


_SIZES: Final = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}


def parse_size(text: str) -> int:
    """Bytes. Powers of 1024 only: `MB` means two things, so it is refused. Raises RefusedError."""
    text = text.strip()
    if text == "0":
        return 0
    if match := re.fullmatch(rf"({_NUMBER})(GiB|MiB|KiB|B)", text):
        return round(float(match[1]) * _SIZES[match[2]])
    if re.fullmatch(_NUMBER, text):
        raise RefusedError(f"has no unit; write {text}MiB, or KiB, GiB, B")
    if match := re.fullmatch(rf"({_NUMBER})\s*([kmgKMG])?[iI]?[bB]?(?:ytes)?", text):
        unit = f"{match[2].upper()}iB" if match[2] else "B"
        raise RefusedError(f"is not how sizes are spelled; write {match[1]}{unit}")
    raise RefusedError("is not a size; write one such as 512KiB, 16MiB or 1GiB")


def format_size(size: int) -> str:
    """The spelling in the largest unit that leaves a whole number."""
    if size == 0:
        return "0"
    unit, factor = next((unit, factor) for unit, factor in _SIZES.items() if size % factor == 0)
    return f"{size // factor}{unit}"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return near[0] if near else None


def _within(value: Any, low: float, high: float, show: Any) -> Any:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        side = "too small" if isinstance(value, (int, float)) and value < low else "too large"
        raise RefusedError(f"is {side}; write a value from {show(low)} to {show(high)}")
    return value


def _other_spelling(text: str) -> int | None:
    """The whole number that a text means in the notations that YAML or people use, if it is one."""
    for base in ("_", ",", "'", " "):
        text = text.replace(base, "")
    try:
        if re.fullmatch(r"[+-]?0[oO]?[0-7]+", text) and "o" in text.lower():
            return int(text, 8)
        if re.fullmatch(r"[+-]?0[xX][0-9a-fA-F]{1,12}|[+-]?0[bB][01]{1,48}", text):
            return int(text, 0)
        number = float(text) if re.fullmatch(r"[+-]?[0-9.]{1,15}([eE][+-]?[0-9]{1,2})?", text) else None
    except ValueError:
        return None
    return int(number) if number is not None and number.is_integer() else None
