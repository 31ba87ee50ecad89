"""What people write into the fields of a form."""

from __future__ import annotations

from aiohttp import web

from shardd.errors import UsageError


async def text_of(request: web.Request, name: str, most: int) -> str | None:
    """A field of the request's form, without the space around it; None: empty, or not there. Raises UsageError."""
    value = (await request.post()).get(name, "")
    text = value.strip() if isinstance(value, str) else ""
    if "\0" in text:
        raise UsageError(f"{name}: contains a NUL byte, which no text has; remove it")
    if len(text) > most:
        raise UsageError(f"{name}: has {len(text):,} characters; use at most {most:,}")
    return text or None
