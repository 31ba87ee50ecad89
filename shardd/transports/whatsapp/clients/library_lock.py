"""Who may be inside the library's maps: one who writes, or any number who read.

The library keeps its clients in Go maps without locks. Connecting and stopping write to them, every other call reads them as its
first step, and Go ends the whole process when it notices the two at once. One processor (GOMAXPROCS=1) makes that rare, not
impossible: a map that grows allocates, and an allocation may have to wait for the garbage collector, in the middle of a
write. So writes are made alone, and whoever only reads passes here first. It costs a connect the few milliseconds in which
the library opens its database, and others nothing while nobody connects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

ENTRY: Final = 0.02
"""Seconds after which a call has surely looked up its client; it is not awaited any further."""
PATIENCE: Final = 2.0
"""Seconds that one writer may keep the others out, should the library hang there."""


class LibraryLock:
    """One for each event loop that uses the library."""

    def __init__(self) -> None:
        self._door = asyncio.Lock()
        self._readers = 0
        self._empty = asyncio.Event()
        self._empty.set()

    async def begin(self, call: Callable[[], asyncio.Future[Any]]) -> asyncio.Future[Any]:
        """Start a call that only reads; returns when it has surely read, or is done."""
        async with self._door:
            self._readers += 1
            self._empty.clear()
        try:
            running = call()
            await asyncio.wait([running], timeout=ENTRY)
            return running
        finally:
            self._readers -= 1
            if not self._readers:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """While this is held nobody else is in the maps."""
        async with self._door:
            await self._empty.wait()
            yield
