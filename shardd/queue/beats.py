"""What a node remembers of its renewals, apart from the database: whoever knows its last beat is the node.

A beat is a random number, which each renewal replaces by the next one. Of two machines that were resumed from one snapshot, at
most one can replace it: the other one learns that somebody else is what it was. An answer of the database that is lost does no
harm: the next beat is remembered before it is sent, and sent again.

The same memory shows that the database is older than it was, or the state folder (`shardd.queue.lives`).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final
from uuid import UUID

from shardd.postgres.servers import Identity

SMALL_GAP: Final = 600.0
"""Seconds: what a fail-over lost is a small gap if it is younger than this. Of so much, nodes remember what they sent."""


@dataclass(frozen=True, slots=True)
class WentBack:
    """The database has lost what it had acknowledged."""

    lost_beats: int
    """Renewals of this node that it does not know."""
    seconds: float | None
    """Between the last renewal that it knows and the last one that it had acknowledged; None: it does not know this node."""
    timeline_changed: bool
    """It is a server that was promoted since."""

    @property
    def is_small(self) -> bool:
        """Whether it is a fail-over to a standby that was behind for less than what nodes remember."""
        return self.timeline_changed and self.seconds is not None and self.seconds < SMALL_GAP

    @property
    def how_much(self) -> str:
        """In words."""
        if self.seconds is None:
            return f"it does not know this node, which has renewed its leases {self.lost_beats} times"
        seconds = round(self.seconds)
        if seconds < 120:
            return f"by about {seconds} s"
        return f"by about {seconds // 60} min" if seconds < 7200 else f"by about {seconds // 3600} h"


class BeatMemory:
    """The last beat that the database has acknowledged, and the one that it may have stored since."""

    def __init__(self) -> None:
        self.beats = 0
        """How many there were; 0: nothing is remembered."""
        self.at = 0.0
        """When the last one was stored, by the database's clock."""
        self.life = 0.0
        """When the database's life of that time began (`shardd.queue.lives`)."""
        self.server: Identity | None = None
        """Which server it was; None: unknown."""
        self.lost: WentBack | None = None
        """What the last fail-over lost of it; None: nothing."""
        self.beat: UUID | None = None
        self.next: UUID | None = None
        self.known: UUID | None = None
        """What a database that has lost the last ones has instead."""

    def beats_known(self) -> list[UUID]:
        """Those that may be the node's last one."""
        return [beat for beat in (self.beat, self.next, self.known) if beat is not None]

    async def intend(self) -> None:
        """The next beat is about to be sent, perhaps again."""
        if self.next is None:
            self.next = _draw()

    async def acknowledge(self, beats: int, at: float, life: float, server: Identity | None) -> None:
        """The database has stored it."""
        self.beats, self.at, self.life, self.server = beats, at, life, server
        self.beat, self.next, self.known = self.next, None, None


def _draw() -> UUID:
    """Not random numbers alone: two machines that were resumed from one snapshot begin with the same ones."""
    clocks = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.monotonic_ns()
    return UUID(bytes=blake2b(os.urandom(16) + repr(clocks).encode(), digest_size=16).digest())
