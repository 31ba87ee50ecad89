"""A device's place among the clients of a worker: its lock, its client while it has one, and when that was used."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from shardd.transports.whatsapp.clients.client import Client
from shardd.transports.whatsapp.messages.failures import Trouble

HOLD: Final = 1.0
"""Seconds between preparing and handing over in which a client is not closed."""


@dataclass(eq=False)
class ClientSlot:
    """Made once for each device and never thrown away: somebody may be waiting for its lock. Times are the event loop's."""

    device_id: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    client: Client | None = None
    in_use: int = 0
    used_at: float = 0.0
    session: str | None = None
    gone: Trouble | None = None
    """What ended the session, until the device comes back with another or is paired anew."""
    _held_until: float = 0.0

    def touch(self) -> None:
        """It was used just now."""
        self.used_at = asyncio.get_running_loop().time()

    def hold(self) -> None:
        """It is about to be used: spare it for a moment."""
        self._held_until = asyncio.get_running_loop().time() + HOLD

    def release(self) -> None:
        """A use is over."""
        self.in_use -= 1
        self._held_until = 0.0
        self.touch()

    def is_idle(self) -> bool:
        """Whether its client may be closed, as far as its use goes."""
        if self.client is None or self.in_use:
            return False
        return self._held_until <= asyncio.get_running_loop().time()


def least_recently_used(slots: Iterable[ClientSlot]) -> ClientSlot | None:
    """The slot whose client makes room first; None when all are in use."""
    free = (slot for slot in slots if slot.is_idle() and not slot.lock.locked())
    return min(free, key=lambda slot: slot.used_at, default=None)
