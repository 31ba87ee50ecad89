"""Sizes, whole and decimal numbers, flags and choices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from shardd.config.values.reader import OtherSpellingError, Reader, RefusedError, closest


@dataclass(frozen=True)
class Bounded(Reader):
    """A number between two bounds, both included and written as in a file."""

    low: Any
    high: Any

    def read(self, text: str) -> Any:
        """As `Reader.read`; a fix that would be out of bounds is not offered."""
        try:
            return super().read(text)
        except OtherSpellingError as other:
            try:
                super().read(other.meant)
            except RefusedError:
                raise RefusedError(f"{other.fault}; {self._range()}") from None
            raise

    def check(self, value: Any) -> Any:
        """Within the bounds."""
        low, high = self._bounds()
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and low <= value <= high:
            return value
        side = "too small" if is_number and value < low else "too large"
        raise RefusedError(f"is {side}; {self._range()}")

    def _bounds(self) -> tuple[Any, Any]:
        return self.convert(str(self.low)), self.convert(str(self.high))

    def _range(self) -> str:
        low, high = self._bounds()
        return f"write a value from {self.show(low)} to {self.show(high)}"


_NUMBER: Final = r"[+-]?[0-9]{1,15}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?"
DECIMAL: Final = r"[0-9]{1,15}(?:\.[0-9]{1,6})?"
_SIZES: Final = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}


@dataclass(frozen=True)
class Bytes(Bounded):
    """A size such as `512KiB` or `1GiB`; in Python bytes as an int.

    By hand: pydantic's ByteSize takes a bare number for bytes, and `MB` for a power of 1000.
    """

    low: str = "0"
    high: str = "1024GiB"

    def convert(self, text: str) -> int:
        """Bytes. Powers of 1024 only: `MB` means two things, so it is refused."""
        text = text.strip()
        if text == "0":
            return 0
        if match := re.fullmatch(rf"({DECIMAL})(GiB|MiB|KiB|B)", text):
            return round(float(match[1]) * _SIZES[match[2]])
        if re.fullmatch(DECIMAL, text):
            raise OtherSpellingError("has no unit", f"{text}MiB", ", or KiB, GiB, B")
        if match := re.fullmatch(rf"({DECIMAL})\s*([kmgKMG])?[iI]?[bB]?(?:ytes)?", text):
            unit = f"{match[2].upper()}iB" if match[2] else "B"
            raise OtherSpellingError("is not a valid size", f"{match[1]}{unit}")
        raise RefusedError(f"is not a size; {self._range()}")

    def show(self, value: int) -> str:
        """In the largest unit that leaves a whole number."""
        if value == 0:
            return "0"
        unit, factor = next((unit, factor) for unit, factor in _SIZES.items() if value % factor == 0)
        return f"{value // factor}{unit}"


@dataclass(frozen=True)
class Whole(Bounded):
    """A whole number in decimal digits."""

    low: int = 0
    high: int = 1_000_000_000

    def convert(self, text: str) -> int:
        """An int."""
        text = text.strip()
        if re.fullmatch(r"[+-]?(0|[1-9][0-9]*)", text) and len(text) < 20:
            return int(text)
        meant = _other_spelling(text)
        is_octal = re.fullmatch(r"[+-]?0[0-9]+", text)
        fault = (
            "begins with 0, which some programs read as octal" if is_octal else "is not a whole number in plain digits"
        )
        if meant is None:
            raise RefusedError(f"{fault}; {self._range()}")
        raise OtherSpellingError(fault, str(meant))


def _other_spelling(text: str) -> int | None:
    """The whole number that a text means in the notations that YAML or people use, if it is one."""
    if re.fullmatch(r"[+-]?[0-9]{1,3}([,' .][0-9]{3})+", text):
        if "." in text:  # a thousand or one
            return None
        text = re.sub("[,' ]", "", text)
    text = text.replace("_", "")
    try:
        if re.fullmatch(r"[+-]?0[oO][0-7]+", text):
            return int(text, 8)
        if re.fullmatch(r"[+-]?0[xX][0-9a-fA-F]{1,12}|[+-]?0[bB][01]{1,48}", text):
            return int(text, 0)
        number = float(text) if re.fullmatch(r"[+-]?[0-9.]{1,15}([eE][+-]?[0-9]{1,2})?", text) else None
    except ValueError:
        return None
    return int(number) if number is not None and number.is_integer() else None


@dataclass(frozen=True, kw_only=True)
class Number(Bounded):
    """A decimal number from 0 to `high`; `what` it is, for errors."""

    low: float = 0.0
    high: float
    what: str

    def convert(self, text: str) -> float:
        """A float."""
        text = text.strip()
        if self.high == 1 and (match := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]+)?)\s*%", text)):
            raise OtherSpellingError("is a percentage", f"{float(match[1]) / 100:g}")
        if not re.fullmatch(_NUMBER, text):
            if match := re.fullmatch(
                r"([0-9]*)(?:[.,]([0-9]{1,2}))?(?:\s?/\s?s)?", text
            ):  # 1,000 would mean two things
                meant = f"{match[1] or 0}" + (f".{match[2]}" if match[2] else "")
                raise OtherSpellingError("is not a number in plain digits", meant)
            raise RefusedError(f"is not a number; write {self.what}")
        return float(text)

    def show(self, value: float) -> str:
        """Without needless digits."""
        return f"{value:g}"


Share = Annotated[float, Number(high=1.0, what="a share from 0 to 1, such as 0.05 for one in twenty")]
Rate = Annotated[float, Number(high=10_000.0, what="how many in one second, such as 20 or 0.5")]


@dataclass(frozen=True)
class Flag(Reader):
    """`true` or `false`."""

    def convert(self, text: str) -> bool:
        """A bool."""
        word = text.strip().lower()
        if word in {"true", "false"}:
            return word == "true"
        meant = dict.fromkeys(("yes", "y", "on", "1"), "true") | dict.fromkeys(("no", "n", "off", "0"), "false")
        raise RefusedError(f"is neither true nor false; write {meant.get(word, 'true or false')}")

    def show(self, value: bool) -> str:
        """As YAML spells it."""
        return str(value).lower()


@dataclass(frozen=True)
class Choice(Reader):
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, value: Any) -> Any:
        """Letter by letter."""
        if value in self.words:
            return value
        near = closest(str(value).lower(), self.words)
        raise RefusedError(f"is not one of {', '.join(self.words)}; write {near or 'one of these'}")
