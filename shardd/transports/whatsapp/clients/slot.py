"""A device's place in the pool of clients."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from shardd.transports.whatsapp.clients.client import Client
from shardd.transports.whatsapp.clients.closing import OpenClient
from shardd.transports.whatsapp.messages.failures import Failure

LATE: Final = 1.25
"""Within how many of its gaps the next job of a device comes: claims wait for others, too."""
HOLD: Final = 1.0
"""Seconds between prepare and deliver in which a client is not closed."""


@dataclass(eq=False)
class ClientSlot:
    """Its lock, its client if there is one, and when that was used. Times are the event loop's.

    Made once for each device and never removed: a task may be waiting for its lock.
    """

    device_id: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    client: Client | None = None
    in_use: int = 0
    used_at: float = 0.0
    session: str | None = None
    digest: str | None = None
    """Of the session's keys."""
    gone: Failure | None = None
    """What ended the session, until the device has another or is paired again."""
    presence_at: float | None = None
    attended: Client | None = None
    """The client that hears what waited for it; see `visits`."""
    expected_at: float | None = None
    """When its device will have sent again; None: unknown."""
    visited_since: float | None = None
    """When it was used before a visit, if only that uses it now."""
    _held_until: float = 0.0

    def touch(self) -> None:
        """It was used just now."""
        self.used_at, self.visited_since = asyncio.get_running_loop().time(), None

    def hold(self) -> None:
        """It is about to be used: do not close it for a moment."""
        self._held_until = asyncio.get_running_loop().time() + HOLD

    def expect(self, again: float | None) -> None:
        """It will be used again within so many seconds; None: unknown."""
        self.expected_at = None if again is None else asyncio.get_running_loop().time() + again * LATE

    def release(self) -> None:
        """A use is over."""
        self.in_use -= 1
        self._held_until = 0.0
        self.touch()

    def facts(self) -> OpenClient | None:
        """What is known about its client; None: it has none."""
        if self.client is None:
            return None
        busy = bool(self.in_use) or self.lock.locked() or self._held_until > asyncio.get_running_loop().time()
        undelivered, at = self.client.recent.undelivered()
        return OpenClient(
            self.device_id, self.used_at, busy, self.attended is not None, undelivered, at, self.expected_at
        )
