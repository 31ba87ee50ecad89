"""Resource usage of a process, from proc(5)."""

from __future__ import annotations

import os
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
