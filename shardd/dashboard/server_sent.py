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


def as_event(name: str, data: str) -> bytes:
    """An event, such as one with a part of a page."""
    lines = "".join(f"data: {line}\n" for line in data.splitlines()) or "data:\n"
    return f"event: {name}\n{lines}\n".encode()


def at_position(position: str) -> bytes:
    """Where a client goes on that connects again; it stands before an event, or alone."""
    return f"id: {position}\n".encode()
