"""When a worker has used up its budget: the WhatsApp library leaks some memory and two file descriptors with every connect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from shardd.config import RecycleConfig
from shardd.file_limit import most_files
from shardd.ipc import StoreAccess
from shardd.states import ShardState
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.workers.process import WorkerProcess
from shardd.supervisor.workers.shard import Shard

FDS_SHARE: Final = 0.7
"""Of the limit: the budget where the config names none."""
GROWTH_SHARE: Final = 0.25
"""Of the memory budget: a worker that has grown by less since its start is not replaced, as the next one would be as large."""
OFTEN: Final = 3
"""Replacements for memory within OFTEN_WITHIN that are reported."""
OFTEN_WITHIN: Final = 900.0
"""Seconds."""


class Spent(NamedTuple):
    """Why a worker should be replaced."""

    text: str
    memory: bool
    """Whether it has grown too large."""


def spent(process: WorkerProcess, budget: RecycleConfig) -> Spent | None:
    """What a worker has used up; None: nothing."""
    beat = process.beat
    if beat is None:
        return None
    fds = budget.fds or int(FDS_SHARE * most_files())
    grown = beat.rss - process.rss_at_start >= budget.rss * GROWTH_SHARE
    over = [
        f"{name} {value} of {most}"
        for name, value, most in (
            ("connects", beat.connects, budget.connects),
            ("fds", beat.fds, fds),
            ("rss", beat.rss if grown else 0, budget.rss),
        )
        if 0 < most <= value
    ]
    return Spent(", ".join(over), memory=grown and 0 < budget.rss <= beat.rss) if over else None


def next_to_recycle(shards: Sequence[Shard], budget: RecycleConfig) -> tuple[Shard, Spent] | None:
    """A shard whose worker should be replaced, and why: one at a time, and only while all others run."""
    if any(s.epoch is not None and not s.held and s.state is not ShardState.RUNNING for s in shards):
        return None
    for shard in shards:
        if shard.process is not None and shard.state is ShardState.RUNNING:
            what = spent(shard.process, budget)
            if what is not None:
                return shard, what
    return None


def memory_problems(shards: Iterable[Shard], budget: RecycleConfig, now: float) -> Iterable[Problem]:
    """Budgets that are too small for what workers need; `now` on the monotonic clock."""
    if not budget.rss:
        return
    small = [
        (shard.index, shard.process.rss_at_start)
        for shard in shards
        if shard.process is not None and shard.process.rss_at_start > budget.rss * (1 - GROWTH_SHARE)
    ]
    if small:
        index, rss = max(small, key=lambda found: found[1])
        enough = _mebibytes(int(rss / (1 - GROWTH_SHARE)) + 1)
        yield Problem(
            ProblemKind.MEMORY,
            f"worker.recycle.rss is {_mebibytes(budget.rss)}, and the worker of shard {index} takes {_mebibytes(rss)} before it "
            "sends anything: it is replaced only when it has grown by a quarter of that setting; "
            f"raise it to {enough} or more",
        )
    for shard in shards:
        times = sum(at > now - OFTEN_WITHIN for at in shard.outgrown)
        if times >= OFTEN:
            yield Problem(
                ProblemKind.MEMORY,
                f"the worker of shard {shard.index} was replaced {times} times within {OFTEN_WITHIN / 60:g} minutes because "
                f"it grew beyond worker.recycle.rss ({_mebibytes(budget.rss)}): raise it if the host has room",
            )


def room_notes(shards: Iterable[Shard], access: StoreAccess) -> list[str]:
    """Workers that are short of room for the clients of devices that send again soon."""
    closed = {
        shard.index: shard.process.beat.gave_way
        for shard in shards
        if shard.process is not None and shard.process.beat is not None and shard.process.beat.gave_way
    }
    if not closed:
        return []
    where = f"shard{'s' * (len(closed) > 1)} {', '.join(map(str, sorted(closed)))}"
    text = (
        f"{where}: {sum(closed.values()):,} WhatsApp clients were closed within five minutes to make room, though their devices "
        f"send again soon, which costs a login each: a worker may have {access.clients:,} open, because of {access.limit}"
    )
    return [text]


def _mebibytes(size: int) -> str:
    return f"{-(-size // 2**20)}MiB"
