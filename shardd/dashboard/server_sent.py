"""Server-sent events (WHATWG HTML, 9.2): the answer that carries them, and how one is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from aiohttp import web

from shardd.dashboard.site import HEADERS

ALIVE: Final = b":\n\n"
"""A comment, which says that the stream is there."""
TAKES: Final = 10.0
"""Seconds in which a client must have taken what it is sent."""


def stream_of_events() -> web.StreamResponse:
    """The answer, to be prepared and written to; a proxy does not hold it back."""
    return web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})


async def send_stream(request: web.Request, parts: AsyncGenerator[bytes]) -> web.StreamResponse:
    """Answer with these parts, as they come. A client that does not take one loses its connection, and may connect again."""
    answer = stream_of_events()
    await answer.prepare(request)
    try:
        async with aclosing(parts):
            async for part in parts:
                async with asyncio.timeout(TAKES):
                    await answer.write(part)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    return answer


def as_event(name: str, data: str) -> bytes:
    """An event, such as one with a part of a page."""
    lines = "".join(f"data: {line}\n" for line in data.splitlines()) or "data:\n"
    return f"event: {name}\n{lines}\n".encode()


def at_position(position: str) -> bytes:
    """Where a client goes on that connects again; it stands before an event, or alone."""
    return f"id: {position}\n".encode()
