"""What a supervisor remembers of its renewals: only who knows a node's last beat is that node.

A beat is a random number, which each renewal replaces by the next one. Of two machines that were resumed from one snapshot, at
most one can replace it: the other one learns that somebody else is what it was. An answer of the database that is lost does no
harm: the next beat is remembered before it is sent, and sent again.
"""

from __future__ import annotations

import os
import time
from hashlib import blake2b
from uuid import UUID


class BeatMemory:
    """The last beat that the database has acknowledged, and the one that it may have stored since."""

    def __init__(self) -> None:
        self.beats = 0
        """How many there were."""
        self.at = 0.0
        """When the last one was stored, by the database's clock."""
        self.beat: UUID | None = None
        self.next: UUID | None = None

    async def intend(self) -> None:
        """The next beat is about to be sent, perhaps again."""
        if self.next is None:
            self.next = _draw()

    async def acknowledge(self, beats: int, at: float) -> None:
        """The database has stored it."""
        self.beats, self.at, self.beat, self.next = beats, at, self.next, None


def _draw() -> UUID:
    """Not random numbers alone: two machines that were resumed from one snapshot begin with the same ones."""
    clocks = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.monotonic_ns()
    return UUID(bytes=blake2b(os.urandom(16) + repr(clocks).encode(), digest_size=16).digest())
