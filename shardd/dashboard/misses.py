"""How many links that do not work were opened from an address: nobody can guess one, and none is to keep the database busy."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

WINDOW: Final = 60.0
"""Seconds after which an address begins anew."""
MOST: Final = 30
"""In that time. Many people may share an address."""
REMEMBERED: Final = 10_000
"""Addresses; the oldest makes room."""


class Misses:
    """Counts them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def are_too_many(self, address: str) -> bool:
        """Whether this address has to wait."""
        return self._count(address)[1] >= MOST

    def add(self, address: str) -> None:
        """Another one."""
        began, count = self._count(address)
        self._counts[address] = (began, count + 1)
        while len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)

    def _count(self, address: str) -> tuple[float, int]:
        began, count = self._counts.get(address, (self._clock(), 0))
        if self._clock() >= began + WINDOW:
            self._counts.pop(address, None)
            return self._clock(), 0
        return began, count
