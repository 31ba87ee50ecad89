"""How many file descriptors a process may have, once it has raised its own limit as far as it may."""

from __future__ import annotations

import resource
from typing import Final

UNLIMITED: Final = 2**20
"""Where there is no limit; the kernel allows no more, unless it is told to."""


def most_files() -> int:
    """The hard limit of this process (RLIMIT_NOFILE)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if hard == resource.RLIM_INFINITY else min(hard, UNLIMITED)
