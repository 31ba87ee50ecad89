"""What a browser sends as the value of a field, read with errors in words; and links with such values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from shardd.errors import UsageError

LONGEST: Final = 200
"""Characters of a value."""
QUOTED: Final = 40
"""Characters of a wrong value that an error repeats."""
BIGGEST_ID: Final = 2**63 - 1
Choice = TypeVar("Choice", bound=StrEnum)


def text(values: Mapping[str, Any], name: str, *, longest: int = LONGEST) -> str | None:
    """The text of a field; None: it is empty. Raises UsageError."""
    value = str(values.get(name) or "").strip()
    if len(value) > longest:
        raise UsageError(f"{name} has {len(value):,} characters: write at most {longest}")
    if "\0" in value:
        raise UsageError(f"{name} has a NUL character: write it without")
    return value or None


def choice(values: Mapping[str, Any], name: str, choices: Iterable[Choice]) -> Choice | None:
    """One of some words; None: it is empty. Raises UsageError."""
    value = text(values, name)
    by_word = {one.value: one for one in choices}
    if value is not None and value not in by_word:
        raise UsageError(f"{name} is {value[:QUOTED]!r}: choose one of {', '.join(by_word)}")
    return None if value is None else by_word[value]


def word(values: Mapping[str, Any], name: str, words: Iterable[str]) -> str | None:
    """`choice` for plain words."""
    value, known = text(values, name), list(words)
    if value is not None and value not in known:
        raise UsageError(f"{name} is {value[:QUOTED]!r}: choose one of {', '.join(known)}")
    return value


def number(values: Mapping[str, Any], name: str, *, most: int = BIGGEST_ID) -> int | None:
    """A whole number from 0; None: it is empty. Raises UsageError."""
    value = text(values, name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or int(value) > most:
        raise UsageError(f"{name} is {value[:QUOTED]!r}: write a whole number up to {most}")
    return int(value)


def link(path: str, values: Mapping[str, Any]) -> str:
    """The path with those of these values that there are."""
    given = {name: value for name, value in values.items() if value not in (None, "", False)}
    return f"{path}?{urlencode(given)}" if given else path
