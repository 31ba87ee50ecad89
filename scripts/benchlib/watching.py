"""Looks again and again at something that changes, while a benchmark works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def watching(look: Callable[[], Awaitable[None]], every: float) -> AsyncIterator[None]:
    """Look at once, every so many seconds, and once more at the end, which raises if a look has failed."""
    await look()

    async def watch() -> None:
        while True:
            await asyncio.sleep(every)
            await look()

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()):
        raise error
    await look()
