"""What the readers of all values share, and the two that are made of others: text with a check, and lists."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from shardd.urls import safe_url, scrub_urls
from shardd.visible import visible

_SWITCHES: Final = frozenset({"true", "false", "yes", "no", "on", "off"})
"""What YAML 1.1 reads as true or false."""


class RefusedError(ValueError):
    """A value that its field cannot take; the text continues the sentence that begins with the value."""


class OtherSpellingError(RefusedError):
    """A value that was probably meant otherwise."""

    def __init__(self, fault: str, meant: str, others: str = "") -> None:
        """`meant`: as it is written in a file; `others`: what else it could be, such as `, or ms`."""
        super().__init__(f"{fault}; write {meant}{others}")
        self.fault = fault
        self.meant = meant


class Reader:
    """Reads and checks the values of one field; part of the field's `Annotated` type."""

    secret: bool = False
    """Whether the value must never be shown."""

    def read(self, text: str) -> Any:
        """The checked value that `text` means. Raises RefusedError."""
        return self.check(self.convert(text))

    def convert(self, text: str) -> Any:
        """The value that `text` means, of the field's type. Raises RefusedError."""
        return text.strip()

    def check(self, value: Any) -> Any:
        """The value, if the field can take it. Raises RefusedError."""
        return value

    def show(self, value: Any) -> str:
        """The value as it is written in a file."""
        return str(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Run this reader before pydantic's own check of the type."""
        return core_schema.with_info_before_validator_function(self._validate, handler(source))

    def _validate(self, value: Any, info: core_schema.ValidationInfo) -> Any:  # noqa: ARG002 - for readers that look at the context
        if isinstance(value, (dict, list)):
            raise RefusedError(f"is {'a section' if isinstance(value, dict) else 'a list'}; write one value")
        if isinstance(value, str):
            return self.read(value)
        return value if value is None else self.check(value)


@dataclass(frozen=True)
class Text(Reader):
    """Text that `verify` returns, or refuses with RefusedError."""

    verify: Callable[[str], str]
    secret: bool = False

    def check(self, value: Any) -> Any:
        """Left to pydantic when it is not text."""
        return self.verify(value) if isinstance(value, str) else value


def matching(pattern: str, refusal: str) -> Callable[[str], str]:
    """A check for `Text`: the whole text matches `pattern`, or `refusal` is the error."""

    def verify(text: str) -> str:
        if re.fullmatch(pattern, text):
            return text
        raise RefusedError(refusal)

    return verify


def accepted_by(parse: Callable[[str], object]) -> Callable[[str], str]:
    """A check for `Text`: `parse` accepts it; its ValueError is the refusal."""

    def verify(text: str) -> str:
        try:
            parse(text)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        return text

    return verify


@dataclass(frozen=True)
class Listed(Reader):
    """Values with commas between them, also Arabic and Chinese ones, or a YAML list; in Python a tuple.

    `like`: some, for errors.
    """

    part: Reader
    most: int
    like: str

    def convert(self, text: str) -> Any:
        """The texts between the commas. A switch can be a value of a YAML list."""
        refuse_switch(text, f"write values such as {self.like}")
        return re.split("[,\u060c\u3001\uff0c]", text)

    def check(self, value: Any) -> Any:
        """Not too many, and each one good."""
        if not value or value == [""]:
            raise RefusedError(f"is empty; write values such as {self.like}")
        if any(isinstance(part, str) and not part.strip() for part in value):
            raise RefusedError(f"has an empty part; write values with one comma between them, such as {self.like}")
        if len(value) > self.most:
            raise RefusedError(f"has {len(value)} parts; write at most {self.most}")
        return tuple(self._read_part(part) for part in value)

    def show(self, value: Any) -> str:
        """With commas."""
        return ", ".join(map(self.part.show, value))

    def _read_part(self, part: Any) -> Any:
        try:
            return self.part.read(part) if isinstance(part, str) else self.part.check(part)
        except RefusedError as error:
            text = str(part).strip()
            # A part with @ may hold a password, also without a scheme in front of it.
            shown = printable(safe_url(text) if "@" in text else scrub_urls(text))
            raise RefusedError(f"has a part {shown} that {error}") from None

    def _validate(self, value: Any, info: core_schema.ValidationInfo) -> Any:
        if isinstance(value, dict):
            raise RefusedError(f"is a section; write values such as {self.like}")
        if not isinstance(value, list):
            return super()._validate(value, info)
        if any(isinstance(part, dict | list | None) for part in value):
            raise RefusedError(f"has a part that is not a single value; write values such as {self.like}")
        return self.check(value)


def refuse_switch(text: str, fix: str) -> None:
    """Refuse what YAML takes for true or false, in an option where it would mean something unintended. Raises RefusedError."""
    if text.strip().lower() in _SWITCHES:
        raise RefusedError(f"is a switch, but this option is not one; {fix}")


def closest(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """The known word that was probably meant. `likeness`: from 0 to 1, that it must have at least."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=likeness)
    return near[0] if near else None


def printable(text: str, limit: int = 60) -> str:
    """The text on one line, cut when it is long, in quotes when its ends could not be seen."""
    shown = text if len(text) <= limit else f"{text[: limit - 1]}…"
    seen = visible(shown)
    return f'"{seen}"' if seen != shown or not shown or shown != shown.strip() else shown
