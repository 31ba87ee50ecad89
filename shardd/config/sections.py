"""The sections of the config: every option with its default, its bounds, and the words that explain it.

A description says what the option does and when to change it; the sample file (`shardd config sample`) is made of them. What
must hold between options stands in `shardd.config.rules`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from shardd.config.fields import Section, section, setting
from shardd.config.special_values import Dsn, FilePath, LoopbackAddress
from shardd.config.values import Bytes, Choice, Flag, Seconds, Whole


class DatabaseConfig(Section):
    """The PostgreSQL server that holds devices, jobs and leases."""

    dsn: Annotated[str, Dsn(), Field(repr=False)] = setting(
        ...,
        "Where the database is: a postgresql:// URL or key=value pairs. ${NAME} is taken from the environment of shardd, so "
        "that no password stands here; special characters of a password are percent-encoded in a URL (%40 for @). The "
        "user needs no superuser rights. Several hosts: the one that can be written to is used. A pooler before it must keep "
        "each client its connection (PgBouncer: pool_mode = session).",
        reload="restart",
        sample="postgresql://shardd:${SHARDD_DB_PASSWORD}@db.example/shardd",
    )
    connect_timeout: Annotated[float, Seconds("100ms", "5m")] = setting(
        "5s",
        "How long a connect may take. Longer only if the server is far away; the lease must leave room.",
        reload="restart",
    )
    statement_timeout: Annotated[float, Seconds("100ms", "5m")] = setting(
        "5s", "How long one statement may take. Longer if the server is often overloaded; see lease.", reload="restart"
    )
    sessions_dsn: Annotated[str | None, Dsn(), Field(repr=False)] = setting(
        None,
        "Where WhatsApp sessions are kept. null: in the database of dsn. Write it to reach them through PgBouncer.",
        reload="restart",
    )


class LeaseConfig(Section):
    """How nodes share the shards without ever owning one twice."""

    ttl: Annotated[float, Seconds("3s", "1h")] = setting(
        "30s",
        "How long a shard stays with a node that is no longer heard of. Shorter: others take over sooner; longer: a database "
        "that is away for a while stops nobody.",
        reload="restart",
    )
    renew_every: Annotated[float, Seconds("500ms", "10m")] = setting(
        "5s",
        "How often a node renews its leases. Must leave room for two slow database calls before ttl - margin.",
        reload="restart",
    )
    margin: Annotated[float, Seconds("500ms", "10m")] = setting(
        "5s",
        "How long before the end of ttl a node that cannot renew closes its clients. Longer if closing takes long or "
        "processes are sometimes paused.",
        reload="restart",
    )


class BackoffConfig(Section):
    """Growing, random waits between tries."""

    first: Annotated[float, Seconds("10ms", "1d")] = setting(
        "5s", "Upper end of the first wait; it doubles with each try.", reload="live"
    )
    cap: Annotated[float, Seconds("10ms", "7d")] = setting("10m", "Upper end of every wait.", reload="live")


class RestartBackoffConfig(BackoffConfig):
    """Waits before a crashed worker starts again."""

    first: Annotated[float, Seconds("10ms", "1d")] = setting(
        "500ms", "Upper end of the first wait; it doubles with each crash.", reload="live"
    )
    cap: Annotated[float, Seconds("10ms", "7d")] = setting("60s", "Upper end of every wait.", reload="live")
    reset_after: Annotated[float, Seconds("1s", "1d")] = setting(
        "60s", "A worker that ran this long begins with the first wait again.", reload="live"
    )


class BreakerConfig(Section):
    """When a shard that crashes again and again is stopped."""

    crashes: Annotated[int, Whole(2, 1000)] = setting(
        "5", "This many crashes within the time below stop the shard.", reload="live"
    )
    within: Annotated[float, Seconds("1s", "1d")] = setting(
        "2m", "The time in which crashes are counted.", reload="live"
    )
    probe_every: Annotated[float, Seconds("1s", "1d")] = setting(
        "5m", "How often a stopped shard is tried again; `shardd restart SHARD` does it at once.", reload="live"
    )


class SupervisorConfig(Section):
    """How workers are started, watched and replaced."""

    start_timeout: Annotated[float, Seconds("1s", "1h")] = setting(
        "60s",
        "How long a worker may take until it is ready; then it is killed and started again. Longer on a slow or busy machine.",
        reload="live",
    )
    heartbeat_every: Annotated[float, Seconds("50ms", "1m")] = setting(
        "1s", "How often a worker reports. Rarer with hundreds of shards on one host.", reload="shard"
    )
    heartbeat_timeout: Annotated[float, Seconds("1s", "1h")] = setting(
        "20s",
        "A worker that is silent this long hangs: it is killed and started again. Longer if a busy machine delays healthy ones.",
        reload="live",
    )
    drain_timeout: Annotated[float, Seconds("1s", "1h")] = setting(
        "30s",
        "How long a worker may finish what it has in flight when it stops. systemd's TimeoutStopSec must be longer.",
        reload="live",
    )
    spawn_every: Annotated[float, Seconds("0", "1m")] = setting(
        "200ms",
        "Pause between two starts, so that a host with many shards does not start them all at once.",
        reload="live",
    )
    backoff: RestartBackoffConfig = section(
        RestartBackoffConfig, "Waits before a crashed worker starts again, random up to these ends."
    )
    breaker: BreakerConfig = section(
        BreakerConfig, "A shard that crashes again and again is stopped, and the others go on."
    )


class RecycleConfig(Section):
    """Budgets of a worker; one that has spent a budget is drained and replaced, one shard at a time. 0: no budget."""

    connects: Annotated[int, Whole()] = setting(
        "20000", "Connects to WhatsApp. The library leaks about 34 kB and 2 file descriptors with each.", reload="live"
    )
    fds: Annotated[int, Whole()] = setting(
        "0", "Open file descriptors. 0: seven tenths of the limit (LimitNOFILE of the service).", reload="live"
    )
    rss: Annotated[int, Bytes()] = setting(
        "1GiB",
        "Resident memory, if the worker has grown by a quarter of this since its start. More if a healthy worker of yours "
        "needs more: shardd status says so.",
        reload="live",
    )


class WorkerConfig(Section):
    """The worker processes, one per shard."""

    go_memory_limit: Annotated[int, Bytes("32MiB")] = setting(
        "512MiB",
        "Memory above which the WhatsApp library collects its garbage harder (GOMEMLIMIT), per worker. More if workers with many "
        "open clients use much CPU at this size; less on a small host.",
        reload="shard",
    )
    journal_fsync: Annotated[bool, Flag()] = setting(
        "false",
        "Whether the journal is forced to the disk for each message. It survives a killed process without; true if a power "
        "failure must not lose it either, at the price of a disk write per message.",
        reload="shard",
    )
    recycle: RecycleConfig = section(
        RecycleConfig,
        "Budgets: a worker that has spent one is drained and replaced, one shard at a time. 0 = no budget.",
    )


class QueueConfig(Section):
    """How jobs are taken from the database."""

    batch: Annotated[int, Whole(1, 5000)] = setting(
        "500", "Jobs per claim, at most. Less if messages are very large.", reload="live"
    )
    poll_every: Annotated[float, Seconds("10ms", "1m")] = setting(
        "250ms",
        "How often the queue is looked at when no notification comes. Rarer to spare an idle database.",
        reload="live",
    )
    scan_every: Annotated[float, Seconds("100ms", "10m")] = setting(
        "3s",
        "How often every device is looked at: the longest that a due job can be overlooked. Rarer with a "
        "very large number of devices.",
        reload="live",
    )
    send_timeout: Annotated[float, Seconds("1s", "1h")] = setting(
        "90s",
        "How long one send may take, connecting included. A send that is cut off after the "
        "hand-over is in doubt, so rather long than short.",
        reload="shard",
    )
    backoff: BackoffConfig = section(
        BackoffConfig, "Waits before a job that failed for a passing reason is tried again."
    )


class ControlConfig(Section):
    """Where the running supervisor can be asked."""

    socket: Annotated[Path | None, FilePath()] = setting(
        None,
        "The control socket (mode 0600); null: control.sock in state_dir. At most 100 bytes long.",
        reload="restart",
    )
    metrics: Annotated[str | None, LoopbackAddress()] = setting(
        None,
        "Serve Prometheus metrics here too, such as 127.0.0.1:9464; loopback only. null: on the control socket only.",
        reload="restart",
    )


class LogConfig(Section):
    """What is logged, to stderr."""

    level: Annotated[str, Choice(("debug", "info", "warning", "error"))] = setting(
        "info",
        "debug, info, warning or error. debug follows every message: for finding a fault, not for every day.",
        reload="live",
    )
    format: Annotated[str, Choice(("auto", "console", "json"))] = setting(
        "auto", "auto (console on a terminal, else json), console or json.", reload="restart"
    )
