"""What people write into the fields of a form, and what links carry."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from shardd.errors import UsageError

MOST_DIGITS: Final = 18
"""Of a number that fits the database's."""


async def text_of(request: web.Request, name: str, most: int) -> str | None:
    """A field of the request's form, without the space around it; None: empty, or not there. Raises UsageError."""
    value = (await request.post()).get(name, "")
    text = value.strip() if isinstance(value, str) else ""
    if "\0" in text:
        raise UsageError(f"{name}: contains a NUL byte, which no text has; remove it")
    if len(text) > most:
        raise UsageError(f"{name}: has {len(text):,} characters; use at most {most:,}")
    return text or None


def number_of(text: str | None, name: str) -> int | None:
    """A number that a link of a page carries; None: empty. Raises UsageError."""
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > MOST_DIGITS:
        raise UsageError(f"{name}: {text[:40]!r} is not a number; write digits")
    return int(text)
