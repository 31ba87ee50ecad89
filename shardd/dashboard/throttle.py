"""How fast passwords may be tried: each address, and each name, waits longer with every failure.

Nobody can lock somebody else out. An address that has not failed lately may always try, whatever was tried with that name from
other ones; so may one from which the user has signed in before, as far as its own failures allow. The links of
`shardd dashboard link` are never slowed.

A try counts as a failure from its beginning on, so that many at once count as many.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from shardd.addresses import read_address
from shardd.bounded import remember

FREE: Final = 4
"""Failures of an address that cost no wait."""
FREE_OF_NAME: Final = 10
LONGEST: Final = 900.0
"""Seconds that an address waits, at most."""
LONGEST_OF_NAME: Final = 60.0
FORGET: Final = 3600.0
"""Seconds without a failure after which those before do not count."""
MOST: Final = 20_000
"""Addresses and names that are remembered; the longest unchanged one makes room."""


@dataclass(slots=True)
class _Count:
    failures: int = 0
    last_at: float = 0.0


class Throttle:
    """Counts failures."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, name: str, address: str) -> float:
        """Seconds until this may be tried; 0: now."""
        block = block_of(address)
        own = self._count("address", block)
        left = self._left(own, FREE, LONGEST)
        if own.failures == 0 or (name, block) in self._known:
            return left
        return max(left, self._left(self._count("name", name), FREE_OF_NAME, LONGEST_OF_NAME))

    def rank(self, name: str, address: str) -> int:
        """Who comes first when many try: 0 from where the user has signed in before, then by the failures of the address."""
        block = block_of(address)
        return 0 if (name, block) in self._known else 1 + self._count("address", block).failures

    def begin(self, name: str, address: str) -> None:
        """It is tried."""
        now = self._clock()
        for kind, key in (("address", block_of(address)), ("name", name)):
            count = self._count(kind, key)
            count.failures += 1
            count.last_at = now
            remember(self._counts, (kind, key), count, MOST)

    def withdrawn(self, name: str, address: str) -> None:
        """It was not tried after all."""
        for kind, key in (("address", block_of(address)), ("name", name)):
            self._count(kind, key).failures -= 1

    def succeeded(self, name: str, address: str) -> None:
        """It was no failure. Those of the address with other names still count."""
        block = block_of(address)
        self._counts.pop(("name", name), None)
        self._count("address", block).failures -= 1
        remember(self._known, (name, block), None, MOST)

    def _count(self, kind: str, key: str) -> _Count:
        count = self._counts.get((kind, key))
        return count if count is not None and self._clock() < count.last_at + FORGET else _Count()

    def _left(self, count: _Count, free: int, longest: float) -> float:
        if count.failures < free:
            return 0.0
        # 2^20 seconds are far beyond any limit, and no number that overflows.
        wait = min(longest, 2.0 ** min(20, count.failures - free + 1))
        return max(0.0, count.last_at + wait - self._clock())


def block_of(address: str) -> str:
    """What one host has: an IPv4 address, or 2^64 IPv6 ones."""
    found = read_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return address
