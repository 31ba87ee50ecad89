"""Receives notifications, which anyone who may connect to the database can send, in any number and with any text.

A notification is never trusted: it only causes a table to be read sooner, and each table is polled anyway. So a flood is ignored:
the connection is closed for a while. Leaving it open and unread would fill the server's notification queue, which would stop
every producer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from shardd.logs import get_logger
from shardd.queue.database import Database
from shardd.supervisor.services import Service, Step

log = get_logger(__name__)

BURST: Final = 1000
"""Notifications that are accepted in a row, however fast they arrive."""
RATE: Final = 500.0
"""Notifications per second that are accepted for any time: some 20 µs of work each."""
IGNORED_FOR: Final = 2.0
"""Seconds for which a flooded channel is ignored."""
REMEMBERED: Final = 30.0
"""Seconds for which `shardd status` shows a flood after its end."""


class NotificationListener(Service):
    """Listens to some channels until cancelled."""

    def __init__(self, database: Database, *channels: str, heard: Callable[[str], None], step: Step) -> None:
        """`heard` is called with each notification's text, and with an empty one whenever some may have been missed."""
        self._database = database
        self._channels = channels
        self._heard = heard
        self._step = step
        self._left = float(BURST)
        self._counted = time.monotonic()
        self._flooded = float("-inf")

    async def serve(self) -> None:
        """Listen until cancelled."""
        while True:
            await self._listen()
            if time.monotonic() >= self._flooded + REMEMBERED:
                log.warning("notifications arrive too fast and are ignored", action="listen", channels=self._channels)
            self._flooded = time.monotonic()
            await asyncio.sleep(IGNORED_FOR)

    def notes(self) -> list[str]:
        """A recent flood, for the status."""
        if time.monotonic() >= self._flooded + REMEMBERED:
            return []
        text = (
            f"notifications on {', '.join(self._channels)} arrive faster than {RATE:g} per second: they are ignored, and the "
            "tables are polled instead. If none of your programs is that busy, check who is connected (pg_stat_activity)"
        )
        return [text]

    async def _listen(self) -> None:
        """Until notifications come too fast."""
        async with aclosing(self._database.listen(*self._channels)) as events:
            async for event in events:
                if event.kind == "lost":
                    self._step.failed(event.text, unanswered=True)
                    continue
                if event.kind == "connected":
                    self._step.succeeded()
                elif not self._accepts():
                    return
                self._heard(event.text)

    def _accepts(self) -> bool:
        now = time.monotonic()
        self._left = min(float(BURST), self._left + RATE * (now - self._counted)) - 1.0
        self._counted = now
        return self._left >= 0
