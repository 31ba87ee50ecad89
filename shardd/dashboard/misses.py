"""How often an address tried links or tokens that do not work: nobody can guess one, or keep the database busy by trying."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from shardd.bounded import remember

WINDOW: Final = 60.0
"""Seconds after which an address begins anew."""
REMEMBERED: Final = 10_000
"""Addresses; the one that was quiet longest makes room."""


class Misses:
    """Counts them."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`most`: of an address within `WINDOW`. Many people may share one."""
        self._most = most
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds that this address has to wait; 0: none."""
        began, count = self._count(address)
        return max(0.0, began + WINDOW - self._clock()) if count >= self._most else 0.0

    def add(self, address: str) -> None:
        """Another one."""
        began, count = self._count(address)
        remember(self._counts, address, (began, count + 1), REMEMBERED)

    def _count(self, address: str) -> tuple[float, int]:
        began, count = self._counts.get(address, (self._clock(), 0))
        if self._clock() >= began + WINDOW:
            self._counts.pop(address, None)
            return self._clock(), 0
        return began, count
