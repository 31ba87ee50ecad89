"""Resource usage of processes, from proc(5)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cost:
    """CPU seconds since its start, and its resident bytes, threads and open files now."""

    cpu: float
    rss: int
    threads: int
    fds: int


def cost_of(pid: int) -> Cost:
    """Raises FileNotFoundError or ProcessLookupError if the process does not exist."""
    folder = Path("/proc") / str(pid)
    # The name in parentheses may contain spaces; fields are counted after it: 14 utime, 15 stime, 20 num_threads, 24 rss.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return Cost(
        cpu=(int(fields[11]) + int(fields[12])) / _TICKS,
        rss=int(fields[21]) * _PAGE,
        threads=int(fields[17]),
        fds=sum(1 for _ in (folder / "fd").iterdir()),
    )


class Usage:
    """What processes used together since the first look, also those that others replaced meanwhile."""

    def __init__(self) -> None:
        self._begins: dict[int, float] | None = None
        self._now: dict[int, float] = {}
        self._ended = 0.0
        self.replaced = 0
        """Processes that were named once and are no more."""
        self.first = 0
        """Resident bytes of all at the first look."""
        self.peak = 0
        """The most that all had together."""
        self.largest = 0
        """The most that one had."""

    def look(self, pids: Iterable[int]) -> None:
        """`pids`: of the processes that run now."""
        costs = {}
        for pid in pids:
            with suppress(FileNotFoundError, ProcessLookupError):
                costs[pid] = cost_of(pid)
        together = sum(cost.rss for cost in costs.values())
        if self._begins is None:
            self._begins = {pid: cost.cpu for pid, cost in costs.items()}
            self.first = together
        # Only processes that are named now: the number of one that has ended may be another's by now.
        for pid in self._now.keys() - costs.keys():
            self._ended += self._now.pop(pid) - self._begins.pop(pid, 0.0)
            self.replaced += 1
        self._now |= {pid: cost.cpu for pid, cost in costs.items()}
        self.peak = max(self.peak, together)
        self.largest = max([self.largest, *(cost.rss for cost in costs.values())])

    @property
    def cpu(self) -> float:
        """CPU seconds."""
        return self._ended + sum(self._now.values()) - sum((self._begins or {}).values())
