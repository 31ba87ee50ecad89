"""When a worker has spent its budget: the WhatsApp library leaks a little memory and two file descriptors with every connect."""

from __future__ import annotations

import resource
from typing import Final

from shardd.config import RecycleConfig
from shardd.ipc import Heartbeat

FDS_SHARE: Final = 0.7
"""Of the limit (RLIMIT_NOFILE): the budget where the config names none."""


def spent(beat: Heartbeat, budget: RecycleConfig) -> str | None:
    """What is spent, in words; None while all is within the budget."""
    fds = budget.fds or int(FDS_SHARE * resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    over = [
        f"{name} {value} of {most}"
        for name, value, most in (
            ("connects", beat.connects, budget.connects),
            ("fds", beat.fds, fds),
            ("rss", beat.rss, budget.rss),
        )
        if 0 < most <= value
    ]
    return ", ".join(over) or None
