"""When a worker has spent its budget: the WhatsApp library leaks a little memory and two file descriptors with every connect."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Final

from shardd.config import RecycleConfig
from shardd.ipc import Heartbeat
from shardd.states import ShardState
from shardd.supervisor.shard import Shard

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


def next_to_recycle(shards: Sequence[Shard], budget: RecycleConfig) -> tuple[Shard, str] | None:
    """A shard whose worker should be replaced and why: one at a time, and only while all others are well."""
    if any(s.epoch is not None and not s.held and s.state is not ShardState.RUNNING for s in shards):
        return None
    for shard in shards:
        beat = shard.process.beat if shard.process is not None else None
        if beat is not None and shard.state is ShardState.RUNNING and (what := spent(beat, budget)) is not None:
            return shard, what
    return None
