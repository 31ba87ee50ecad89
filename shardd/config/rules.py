"""The conditions between the options of a config.

A broken rule names the options it looks at, so that it is not reported for an option that has an issue of its own (its value is
not known then), and gives the numbers and a fix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shardd.config.events import WebhookConfig
from shardd.config.fields import Keys, value_at
from shardd.config.model import Config
from shardd.config.values import Bytes, format_duration
from shardd.config.values.network import is_loopback, split_address
from shardd.config.values.reader import printable
from shardd.event_kinds import EventKind
from shardd.opt_out_words import plain
from shardd.pacing import CLASSES

MAX_SOCKET_PATH: Final = 100
"""Bytes. Linux takes 107 (sun_path); a little room is left for what the system puts before a path, such as a mount."""

_ORDERS: Final = (
    ("pacing.gap_min", "pacing.gap_max"),
    ("queue.poll_every", "queue.scan_every"),
    ("retention.finished", "retention.dedupe_keys"),
    ("queue.backoff.first", "queue.backoff.cap"),
    ("supervisor.backoff.first", "supervisor.backoff.cap"),
    ("transports.sandbox.latency_min", "transports.sandbox.latency_max"),
)
"""Pairs of durations whose first must not be longer than the second; of webhooks, see `_webhooks`."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that a config breaks."""

    fields: tuple[Keys, ...]
    """The options that the rule looks at, the one to blame first."""
    value: str
    """The value of the first one."""
    text: str
    """`is …; write …`"""


def broken_rules(config: Config) -> list[Broken]:
    """All rules that this config breaks."""
    return [
        *(broken for low, high in _ORDERS for broken in _order(config, _path(low), _path(high))),
        *_class_gaps(config),
        *_lease(config),
        *_heartbeat(config),
        *_sandbox(config),
        *_platform_webhooks(config),
        *_opt_outs(config),
        *_inbox(config),
        *_webhooks(config),
        *_socket(config),
        *_dashboard(config),
    ]


def _path(dotted: str) -> Keys:
    return tuple(dotted.split("."))


def _order(config: Config, low: Keys, high: Keys) -> Iterator[Broken]:
    first, second = value_at(config, low), value_at(config, high)
    if first > second:
        most = format_duration(second)
        text = f"is longer than {'.'.join(high)} ({most}); write {most} or less, or a longer {high[-1]}"
        yield Broken((low, high), format_duration(first), text)


def _class_gaps(config: Config) -> Iterator[Broken]:
    """A class without its own end of the gap has the one of all classes."""
    pacing = config.pacing
    for name in CLASSES:
        own = getattr(pacing.classes, name)
        low = pacing.gap_min if own.gap_min is None else own.gap_min
        high = pacing.gap_max if own.gap_max is None else own.gap_max
        if low <= high or (own.gap_min is None and own.gap_max is None):
            continue
        ends = (_path(f"pacing.classes.{name}.gap_min"), _path(f"pacing.classes.{name}.gap_max"))
        above = (_path("pacing.gap_min"), _path("pacing.gap_max"))
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
    # Half a millisecond of tolerance: sums of decimal fractions are not exact.
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
        names = (
            "lease.ttl", "lease.renew_every", "lease.margin", "database.connect_timeout", "database.statement_timeout",
        )  # fmt: skip
        yield Broken(tuple(map(_path, names)), format_duration(lease.ttl), text)


def _heartbeat(config: Config) -> Iterator[Broken]:
    """A worker that misses two heartbeats is busy, not hung."""
    every, timeout = config.supervisor.heartbeat_every, config.supervisor.heartbeat_timeout
    if timeout < 3 * every:
        text = (
            f"is less than three heartbeats (supervisor.heartbeat_every is {format_duration(every)}), so healthy workers "
            f"would be killed; write {format_duration(3 * every)} or more"
        )
        fields = (_path("supervisor.heartbeat_timeout"), _path("supervisor.heartbeat_every"))
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
        yield Broken(tuple(_path(f"transports.sandbox.{name}") for name in order), f"{rates[blamed]:g}", text)


def _platform_webhooks(config: Config) -> Iterator[Broken]:
    """A listener must be able to tell a platform's requests from all others."""
    needed = {"wablas": ("secret",), "whacenter": ("secret",), "cloud_api": ("app_secret", "verify_token")}
    for transport, names in needed.items():
        webhook, above = getattr(config.transports, transport).webhook, _path(f"transports.{transport}.webhook")
        for name in names:
            if webhook.listen is not None and getattr(webhook, name) is None:
                text = f"has no {name} beside it; write {name}: ${{NAME}}, or listen: null"
                yield Broken(((*above, "listen"), (*above, name)), webhook.listen, text)


def _opt_outs(config: Config) -> Iterator[Broken]:
    """A word that means both would end an opt-out as soon as it is repeated."""
    for confirm, words in (("confirm", "words"), ("take_back_confirm", "take_back_words")):
        if getattr(config.opt_outs, confirm) is not None and not getattr(config.opt_outs, words):
            text = f"is never sent, because opt_outs.{words} is null; write words there, or {confirm}: null"
            yield Broken(
                (("opt_outs", confirm), ("opt_outs", words)), printable(getattr(config.opt_outs, confirm)), text
            )
    stop = {plain(word) for word in config.opt_outs.words or ()}
    both = next((word for word in config.opt_outs.take_back_words or () if plain(word) in stop), None)
    if both is not None:
        text = (
            f"has {both}, which is one of opt_outs.words; write words that only ask for messages, such as start, unstop"
        )
        yield Broken((_path("opt_outs.take_back_words"), _path("opt_outs.words")), both, text)


def _inbox(config: Config) -> Iterator[Broken]:
    """What is not kept cannot be downloaded, or sent to a webhook that asks for it; one with the default kinds does not."""
    inbox, usual = config.inbox, WebhookConfig.model_fields["kinds"].default
    if inbox.keep == 0 and inbox.media == "download":
        text = "means that no message is stored, and no file without its message; write 1d or more, or media: never"
        yield Broken((("inbox", "keep"), ("inbox", "media")), "0", text)
    if inbox.media_max_bytes > inbox.media_total:
        most = Bytes().show(inbox.media_total)
        text = f"is more than inbox.media_total ({most}); write {most} or less, or a larger media_total"
        yield Broken(
            (("inbox", "media_max_bytes"), ("inbox", "media_total")), Bytes().show(inbox.media_max_bytes), text
        )
    for name, webhook in config.webhooks.items():
        asked = set(webhook.kinds) if ", ".join(webhook.kinds) != usual else set()
        kinds = ("webhooks", name, "kinds")
        if inbox.keep == 0 and EventKind.MESSAGE_RECEIVED in asked:
            text = f"means that there are no events message.received, which webhooks.{name}.kinds has; write 30d, or other kinds"
            yield Broken((("inbox", "keep"), kinds), "0", text)


def _webhooks(config: Config) -> Iterator[Broken]:
    """An undelivered event must not be deleted before its delivery is given up."""
    keep = config.events.keep
    for name in config.webhooks:
        above = ("webhooks", name)
        yield from _order(config, (*above, "backoff", "first"), (*above, "backoff", "cap"))
        if keep == 0:
            text = (
                f"means that no events are written, so webhooks.{name} would receive nothing; write 7d, or no webhooks"
            )
            yield Broken((("events", "keep"), above), "0", text)
        else:
            yield from _order(config, (*above, "give_up"), ("events", "keep"))


def _socket(config: Config) -> Iterator[Broken]:
    path, socket = str(config.control_socket), ("control", "socket")
    if (length := len(path.encode())) <= MAX_SOCKET_PATH:
        return
    if config.control.socket is None:
        text = (
            f"is too long for the control socket in it ({length} bytes of at most {MAX_SOCKET_PATH}); "
            "write a shorter path, or control.socket: /run/shardd/control.sock"
        )
        yield Broken((("state_dir",), socket), str(config.state_dir), text)
    else:
        text = f"is {length} bytes long; write a path of at most {MAX_SOCKET_PATH}, such as /run/shardd/control.sock"
        yield Broken((socket,), path, text)


def _dashboard(config: Config) -> Iterator[Broken]:
    """Whoever reaches the page must have to sign in, and whoever is named must be able to."""
    page = config.dashboard
    listen, header, proxies, users = (
        ("dashboard", name) for name in ("listen", "trusted_header", "trusted_proxies", "users")
    )
    if page.trusted_header is not None and page.trusted_proxies is None:
        text = (
            "has no trusted_proxies beside it, so it is believed of nobody; write trusted_proxies: 127.0.0.1, or "
            "trusted_header: null"
        )
        yield Broken((header, proxies), page.trusted_header, text)
    for name, user in page.users.items():
        if user.password is None and page.trusted_header is None:
            text = (
                "is null, and without dashboard.trusted_header this user cannot sign in; write the line that "
                "`shardd dashboard password` prints"
            )
            yield Broken(((*users, name, "password"), header), "null", text)
    if page.listen is None or is_loopback(split_address(page.listen)[0]):
        return
    if not page.users and page.trusted_header is None:
        text = (
            "is reached from other hosts, and there are neither users nor a trusted_header beside it; write 127.0.0.1:8484, "
            "or users"
        )
        yield Broken((listen, users, header), page.listen, text)
