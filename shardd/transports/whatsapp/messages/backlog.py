"""The messages that waited at WhatsApp while a device was not logged in.

They come right after the login, between an announcement of how many they are and a word that these were all. One of them may say
that its writer wants no more messages, so the first send of a client waits until they have been handed over.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

ANNOUNCED: Final = 3.0
"""Seconds that announced messages may take to come."""
UNANNOUNCED: Final = 0.5
"""Seconds that the announcement may take, or the word that nothing waited."""


class Backlog:
    """Of one client; its two events come from the library."""

    def __init__(self) -> None:
        self._messages = 0
        self._over = asyncio.Event()

    def announced(self, event: Any) -> None:
        """How much waits."""
        self._messages = event.Message

    def handed_over(self, _: Any) -> None:
        """That was all."""
        self._over.set()

    def give_up(self) -> None:
        """The connection is gone: nothing more comes."""
        self._over.set()

    async def wait(self) -> None:
        """Until it is handed over, or has kept us waiting for long enough; the second time at once."""
        if self._over.is_set():
            return
        began = asyncio.get_running_loop().time()
        await self._wait_until(began + UNANNOUNCED)
        if self._messages and not self._over.is_set():
            await self._wait_until(began + ANNOUNCED)
        self._over.set()

    async def _wait_until(self, end: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await self._over.wait()
