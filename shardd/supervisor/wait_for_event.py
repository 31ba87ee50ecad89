"""Waiting for an event with a timeout, and wake-ups that cost the same however often somebody asks for them."""

from __future__ import annotations

import asyncio
from typing import Final

SHARE: Final = 4.0
"""Work that somebody asks for again and again leaves this many times its own duration to everything else."""


async def wait_for_event(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for an event, at most so many seconds (None: without end), and tell whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


class WakeUp:
    """Begins periodic work early when somebody asks for it, but never more often than `spacing` allows.

    The first request is granted at once. Those that follow are coalesced: the work begins `spacing` seconds after it began
    before, or later if it takes long. So strangers who ask a thousand times a second cause a bounded load. A `burst` of requests
    may come closer to each other, as long as the work leaves its share of time; one more may each `spacing` seconds.
    """

    def __init__(self, spacing: float, burst: int = 0) -> None:
        self._spacing = spacing
        self._burst = burst
        self._left = float(burst)
        self._event = asyncio.Event()
        self._began = float("-inf")

    def set(self) -> None:
        """Ask for the work; costs next to nothing."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Until the work should begin: after `seconds`, or earlier if somebody asks. Tells whether somebody did."""
        loop = asyncio.get_running_loop()
        ended = loop.time()
        deadline = ended + seconds
        spacing = 0.0 if self._left >= 1.0 else self._spacing
        earliest = self._began + max(spacing, (1 + SHARE) * (ended - self._began)) if self._began >= 0 else ended
        await asyncio.sleep(min(earliest, deadline) - ended)
        asked = await wait_for_event(self._event, max(0.0, deadline - loop.time()))
        self._event.clear()
        before, self._began = self._began, loop.time()
        if before >= 0:
            self._left = min(self._burst, self._left + (self._began - before) / self._spacing) - asked
        return asked
