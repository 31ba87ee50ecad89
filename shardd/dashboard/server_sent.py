"""Server-sent events (WHATWG HTML, 9.2): the answer that carries them, and how one is written."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from shardd.dashboard.site import HEADERS

ALIVE: Final = b":\n\n"
"""A comment, which says that the stream is there."""


def stream_of_events() -> web.StreamResponse:
    """The answer, to be prepared and written to; a proxy does not hold it back."""
    return web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})


def as_event(name: str, html: str) -> bytes:
    """An event with a part of a page."""
    lines = "".join(f"data: {line}\n" for line in html.splitlines()) or "data:\n"
    return f"event: {name}\n{lines}\n".encode()
