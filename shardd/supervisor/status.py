"""The health of a node as plain data: what `shardd status`, the control socket and the metrics page show.

The shape is stable: fields are added, never renamed. Times are POSIX seconds, durations seconds, sizes bytes.
"""

from __future__ import annotations

import msgspec


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
    """How many problems there are of each kind (`shardd.supervisor.problems.ProblemKind`), of every kind."""
    problems_by_kind: dict[str, list[str]]
    """The same texts as in `problems`, of the kinds that have any."""
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
