"""The health of a running node, put together from its parts."""

from __future__ import annotations

import os
import time

from shardd import __version__
from shardd.states import ShardState
from shardd.supervisor.admin.problems import ProblemKind
from shardd.supervisor.admin.status import QueueStatus, Status, problems_of, shard_status, sum_up
from shardd.supervisor.parts import Parts
from shardd.supervisor.scheduling.device_queue import DeviceQueue


def node_status(
    parts: Parts, *, state: str, started_at: float, notes: list[str], database: str, queue: QueueStatus | None
) -> Status:
    """See `shardd.supervisor.admin.status.Status`."""
    config = parts.rules.config
    by_shard: dict[int, list[DeviceQueue]] = {shard.index: [] for shard in parts.workers.shards}
    for device in parts.scheduler.by_id.values():
        by_shard[device.shard].append(device)
    shards = [
        shard_status(
            shard,
            by_shard[shard.index],
            parts.router.shard_totals.get(shard.index, {}),
            parts.router.in_flight_count(shard.index),
        )
        for shard in parts.workers.shards
    ]
    # Why a blocked one waits is told by whoever blocks it.
    told = [status for status, shard in zip(shards, parts.workers.shards, strict=True) if shard.blocked is None]
    problems = problems_of(told, database_error=parts.router.database_error, leases_known=parts.keeper.known())
    problems += [problem for part in parts.reporters for problem in part.problems()]
    sandbox = sum(device.device.transport == "sandbox" for device in parts.scheduler.by_id.values())
    return Status(
        version=__version__,
        node=config.node,
        pid=os.getpid(),
        state=state,
        healthy=state == "running" and not problems,
        problems=[problem.text for problem in problems],
        problem_kinds={kind.value: sum(problem.kind is kind for problem in problems) for kind in ProblemKind},
        notes=[*notes, *_troubles(parts.scheduler.resting(time.monotonic()))],
        started_at=started_at,
        now=time.time(),
        database=database,
        config=str(config.source) if config.source else None,
        shards=shards,
        totals=sum_up(shards, sandbox_devices=sandbox),
        queue=queue,
    )


def _troubles(resting: list[tuple[DeviceQueue, str]]) -> list[str]:
    """In a sentence, because thousands may lie behind one proxy."""
    if not resting:
        return []
    queue, trouble = resting[0]
    devices = "1 device rests" if len(resting) == 1 else f"{len(resting):,} devices rest"
    return [f"{devices} after a trouble; {queue.device.id}: {trouble}"]


def has_started(parts: Parts) -> bool:
    """Whether every shard of this node runs or has failed, and at least one runs. A blocked one waits for a person."""
    shards = [shard for shard in parts.workers.shards if shard.epoch is not None and shard.blocked is None]
    settled = (ShardState.RUNNING, ShardState.BROKEN, ShardState.BACKOFF, ShardState.DRAINED)
    running = any(shard.state is ShardState.RUNNING for shard in shards)
    return (running or not shards) and all(shard.state in settled for shard in shards)


def in_one_line(status: Status) -> str:
    """For systemd: 14/16 shards, 2871/3000 devices, 12.5/s."""
    mine = [shard for shard in status.shards if shard.epoch is not None]
    running = sum(shard.state == ShardState.RUNNING for shard in mine)
    totals = status.totals
    return f"{running}/{len(mine)} shards, {totals.ready}/{totals.devices} devices, {totals.sent_per_second:g}/s"
