"""Waiting for news, but not for ever."""

from __future__ import annotations

import asyncio


async def has_come(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for an event, at most so many seconds (None: without end), and tell whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
