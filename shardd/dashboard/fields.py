"""What a browser sends as the value of a field, in an address or a form, read with errors in words; and links with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from aiohttp import web
from multidict import MultiMapping

from shardd.errors import UsageError
from shardd.postgres.snapshots import Snapshot

LONGEST: Final = 200
"""Characters of a value."""
MOST_WHY: Final = 200
"""Characters of why something is done, which is shown with each job that waits for it."""
QUOTED: Final = 40
"""Characters of a wrong value that an error repeats."""
BIGGEST_ID: Final = 2**63 - 1
LONGEST_SNAPSHOT: Final = 5000
"""Characters of a snapshot, which names each open transaction that had written; of an address, at most 8,190 are read."""
Choice = TypeVar("Choice", bound=str)


class FieldError(UsageError):
    """The value of one field cannot be used."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


class LinesError(UsageError):
    """Several lines of a list cannot be used: `text` is about all of them, and `lines` says of each what to write."""

    def __init__(self, text: str, lines: Sequence[str]) -> None:
        super().__init__("; ".join((text, *lines)))
        self.text = text
        self.lines = lines


async def form(request: web.Request) -> MultiMapping[Any]:
    """The fields of a form that was sent. Raises UsageError."""
    try:
        return await request.post()
    # Of aiohttp's parsers: an unknown charset, bytes that are none of it, no boundary, an encoding that does not exist.
    except (LookupError, ValueError, AssertionError, RuntimeError):
        kind = request.headers.get("Content-Type", "")[:QUOTED]
        raise UsageError(
            f"the form cannot be read as {kind!r}: send application/x-www-form-urlencoded or multipart/form-data, in UTF-8"
        ) from None


def text(values: Mapping[str, Any], name: str, *, longest: int = LONGEST) -> str | None:
    """The text of a field, without the space around it; None: it is empty, or not there. Raises UsageError."""
    given = values.get(name)
    value = given.strip() if isinstance(given, str) else ""  # a form may have a file of that name
    if len(value) > longest:
        raise FieldError(name, f"{name} has {len(value):,} characters: write at most {longest:,}")
    if "\0" in value:
        raise FieldError(name, f"{name} has a NUL character: write it without")
    return value or None


def choice(values: Mapping[str, Any], name: str, choices: Iterable[Choice]) -> Choice | None:
    """One of some words; None: it is empty. Raises UsageError."""
    value = text(values, name)
    return None if value is None else _one_of(value, name, choices)


def chosen(values: Mapping[str, Any], name: str, choices: Iterable[Choice]) -> Choice:
    """`choice` where there must be one, such as a part of a path. Raises UsageError."""
    return _one_of(text(values, name) or "", name, choices)


def number(values: Mapping[str, Any], name: str, *, most: int = BIGGEST_ID) -> int | None:
    """A whole number from 0; None: it is empty. Raises UsageError."""
    value = text(values, name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or int(value) > most:
        raise FieldError(name, f"{name} is {value[:QUOTED]!r}: write a whole number up to {most}")
    return int(value)


def moment(values: Mapping[str, Any], name: str) -> datetime | None:
    """A time with its zone, as a page wrote it; None: it is empty. Raises UsageError."""
    value = text(values, name)
    if value is None:
        return None
    with suppress(ValueError):
        found = datetime.fromisoformat(value)
        if found.tzinfo is not None:
            return found
    raise FieldError(name, f"{name} is {value[:QUOTED]!r}: write a time such as 2027-01-31T09:00:00+00:00")


def snapshot(values: Mapping[str, Any], name: str) -> str | None:
    """A snapshot of PostgreSQL, as a page wrote it; None: it is empty. Raises UsageError."""
    value = text(values, name, longest=LONGEST_SNAPSHOT)
    if value is None:
        return None
    with suppress(ValueError):
        Snapshot.read(value)
        return value
    raise FieldError(name, f"{name} is {value[:QUOTED]!r}: load the page again, and press the button there")


def refuse_others(values: MultiMapping[Any], names: Iterable[str]) -> None:
    """Raises UsageError for fields that are none of these, or are given twice: without them, more would be meant."""
    known = list(names)
    for name in values:
        if name not in known:
            raise UsageError(f"{name[:QUOTED]} is unknown here: leave it out, or use {', '.join(known)}")
        if len(values.getall(name)) > 1:
            raise UsageError(f"{name} is given twice: leave one of them out")


def typed(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """What was typed into these fields, for a form that is shown again because one of them is wrong."""
    given = {name: values.get(name) for name in names}
    return {name: value[: 2 * LONGEST] if isinstance(value, str) else "" for name, value in given.items()}


def link(path: str, values: Mapping[str, Any]) -> str:
    """The path with those of these values that there are."""
    given = {name: value for name, value in values.items() if value not in (None, "", False)}
    return f"{path}?{urlencode(given)}" if given else path


def _one_of(value: str, name: str, choices: Iterable[Choice]) -> Choice:
    by_word = {str(one): one for one in choices}
    if value not in by_word:
        raise FieldError(name, f"{name} is {value[:QUOTED]!r}: choose one of {', '.join(by_word)}")
    return by_word[value]
