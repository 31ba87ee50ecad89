"""What must hold between the options of a config.

A broken rule names the options it looks at, so that it is not told about an option that has an issue of its own (its value is
not known then), and says the numbers and a mend.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shardd.config.model import Config
from shardd.config.pacing import ClassPaceConfig
from shardd.config.values import format_duration
from shardd.pacing import CLASSES

MAX_SOCKET_PATH: Final = 100
"""Bytes. Linux takes 107 (sun_path); a little room is left for what the system puts before a path, such as a mount."""

Field = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that a config breaks."""

    fields: tuple[Field, ...]
    """The options that the rule looks at, the one to blame first."""
    value: str
    """The value of the first one."""
    text: str
    """`is …; write …`"""


def broken_rules(config: Config) -> list[Broken]:
    """All rules that this config breaks."""
    return [
        *_orders(config),
        *_class_gaps(config),
        *_lease(config),
        *_heartbeat(config),
        *_sandbox(config),
        *_whatsapp(config),
        *_cloud_webhook(config),
        *_webhooks(config),
        *_socket(config),
    ]


def _orders(config: Config) -> Iterator[Broken]:
    """Pairs of durations whose first must not be longer than the second."""
    sandbox = config.transports.sandbox
    restart, retry = config.supervisor.backoff, config.queue.backoff
    pairs: tuple[tuple[Field, float, Field, float], ...] = (
        (("pacing", "gap_min"), config.pacing.gap_min, ("pacing", "gap_max"), config.pacing.gap_max),
        (("queue", "poll_every"), config.queue.poll_every, ("queue", "scan_every"), config.queue.scan_every),
        (
            ("retention", "finished"),
            config.retention.finished,
            ("retention", "dedupe_keys"),
            config.retention.dedupe_keys,
        ),
        (("queue", "backoff", "first"), retry.first, ("queue", "backoff", "cap"), retry.cap),
        (("supervisor", "backoff", "first"), restart.first, ("supervisor", "backoff", "cap"), restart.cap),
        (
            ("transports", "sandbox", "latency_min"),
            sandbox.latency_min,
            ("transports", "sandbox", "latency_max"),
            sandbox.latency_max,
        ),
    )
    for low_field, low, high_field, high in pairs:
        if low > high:
            text = (
                f"is longer than {'.'.join(high_field)} ({format_duration(high)}); "
                f"write {format_duration(high)} or less, or a longer {high_field[-1]}"
            )
            yield Broken((low_field, high_field), format_duration(low), text)


def _class_gaps(config: Config) -> Iterator[Broken]:
    """An end of a class's pause may be the one of all classes."""
    pacing = config.pacing
    for name in CLASSES:
        own: ClassPaceConfig = getattr(pacing.classes, name)
        low = pacing.gap_min if own.gap_min is None else own.gap_min
        high = pacing.gap_max if own.gap_max is None else own.gap_max
        if low <= high or (own.gap_min is None and own.gap_max is None):
            continue
        ends: tuple[Field, ...] = (("pacing", "classes", name, "gap_min"), ("pacing", "classes", name, "gap_max"))
        above: tuple[Field, ...] = (("pacing", "gap_min"), ("pacing", "gap_max"))
        least, most = format_duration(low), format_duration(high)
        if own.gap_min is None:
            text = (
                f"is shorter than pacing.gap_min ({least}); write gap_min: {most} or less beside it, or {least} or more"
            )
            yield Broken((*reversed(ends), *above), most, text)
        else:
            longer = "pacing.gap_max" if own.gap_max is None else "gap_max beside it"
            text = f"is longer than {longer} ({most}); write {most} or less, or a longer gap_max beside it"
            yield Broken((*ends, *above), least, text)


def _lease(config: Config) -> Iterator[Broken]:
    """A node that cannot renew must notice it, and close its clients, before another node may take its shards.

    In the worst case a renewal fails after a full connect and statement deadline, twice.
    """
    lease = config.lease
    slowest = max(config.connect_timeout, config.statement_timeout)
    needed, room = lease.renew_every + 2 * slowest, lease.ttl - lease.margin
    # A millisecond of tolerance: sums of decimal fractions are not exact.
    if needed > room + 0.0005:
        blamed = "connect_timeout" if config.connect_timeout >= config.statement_timeout else "statement_timeout"
        longest = room - 2 * slowest
        shorter = f", or renew_every: {format_duration(longest)} or less" if longest >= 0.5 else ""
        text = (
            f"is too short: renew_every ({format_duration(lease.renew_every)}) + 2 x database.{blamed} "
            f"({format_duration(slowest)}) is {format_duration(needed)}, but ttl - margin ({format_duration(lease.margin)}) is "
            f"{format_duration(room) if room >= 0 else 'less than 0'}; "
            f"write ttl: {format_duration(needed + lease.margin)} or more{shorter}"
        )
        fields: tuple[Field, ...] = (
            ("lease", "ttl"),
            ("lease", "renew_every"),
            ("lease", "margin"),
            ("database", "connect_timeout"),
            ("database", "statement_timeout"),
        )
        yield Broken(fields, format_duration(lease.ttl), text)


def _heartbeat(config: Config) -> Iterator[Broken]:
    """A worker that is late for two beats is busy, not hung."""
    every, timeout = config.supervisor.heartbeat_every, config.supervisor.heartbeat_timeout
    if timeout < 3 * every:
        text = (
            f"is less than three beats (supervisor.heartbeat_every is {format_duration(every)}), so healthy workers would be "
            f"killed; write {format_duration(3 * every)} or more"
        )
        fields = (("supervisor", "heartbeat_timeout"), ("supervisor", "heartbeat_every"))
        yield Broken(fields, format_duration(timeout), text)


def _sandbox(config: Config) -> Iterator[Broken]:
    names = ("transient_rate", "permanent_rate", "unavailable_rate", "in_doubt_rate", "hang_rate")
    rates = {name: getattr(config.transports.sandbox, name) for name in names}
    if sum(rates.values()) > 1.0 + 1e-9:
        blamed = max(names, key=lambda name: rates[name])
        text = (
            f"is too large: {' + '.join(f'{name} ({rate:g})' for name, rate in rates.items() if rate)} is "
            f"{sum(rates.values()):g}; write shares that add up to 1.0 or less"
        )
        order = (blamed, *(name for name in names if name != blamed))
        yield Broken(tuple(("transports", "sandbox", name) for name in order), f"{rates[blamed]:g}", text)


def _whatsapp(config: Config) -> Iterator[Broken]:
    whatsapp = config.transports.whatsapp
    if whatsapp.max_connecting > whatsapp.max_open_clients:
        text = f"is more than max_open_clients ({whatsapp.max_open_clients}); write {whatsapp.max_open_clients} or less"
        fields = (("transports", "whatsapp", "max_connecting"), ("transports", "whatsapp", "max_open_clients"))
        yield Broken(fields, str(whatsapp.max_connecting), text)


def _cloud_webhook(config: Config) -> Iterator[Broken]:
    """Whoever listens must be able to tell Meta from everybody else."""
    webhook = config.transports.cloud_api.webhook
    above = ("transports", "cloud_api", "webhook")
    for name in ("app_secret", "verify_token"):
        if webhook.listen is not None and getattr(webhook, name) is None:
            text = f"has no {name} beside it; write {name}: ${{NAME}}, or listen: null"
            yield Broken(((*above, "listen"), (*above, name)), webhook.listen, text)


def _webhooks(config: Config) -> Iterator[Broken]:
    """What a receiver is still owed must not be gone before it is given up."""
    keep = config.events.keep
    for name, webhook in config.webhooks.items():
        above = ("webhooks", name)
        if webhook.backoff.first > webhook.backoff.cap:
            longest = format_duration(webhook.backoff.cap)
            text = f"is longer than webhooks.{name}.backoff.cap ({longest}); write {longest} or less, or a longer cap"
            fields = ((*above, "backoff", "first"), (*above, "backoff", "cap"))
            yield Broken(fields, format_duration(webhook.backoff.first), text)
        if keep == 0:
            text = (
                f"means that no events are written, so webhooks.{name} would be told nothing; write 7d, or no webhooks"
            )
            yield Broken((("events", "keep"), above), "0", text)
        elif webhook.give_up > keep:
            text = f"is longer than events.keep ({format_duration(keep)}); write that or less, or a longer events.keep"
            yield Broken(((*above, "give_up"), ("events", "keep")), format_duration(webhook.give_up), text)


def _socket(config: Config) -> Iterator[Broken]:
    path = str(config.control_socket)
    if (length := len(path.encode())) > MAX_SOCKET_PATH:
        if config.control.socket is None:
            text = (
                f"is too long for the control socket in it ({length} bytes; a socket's path has room for {MAX_SOCKET_PATH}); "
                f"write a shorter path, or control.socket: /run/shardd/control.sock"
            )
            yield Broken((("state_dir",), ("control", "socket")), str(config.state_dir), text)
        else:
            text = (
                f"is {length} bytes long; write a path of at most {MAX_SOCKET_PATH}, such as /run/shardd/control.sock"
            )
            yield Broken((("control", "socket"),), path, text)
