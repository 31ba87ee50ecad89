"""What a process costs, as the kernel counts it (proc(5))."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU since its start, all threads together; bytes resident, threads and open files now."""

    cpu: float
    rss: int
    threads: int
    fds: int


def cost_of(pid: int) -> Cost:
    """Raises FileNotFoundError or ProcessLookupError when there is no such process."""
    folder = Path("/proc") / str(pid)
    # The name in parentheses may hold spaces; fields are counted behind it: 14 utime, 15 stime, 20 num_threads, 24 rss.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return Cost(
        cpu=(int(fields[11]) + int(fields[12])) / _TICKS,
        rss=int(fields[21]) * _PAGE,
        threads=int(fields[17]),
        fds=sum(1 for _ in (folder / "fd").iterdir()),
    )
