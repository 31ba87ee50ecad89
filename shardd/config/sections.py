"""The sections of the config that are only values: each option with its default, its bounds, and its explanation.

A description says what the option does and when to change it; the sample file (`shardd config sample`) consists of them. The
conditions between options are in `shardd.config.rules`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from shardd.config.fields import Section, section, setting
from shardd.config.values import Bytes, Choice, Flag, Seconds, Whole
from shardd.config.values.network import Dsn, MetricsAddress
from shardd.config.values.words import FilePath


class DatabaseConfig(Section, reload="restart"):
    """The PostgreSQL server that holds devices, jobs and leases."""

    dsn: Dsn = setting(
        ...,
        "The database, as a postgresql:// URL or key=value pairs. Keep the password out of this file with ${NAME}, which "
        "is replaced from the environment of shardd; in a URL, percent-encode special characters of a password (%40 for "
        "@). The user needs no superuser rights. If several hosts are named, the writable one is used. A pooler in front "
        "must keep each client on one server connection (PgBouncer: pool_mode = session).",
        sample="postgresql://shardd:${SHARDD_DB_PASSWORD}@db.example/shardd",
    )
    connect_timeout: Annotated[float, Seconds("100ms", "5m")] = setting(
        "5s", "Longest time to connect. Raise it only for a distant server; it counts against the lease (see lease)."
    )
    statement_timeout: Annotated[float, Seconds("100ms", "5m")] = setting(
        "5s", "Longest time for one statement. Raise it if the server is often overloaded; see lease."
    )
    sessions_dsn: Dsn | None = setting(
        None,
        "The database of the WhatsApp sessions, if another one, or to reach them through PgBouncer. null: the database of dsn.",
    )


class LeaseConfig(Section, reload="restart"):
    """How nodes share the shards without ever owning one twice."""

    ttl: Annotated[float, Seconds("3s", "1h")] = setting(
        "30s",
        "How long a shard stays assigned to a node that no longer renews its lease. Shorter: faster failover. Longer: a "
        "database outage of that length interrupts nothing.",
    )
    renew_every: Annotated[float, Seconds("500ms", "10m")] = setting(
        "5s", "How often a node renews its leases. Two slow database calls must fit between this and ttl - margin."
    )
    margin: Annotated[float, Seconds("1s", "10m")] = setting(
        "5s",
        "How long before its lease expires a node that cannot renew it stops handing messages over. In the first half of this "
        "time, what was handed over ends and the clients close; the other half is reserve. Raise it if sends take long.",
    )


class BackoffConfig(Section, reload="live"):
    """Growing, random waits between attempts."""

    first: Annotated[float, Seconds("10ms", "1d")] = setting(
        "5s", "Upper limit of the first wait; it doubles with each attempt."
    )
    cap: Annotated[float, Seconds("10ms", "7d")] = setting("10m", "Upper limit of every wait.")


class RestartBackoffConfig(BackoffConfig, reload="live"):
    """Waits before a crashed worker starts again."""

    first: Annotated[float, Seconds("10ms", "1d")] = setting(
        "500ms", "Upper limit of the first wait; it doubles with each crash."
    )
    cap: Annotated[float, Seconds("10ms", "7d")] = setting("60s", "Upper limit of every wait.")
    reset_after: Annotated[float, Seconds("1s", "1d")] = setting(
        "60s", "A worker that ran this long starts over with the first wait after its next crash."
    )


class BreakerConfig(Section, reload="live"):
    """When a shard that crashes again and again is stopped."""

    crashes: Annotated[int, Whole(2, 1000)] = setting(
        "5", "Number of crashes within the time below that stop the shard."
    )
    within: Annotated[float, Seconds("1s", "1d")] = setting("2m", "Time window in which crashes are counted.")
    probe_every: Annotated[float, Seconds("1s", "1d")] = setting(
        "5m", "How often a stopped shard is tried again; `shardd restart SHARD` does it at once."
    )


class SupervisorConfig(Section, reload="live"):
    """How workers are started, watched and replaced."""

    start_timeout: Annotated[float, Seconds("1s", "1h")] = setting(
        "60s",
        "How long a worker may take to become ready before it is killed and started again. Raise it on a slow or busy machine.",
    )
    heartbeat_every: Annotated[float, Seconds("50ms", "1m")] = setting(
        "1s", "How often a worker reports. Raise it with hundreds of shards on one host.", reload="shard"
    )
    heartbeat_timeout: Annotated[float, Seconds("1s", "1h")] = setting(
        "20s",
        "A worker that does not report for this long is considered hung: it is killed and started again. Raise it if a busy "
        "machine delays healthy workers.",
    )
    drain_timeout: Annotated[float, Seconds("1s", "1h")] = setting(
        "30s",
        "How long a stopping worker may take to finish its jobs in flight. systemd's TimeoutStopSec must be longer.",
    )
    spawn_every: Annotated[float, Seconds("0", "1m")] = setting(
        "200ms",
        "Pause between two worker starts, so that a host with many shards does not start them all at once. Spare workers are "
        "taken without a pause.",
    )
    spares: Annotated[int | None, Whole(0, 1000)] = setting(
        None,
        "Number of spare workers: started in advance, so that shards of a lost or stopped host, and those whose worker crashed, "
        "send seconds earlier. null: as many as this host has to take over when another one is lost, and at least one; each "
        "takes 60 to 90 MB.",
    )
    backoff: RestartBackoffConfig = section(
        RestartBackoffConfig, "Random waits before a crashed worker starts again, up to these limits."
    )
    breaker: BreakerConfig = section(
        BreakerConfig, "A shard that crashes again and again is stopped; the others continue."
    )


class RecycleConfig(Section, reload="live"):
    """Budgets of a worker; one that has used up a budget is drained and replaced, one shard at a time. 0: no budget."""

    connects: Annotated[int, Whole()] = setting(
        "20000", "Connections to WhatsApp. The library leaks about 34 kB and 2 file descriptors with each."
    )
    fds: Annotated[int, Whole()] = setting(
        "0", "Open file descriptors. 0: seven tenths of the limit (LimitNOFILE of the service)."
    )
    rss: Annotated[int, Bytes()] = setting(
        "1GiB",
        "Resident memory, if the worker has grown by a quarter of this since its start. Raise it if `shardd status` "
        "reports that healthy workers need more.",
    )


class WorkerConfig(Section, reload="shard"):
    """The worker processes, one per shard."""

    go_memory_limit: Annotated[int, Bytes("32MiB")] = setting(
        "512MiB",
        "Memory of a worker above which the WhatsApp library collects garbage more often (GOMEMLIMIT). Raise it if workers "
        "with many open clients use much CPU at this size; lower it on a small host.",
    )
    journal_fsync: Annotated[bool, Flag()] = setting(
        "false",
        "Whether every journal entry is forced to disk. The journal survives a killed process either way; true if it must also "
        "survive a power failure, at the cost of a disk write per message.",
    )
    recycle: RecycleConfig = section(
        RecycleConfig,
        "Budgets: a worker that has used one up is drained and replaced, one shard at a time. 0: no budget.",
    )


class QueueConfig(Section, reload="live"):
    """How jobs are taken from the database."""

    batch: Annotated[int, Whole(1, 5000)] = setting("500", "Jobs per claim, at most. Lower it for very large messages.")
    poll_every: Annotated[float, Seconds("10ms", "1m")] = setting(
        "250ms", "How often the queue is polled when no notification arrives. Raise it to spare an idle database."
    )
    scan_every: Annotated[float, Seconds("100ms", "10m")] = setting(
        "3s",
        "How often all devices are scanned for due jobs that polls and notifications missed. Raise it with a very large number "
        "of devices.",
    )
    send_timeout: Annotated[float, Seconds("1s", "1h")] = setting(
        "90s",
        "Longest time for one send, connecting included. A send that is cut off after the message was handed over is in doubt, "
        "so better too long than too short.",
        reload="shard",
    )
    on_unreadable: Annotated[str, Choice(("resend", "report"))] = setting(
        "resend",
        "What follows when the phone of a recipient cannot decrypt a message, and its client was closed meanwhile, so that "
        "the library can no longer encrypt it again: resend (a new job sends it again), or report. Jobs may have their own.",
    )
    max_resends: Annotated[int, Whole(1, 10)] = setting(
        "2", "How often a message is sent again that phones cannot decrypt, at most."
    )
    backoff: BackoffConfig = section(BackoffConfig, "Waits before a job that failed temporarily is tried again.")


class RetentionConfig(Section, reload="live"):
    """When finished jobs and what belongs to them are deleted."""

    finished: Annotated[float, Seconds("1d", "3650d")] = setting(
        "90d",
        "How long finished jobs are kept, at least. They are deleted one calendar month at a time, because that costs the "
        "queue nothing. Jobs in doubt are kept until someone resolves them. Shorten it if messages must not be kept; each "
        "job takes about 400 bytes, and more with a long body.",
    )
    dedupe_keys: Annotated[float, Seconds("1d", "3650d")] = setting(
        "90d",
        "How long a dedupe key is remembered, at least; not shorter than finished. Raise it if producers repeat themselves "
        "later.",
    )
    contacts: Annotated[float, Seconds("1d", "3650d")] = setting(
        "365d",
        "How long a device group remembers which of its devices a recipient knows, counted from the last message. After that, "
        "another device may write to the recipient.",
    )
    acts: Annotated[float, Seconds("1d", "3650d")] = setting(
        "365d", "How long the audit log of the dashboard is kept: who did what, `shardd dashboard acts`."
    )


class ControlConfig(Section, reload="restart"):
    """How to reach the running supervisor."""

    socket: Annotated[Path | None, FilePath()] = setting(
        None, "Path of the control socket, at most 100 bytes long. null: control.sock in state_dir."
    )
    group: Annotated[bool, Flag()] = setting(
        "false",
        "Whether members of the group that shardd runs as may use the socket (mode 0660), if they can reach its folder. "
        "Otherwise only shardd's user and root may (0600).",
    )
    metrics: MetricsAddress | None = setting(
        None,
        "Address on which /metrics (Prometheus), /health and /ready are served too, such as 127.0.0.1:9464. Whoever reaches it "
        "can read them: no messages and no numbers, but how much is sent. 0.0.0.0:9464 is for containers. null: only on the "
        "control socket.",
    )


class LogConfig(Section, reload="restart"):
    """What is logged, to stderr."""

    level: Annotated[str, Choice(("debug", "info", "warning", "error"))] = setting(
        "info",
        "debug, info, warning or error. debug logs every message, which is for finding a problem, not for everyday use.",
        reload="live",
    )
    format: Annotated[str, Choice(("auto", "console", "json"))] = setting(
        "auto", "auto (console on a terminal, otherwise json), console or json."
    )
