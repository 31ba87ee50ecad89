"""The health of a node as plain data: what `shardd status`, the control socket and the metrics page show.

The shape is stable: fields are added, with a default, and never renamed: a command and a node may be of two releases. Times are
POSIX seconds, durations seconds, sizes bytes. A field that is marked with a `Metric` is on the metrics page, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec


@dataclass(frozen=True, slots=True)
class Metric:
    """The name of a metric and its help text. A name that ends in _total is a counter, any other a gauge."""

    name: str
    help: str


OLD: Final = 10.0
"""Seconds after which the age of a count is shown."""
OLD_NODES: Final = 15.0
"""Likewise for what is known of other nodes, which is looked at with each renewal of the leases."""
NO_STANDBY: Final = "no standby"
"""`Status.replication` of a server without one."""


class ShardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One shard."""

    shard: int
    state: str
    since: float
    epoch: int | None
    """Of its lease; None: this node does not hold it."""
    pid: int | None
    devices: Annotated[int, Metric("shardd_shard_devices", "Devices of the shard.")]
    ready: Annotated[int, Metric("shardd_shard_devices_ready", "Devices of the shard that may send.")]
    """Devices whose state lets them send."""
    parked: Annotated[int, Metric("shardd_shard_devices_parked", "Devices of the shard whose jobs wait.")]
    """Devices whose jobs wait: paused, or in a state that cannot send."""
    open_clients: Annotated[int, Metric("shardd_shard_open_clients", "Clients that are open now.")]
    in_flight: Annotated[int, Metric("shardd_shard_in_flight", "Jobs in flight with the shard's worker.")]
    sent: Annotated[int, Metric("shardd_shard_sent_total", "Messages sent.")]
    failed: Annotated[int, Metric("shardd_shard_failed_total", "Attempts that failed.")]
    in_doubt: Annotated[int, Metric("shardd_shard_in_doubt_total", "Attempts whose outcome is unknown.")]
    sent_per_second: float
    restarts: Annotated[int, Metric("shardd_shard_restarts_total", "Workers that died and were replaced.")]
    lag: Annotated[
        float | None,
        Metric("shardd_shard_loop_lag_seconds", "How late the worker's event loop was at its last heartbeat."),
    ]
    heartbeat_age: Annotated[
        float | None, Metric("shardd_shard_heartbeat_age_seconds", "Time since the worker's last heartbeat.")
    ]
    rss: Annotated[int | None, Metric("shardd_shard_resident_bytes", "Resident memory of the worker.")]
    fds: Annotated[int | None, Metric("shardd_shard_open_fds", "Open file descriptors of the worker.")]
    connects: int | None
    error: str | None
    previews_left_out: Annotated[
        int,
        Metric(
            "shardd_shard_link_previews_left_out_total",
            "Texts whose link has no preview, though one was wanted, since the worker's start.",
        ),
    ] = 0
    deaths_lately: int = 0
    """How many of its workers died unrequested within the last hour, up to 100."""
    last_death: str | None = None
    """How the last of these ended; None: there is none."""
    last_death_at: float | None = None


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The live table, as counted at `as_of`."""

    queued: int
    scheduled: int
    sending: int
    oldest_due_age: float | None
    """For how long the oldest job is due that may be sent, or since when it may: not paused, parked, at a limit, in a gap or
    quiet hours, or backing off. None: there is none."""
    as_of: float
    running_campaigns: int = 0
    """Campaigns with live jobs, of all nodes; likewise the next two."""
    paused_campaigns: int = 0
    paused_jobs: int = 0
    """Of the paused campaigns."""
    in_doubt: int = 0
    """Jobs in doubt that wait for a decision, of all nodes."""
    unreadable: int = 0
    """Messages that a device of the recipient cannot decrypt, as was heard within the last 24 hours, of all nodes."""
    resent: int = 0
    """How many of these were sent again."""
    waits: dict[str, int] = {}
    """What the queued jobs wait for, in the words of `waits_for`, and how many do; the most frequent first. Another node's
    shards are not looked at: what waits for these is `its turn`."""


class WebhookStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook that this node delivers for."""

    name: str
    failing: Annotated[
        bool, Metric("shardd_webhook_failing", "1 while a webhook's receiver fails or the webhook is disabled.")
    ]
    """Its receiver has not accepted events for several tries, or it is disabled."""
    disabled: bool
    """After a 410: nothing is sent until `shardd webhook retry`."""
    behind: Annotated[
        float | None, Metric("shardd_webhook_behind_seconds", "How long the oldest undelivered event waits.")
    ]
    """For how long the oldest undelivered event has waited; None: unknown, because it is disabled."""


class NodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says about itself to the others, a few hundred bytes. Another release may leave out or add fields."""

    devices: dict[str, int] = {}
    """Of its shards, by state."""
    in_flight: int = 0
    sent_per_second: float = 0.0
    problems: int = 0
    """How many there are; its own status says which."""
    problem: str | None = None
    """The first one, which may be cut."""
    down: list[int] = []
    """Its shards whose workers died too often, or wait to be started again."""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One of the nodes that share the database, as this node last saw it."""

    node: str
    """Its name."""
    id: str
    """Of its state folder."""
    own: bool
    """It is this node."""
    host: str
    version: str
    state: str
    """`shardd.states.NodeState`."""
    since: float | None
    """Of the state; None: since it serves, or unknown."""
    cordoned: bool
    """An operator wants it to hold no shards, whatever its state."""
    seen_ago: float | None = None
    """For how many seconds it had not renewed its leases when this node last looked, if that is too long; None: it is not."""
    shards: list[int]
    """Which it holds."""
    planned: list[int]
    """Which it should hold."""
    devices: dict[str, int] | None
    """Of its shards, by state, as it last reported; likewise the next ones. None: not heard of lately, or not yet."""
    in_flight: int | None
    sent_per_second: float | None
    problems: int | None
    problem: str | None = None
    down: list[int] | None = None


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the shards of this node since its supervisor started; the names are those of `ShardStatus`."""

    devices: int
    ready: int
    parked: int
    sandbox_devices: int
    shard_down: int = 0
    """Ready devices whose shard does not run: it is down on this node, or no node has it."""
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
    starting: str | None = None
    """What the start is doing, in words; None: it is over."""
    migrated: bool = True
    """Whether the database answers and has the tables of this release; only a start is without them."""
    ready: Annotated[
        bool, Metric("shardd_ready", "1 when the node has started, and holds its leases or stands by.")
    ] = False
    """It has started, knows which leases it holds (a standby: none), and is not stopping."""
    healthy: Annotated[bool, Metric("shardd_up", "1 when the node is healthy.")]
    problems: list[str]
    """Why it is not healthy, in words."""
    problem_kinds: dict[str, int]
    """The number of problems of every kind (`shardd.supervisor.problems.ProblemKind`), 0 included."""
    problems_by_kind: dict[str, list[str]]
    """The same texts as in `problems`, of the kinds that have any."""
    notes: list[str]
    """What an operator should know although the node is healthy, such as a config file that was refused."""
    started_at: Annotated[float, Metric("shardd_start_time_seconds", "When the supervisor started.")]
    now: float
    lease_margin: Annotated[
        float | None, Metric("shardd_lease_margin_seconds", "Time until the leases lapse unless they are renewed.")
    ] = None
    """None: the node holds none."""
    device_states: dict[str, int] = {}
    """Devices by state, all of `shardd.states.DeviceState`; those that are paused count as `paused` only."""
    library: str = ""
    """The WhatsApp library and its version, such as neonize 0.5.2."""
    library_refused: Annotated[
        bool, Metric("shardd_library_refused", "1 while WhatsApp refuses the installed version of its library.")
    ] = False
    library_refused_since: float | None = None
    database: str
    """embedded, or where the server is."""
    replication: str | None = None
    """The standbys of the server, in words; None: not known yet."""
    sessions: str | None = None
    """How the sessions of devices reach PostgreSQL, and why, in words; None: no device has one."""
    config: str | None
    dashboard: str | None = None
    """The URL of the web page; None: there is none."""
    nodes: list[NodeStatus] = []
    """All that share the database and have not stopped; empty until this node has its leases."""
    nodes_as_of: float | None = None
    """When they were seen; None: not yet."""
    shards: list[ShardStatus]
    totals: Totals
    queue: QueueStatus | None
    webhooks: list[WebhookStatus] = []
    """Those that this node delivers for."""
    spares: Annotated[
        int, Metric("shardd_spare_workers", "Workers that have loaded everything and wait for a shard.")
    ] = 0
    """Spare workers that have loaded everything."""
    unattributed_reports: Annotated[
        int,
        Metric(
            "shardd_unattributed_reports_total",
            "Messages and statuses that platforms reported for no device: an unknown phone_number_id or path.",
        ),
    ] = 0


def head_word(status: Status) -> str:
    """`healthy`, `degraded`, or what it does instead of running."""
    if status.healthy:
        return "healthy"
    return "degraded" if status.state == "running" else status.state


def age_of_count(status: Status) -> float | None:
    """How old the count of the queue is, if that must be told."""
    if status.queue is None or status.now - status.queue.as_of < OLD:
        return None
    return status.now - status.queue.as_of


def age_of_nodes(status: Status) -> float | None:
    """How long ago the other nodes were seen, if that must be told."""
    if status.nodes_as_of is None or status.now - status.nodes_as_of < OLD_NODES:
        return None
    return status.now - status.nodes_as_of


def why_no_shards(status: Status) -> str:
    """Why a node holds no shard: only a look at the cluster that is fresh says who has them."""
    if any(node.own and node.cordoned for node in status.nodes):
        return "this node is cordoned"
    if status.state != "running":
        return f"this node is {status.state}"
    if not status.ready:
        if status.problem_kinds.get("database"):
            return "its leases lapsed, because the database does not answer; they are taken again when it does"
        return "its leases lapsed, because they were not renewed in time; they are taken again as soon as possible"
    if any(node.shards for node in status.nodes if not node.own):
        return "other nodes have the shards"
    return "no node is known to have the shards"
