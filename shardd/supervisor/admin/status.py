"""The health of a node as plain data: what `shardd status`, the control socket and the metrics page show.

The shape is stable: fields are added, never renamed. Times are POSIX seconds, durations seconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from shardd.states import ShardState, Verdict
from shardd.supervisor.admin.problems import Problem, ProblemKind
from shardd.supervisor.scheduling.device_queue import DeviceQueue
from shardd.supervisor.workers.shard import Shard


class ShardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One shard."""

    shard: int
    state: str
    since: float
    epoch: int | None
    """Of its lease; None: another node has it, or nobody."""
    pid: int | None
    devices: int
    ready: int
    """Devices whose state lets them send."""
    parked: int
    """Devices whose jobs wait: paused, or in a state that cannot send."""
    open_clients: int
    in_flight: int
    sent: int
    failed: int
    in_doubt: int
    sent_per_second: float
    restarts: int
    lag: float | None
    heartbeat_age: float | None
    rss: int | None
    fds: int | None
    connects: int | None
    error: str | None


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The live table; `as_of` says when it was counted."""

    queued: int
    scheduled: int
    sending: int
    oldest_due_age: float | None
    """Since when the oldest job is due whose device may send: not paused, parked, at a limit, in quiet hours or backing off."""
    as_of: float
    running_campaigns: int = 0
    """Campaigns that have live jobs, of all nodes; so the next."""
    paused_campaigns: int = 0
    paused_jobs: int = 0
    """Of the paused campaigns."""
    in_doubt: int = 0
    """Jobs in doubt that wait for a decision now, of all nodes."""


class WebhookStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook that this node delivers for."""

    name: str
    failing: bool
    """Its receiver has not taken events for several tries, or it is disabled."""
    disabled: bool
    """After a 410: nothing is sent until `shardd webhook retry`."""
    behind: float | None
    """For how long the oldest event that is to be delivered has waited; None: disabled, so that nobody knows."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the shards of this node, since its supervisor started."""

    devices: int
    ready: int
    parked: int
    sandbox_devices: int
    open_clients: int
    in_flight: int
    sent: int
    failed: int
    in_doubt: int
    sent_per_second: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A node."""

    version: str
    node: str
    pid: int
    state: str
    """starting, running or stopping."""
    healthy: bool
    problems: list[str]
    """Why it is not healthy, in words."""
    problem_kinds: dict[str, int]
    """How many problems there are of each kind (`shardd.supervisor.admin.problems.ProblemKind`), of every kind."""
    notes: list[str]
    """What a person should know though it is healthy, such as a config file that was refused."""
    started_at: float
    now: float
    database: str
    """embedded, or where the server is."""
    config: str | None
    shards: list[ShardStatus]
    totals: Totals
    queue: QueueStatus | None
    webhooks: list[WebhookStatus] = []
    """Those that this node delivers for."""


def problems_of(shards: list[ShardStatus], *, database_error: str | None, leases_known: bool) -> list[Problem]:
    """What keeps a node from being healthy; a shard that an operator drained is not a problem, nor one of another node."""
    problems = []
    if database_error:
        problems.append(Problem(ProblemKind.DATABASE, f"database: {database_error}"))
    elif not leases_known:
        problems.append(Problem(ProblemKind.LEASES, "leases cannot be renewed: nothing is claimed"))
    fine = (ShardState.RUNNING, ShardState.DRAINED)
    problems += [
        Problem(ProblemKind.SHARD, f"shard {s.shard} is {s.state}" + (f": {s.error}" if s.error else ""))
        for s in shards
        if s.epoch is not None and s.state not in fine
    ]
    return problems


def shard_status(
    shard: Shard, scheduler: Sequence[DeviceQueue], totals: Mapping[str, int], in_flight: int
) -> ShardStatus:
    """One shard, from what the workers, the scheduler and the router know."""
    process = shard.process
    beat = process.beat if process is not None else None
    ready = sum(1 for queue in scheduler if queue.can_send)
    return ShardStatus(
        shard=shard.index,
        state=shard.state.value,
        since=shard.since,
        epoch=shard.epoch,
        pid=process.pid if process is not None else None,
        devices=len(scheduler),
        ready=ready,
        parked=len(scheduler) - ready,
        open_clients=beat.open_clients if beat is not None else 0,
        in_flight=in_flight,
        sent=totals.get(Verdict.SENT, 0),
        failed=totals.get(Verdict.PERMANENT, 0) + totals.get(Verdict.TRANSIENT, 0),
        in_doubt=totals.get(Verdict.IN_DOUBT, 0),
        sent_per_second=round(shard.rate(), 2),
        restarts=shard.restarts,
        lag=beat.lag if beat is not None else None,
        heartbeat_age=process.silent_for() if beat is not None and process is not None else None,
        rss=beat.rss if beat is not None else None,
        fds=beat.fds if beat is not None else None,
        connects=beat.connects if beat is not None else None,
        error=shard.blocked or shard.last_error,
    )


def sum_up(shards: Sequence[ShardStatus], *, sandbox_devices: int) -> Totals:
    """The node's totals."""
    return Totals(
        devices=sum(s.devices for s in shards),
        ready=sum(s.ready for s in shards),
        parked=sum(s.parked for s in shards),
        sandbox_devices=sandbox_devices,
        open_clients=sum(s.open_clients for s in shards),
        in_flight=sum(s.in_flight for s in shards),
        sent=sum(s.sent for s in shards),
        failed=sum(s.failed for s in shards),
        in_doubt=sum(s.in_doubt for s in shards),
        sent_per_second=round(sum(s.sent_per_second for s in shards), 2),
    )
