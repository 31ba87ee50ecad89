"""What this host gives to shardd, or the service or container that it runs in: memory and threads."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")


def memory() -> int:
    """Bytes that shardd's processes may take, together with what else runs there."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *_limits("memory.max"), *_limits("memory.high")])


def threads() -> int | None:
    """Threads that all of them may have together; None: no limit is known."""
    limits = list(_limits("pids.max"))
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if os.getuid() and soft != resource.RLIM_INFINITY:  # it does not hold for root
        limits.append(soft)
    return min(limits, default=None)


def _limits(name: str) -> Iterator[int]:
    """The limits of the control group (version 2) of this process and of those above it: cgroups(7)."""
    for folder in _groups():
        with suppress(OSError, ValueError):  # not there, or "max"
            yield int((folder / name).read_text())


def _groups() -> Iterator[Path]:
    try:
        rows = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for row in rows:
        if row.startswith("0::/"):
            own = Path(row.removeprefix("0::/"))
            yield from (CGROUPS / each for each in (own, *own.parents))
