"""The picture of a node's health that `shardd status` prints and `--watch` redraws.

The most important comes first, so that a small terminal cuts off only healthy shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType

from shardd.cli.output import Console, Table, Text, make_grid, make_table, sandbox_text, state_text
from shardd.states import CAN_SEND, NodeState, ShardState
from shardd.supervisor.status import (
    NO_STANDBY,
    NodeStatus,
    QueueStatus,
    ShardStatus,
    Status,
    Totals,
    WebhookStatus,
    age_of_count,
    head_word,
    why_no_shards,
)
from shardd.words import count, span

WIDE: Final = 110
"""Width from which on words are written out and the worker's resources are shown."""
NARROW: Final = 80
"""Width below which columns that one can do without are left out."""
LITTLE: Final = 5.0
"""Seconds until the leases lapse that are little."""
AIRY: Final = 130
"""Width from which on columns are two spaces apart."""


@dataclass(frozen=True, slots=True)
class _Column:
    wide: str
    narrow: str
    cell: Callable[[ShardStatus], Text]
    total: Callable[[Totals], str] = lambda _: ""
    only_wide: bool = False
    total_only_wide: bool = False
    dispensable: bool = False
    """Left out of a narrow picture."""


def render_status(
    status: Status, *, width: int, height: int | None = None, banner: Text | None = None, stale: bool = False
) -> Group:
    """The whole picture, for a terminal of this size; `height` None: as long as it takes.

    `banner` is a line at the top; `stale`: the status is outdated.
    """
    most, totals = None if height is None else max(3, height // 5), status.totals
    head: list[RenderableType] = [banner] if banner is not None else []
    head.append(_title(status, stale=stale))
    if totals.sandbox_devices:
        head.append(sandbox_text(totals.sandbox_devices, totals.devices, "devices"))
    head.append(_facts(status, most))
    if len(status.nodes) > 1:
        head += [Text(), *_nodes(status, most, width)]
    head.append(Text())
    room = None
    if height is not None:
        # The table's header has two lines, its total one, and the remark about hidden shards one or two.
        room = max(3, height - _height(Group(*head), width) - 5)
    shards, hidden = _choose(status.shards, room)
    parts = [*head, *([_table(shards, status.totals, width)] if status.shards else [])]
    if hidden:
        parts.append(Text(_hidden_words(hidden), "dim"))
    return Group(*parts)


def _height(what: RenderableType, width: int) -> int:
    console = Console(width=width)
    return len(console.render_lines(what, pad=False))


def _title(status: Status, *, stale: bool) -> Text:
    word = head_word(status)
    style = {"healthy": "bold green", "degraded": "bold red"}.get(word, "bold yellow")
    if stale:
        word, style = f"was {word}", "bold"
    title = Text.assemble((f"shardd {status.version}", "bold"), f" on {status.node}: ", (word, style))
    title.append(f"  up {span(status.now - status.started_at)}, pid {status.pid}, database {status.database}", "dim")
    return title


def _facts(status: Status, most: int | None) -> Table:
    """Totals, then up to `most` problems, then notes."""
    totals, queue = status.totals, status.queue
    facts = make_grid(2)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    if status.starting is not None:
        facts.add_row("starting", Text(status.starting, "yellow"))
    facts.add_row("devices", _device_words(status))
    for name, words in _queue_rows(queue, age_of_count(status)):
        facts.add_row(name, words)
    sent = Text(f"{totals.sent:,} since the start, {_rate(totals.sent_per_second)}/s; ")
    sent.append(f"{count(totals.failed, 'attempt')} failed, ", "red" if totals.failed else "")
    sent.append(f"{totals.in_doubt:,} in doubt", "bold yellow" if totals.in_doubt else "")
    facts.add_row("sent", sent)
    if (leases := _lease_words(status)) is not None:
        facts.add_row("leases", leases)
    for name, words in _way_words(status):
        facts.add_row(name, words)
    for problem in status.problems[:most]:
        facts.add_row(Text("problem", "red"), problem)
    if most is not None and len(status.problems) > most:
        facts.add_row("", Text(f"and {count(len(status.problems) - most, 'more problem')}", "red"))
    for death in _death_words(status, most):
        facts.add_row(Text("died", "yellow"), death)
    for note in status.notes:
        facts.add_row(Text("note", "yellow"), note)
    return facts


def _way_words(status: Status) -> Iterator[tuple[str, Text]]:
    """What is between the devices and the database, behind that, and between it and the receivers of events."""
    if status.replication is not None and status.replication != NO_STANDBY:
        yield "replication", Text(status.replication, "yellow" if status.replication.startswith("asynchronous") else "")
    if status.sessions is not None and status.sessions.startswith("through"):
        yield "sessions", Text(status.sessions)
    if status.webhooks:
        yield "webhooks", _webhook_words(status.webhooks)


def _death_words(status: Status, most: int | None) -> Iterator[str]:
    """The shards whose workers died within the last hour, the last one first."""
    died = [shard for shard in status.shards if shard.last_death_at is not None]
    died.sort(key=lambda shard: -(shard.last_death_at or 0.0))
    for shard in died[:most]:
        how = f"worker of shard {shard.shard}: {shard.last_death}"
        more = f"; {shard.deaths_lately:,} in the last hour" if shard.deaths_lately > 1 else ""
        yield f"{how}, {span(max(0.0, status.now - (shard.last_death_at or 0.0)))} ago{more}"
    if most is not None and len(died) > most:
        yield f"and workers of {count(len(died) - most, 'more shard')}"


def _device_words(status: Status) -> Text:
    totals = status.totals
    words = Text(f"{totals.ready - totals.shard_down:,} ready, ")
    if totals.shard_down:
        words.append(f"{totals.shard_down:,} ready whose shard does not run, ", "yellow")
    return words.append(f"{totals.parked:,} parked{_parked(status)}, {count(totals.open_clients, 'open client')}")


def _queue_rows(queue: QueueStatus | None, age: float | None) -> Iterator[tuple[str, Text]]:
    if queue is None:
        yield "queue", Text("not counted yet", "dim")
        return
    yield "queue", _queue_words(queue, age)
    if queue.waits:
        yield "waits", Text("; ".join(f"{why} ({jobs:,})" for why, jobs in queue.waits.items()))
    if queue.in_doubt:
        doubts = f"{count(queue.in_doubt, 'job')} for you to decide: shardd job list --state=in_doubt"
        yield "in doubt", Text(doubts, "bold yellow")
    if queue.unreadable:
        unreadable = f"{count(queue.unreadable, 'message')} in the last 24 hours, {queue.resent:,} sent again"
        yield "unreadable", Text(f"{unreadable}: shardd job list --unreadable", "yellow")
    if words := _campaign_words(queue):
        yield "campaigns", words


def _queue_words(queue: QueueStatus, age: float | None) -> Text:
    words = Text(f"{queue.queued:,} queued, {queue.scheduled:,} scheduled, {queue.sending:,} sending")
    if queue.oldest_due_age is not None:
        words.append(f"; oldest due {span(max(0.0, queue.oldest_due_age))}")
    if age is not None:
        words.append(f" (as of {span(age)} ago)", "yellow")
    return words


def _parked(status: Status) -> str:
    """The states of parked devices: ` (2 paused, 1 banned)`."""
    states = {name: number for name, number in status.device_states.items() if number and name not in CAN_SEND}
    return f" ({', '.join(f'{number:,} {name}' for name, number in states.items())})" if states else ""


def _lease_words(status: Status) -> Text | None:
    mine = sum(shard.epoch is not None for shard in status.shards)
    if status.state == "starting":
        return None
    if not mine:
        return Text(f"none: {why_no_shards(status)}", "dim" if status.ready else "red")
    margin = status.lease_margin or 0.0
    text = f"{mine} of {count(len(status.shards), 'shard')}; without a renewal they lapse in {span(margin)}"
    if status.spares:
        text += f"; {count(status.spares, 'spare worker')}"
    return Text(text, "bold red" if margin < LITTLE else "")


def _webhook_words(webhooks: Sequence[WebhookStatus]) -> Text:
    """The slowest first."""
    words = Text()
    for one in sorted(webhooks, key=lambda one: -(one.behind or 0.0)):
        words.append("; " if words else "")
        late = "disabled" if one.disabled else "up to date" if not one.behind else f"{span(one.behind)} behind"
        words.append(
            f"{one.name}: {late}{', failing' if one.failing and not one.disabled else ''}", "red" if one.failing else ""
        )
    return words


def _campaign_words(queue: QueueStatus) -> Text:
    words = [f"{queue.running_campaigns:,} running"] if queue.running_campaigns else []
    if queue.paused_campaigns:
        words.append(f"{queue.paused_campaigns:,} paused with {count(queue.paused_jobs, 'job')}")
    return Text(", ".join(words), "yellow" if queue.paused_campaigns else "")


def _nodes(status: Status, most: int | None, width: int) -> Iterator[RenderableType]:
    """A row for each node, or the most telling ones."""
    nodes = status.nodes
    if most is not None and len(nodes) > most:
        ranked = sorted(
            nodes,
            key=lambda node: (
                node.state == NodeState.SERVING and node.seen_ago is None and not node.problems,
                not node.own,
            ),
        )
        shown = {node.id for node in ranked[:most]}
        nodes = [node for node in nodes if node.id in shown]
    wide = width >= WIDE
    headers = ["node", "state", "shards", "devices", "sent/s", "problems", *(["version", "host"] if wide else [])]
    table = make_table(*headers, right=headers[2:6], whole=["state"])
    if width < NARROW:
        table.padding = (0, 1, 0, 0)
    for node in nodes:
        cells = [_node_state(node, status.now), _share(node), _devices(node), *_reported(node)]
        table.add_row(Text(node.node, "bold" if node.own else ""), *cells, *([node.version, node.host] if wide else []))
    yield table
    if hidden := len(status.nodes) - len(nodes):
        yield Text(f"and {count(hidden, 'more node')}; shardd cluster list", "dim")


def _node_state(node: NodeStatus, now: float) -> Text:
    text = state_text(node.state)
    if node.seen_ago is not None and node.since is None:
        return text.append(f"? {span(node.seen_ago).split()[0]}", "red")
    if node.since is not None:
        text.append(f" {span(max(0.0, now - node.since)).split()[0]}")
    return text


def _share(node: NodeStatus) -> Text:
    """`4`, or `4 → 0` while shards move."""
    holds, planned = len(node.shards), len(node.planned)
    return Text(f"{holds}") if holds == planned else Text(f"{holds} → {planned}", "yellow")


def _devices(node: NodeStatus) -> Text:
    """Those that can send, of all."""
    if node.devices is None:
        return Text("-", "dim")
    return Text(
        f"{sum(number for name, number in node.devices.items() if name in CAN_SEND)}/{sum(node.devices.values())}"
    )


def _reported(node: NodeStatus) -> Iterator[Text]:
    yield Text("-", "dim") if node.sent_per_second is None else Text(_rate(node.sent_per_second))
    yield Text("-", "dim") if node.problems is None else Text(str(node.problems), "red" if node.problems else "")


def _choose(shards: Sequence[ShardStatus], room: int | None) -> tuple[list[ShardStatus], list[ShardStatus]]:
    """The shards to show in `room` lines, and the others; unhealthy ones take precedence."""
    if room is None or len(shards) <= room:
        return list(shards), []
    ranked = sorted(shards, key=lambda s: (_is_healthy(s), s.epoch is None, s.shard))
    shown = {s.shard for s in ranked[: room - 1]}
    return [s for s in shards if s.shard in shown], [s for s in shards if s.shard not in shown]


def _hidden_words(hidden: Sequence[ShardStatus]) -> str:
    words = "all healthy" if all(_is_healthy(s) for s in hidden) else "not all healthy"
    return f"and {count(len(hidden), 'more shard')}, {words}; `shardd status` shows them"


def _is_healthy(shard: ShardStatus) -> bool:
    return shard.epoch is None or shard.state in (ShardState.RUNNING, ShardState.DRAINED)


def _table(shards: Sequence[ShardStatus], totals: Totals, width: int) -> Table:
    wide = width >= WIDE
    columns = [
        column for column in _COLUMNS if (wide or not column.only_wide) and (width >= NARROW or not column.dispensable)
    ]
    headers = [column.wide if wide else column.narrow for column in columns]
    table = make_table(*headers, right=[h for h in headers if h != "state"])
    if width < AIRY:
        # Headers are one word or two lines, so one space separates them, and every number fits 80 columns.
        table.padding = (0, 1, 0, 0)
    for shard in shards:
        table.add_row(*(column.cell(shard) for column in columns), style=None if shard.epoch is not None else "dim")
    if len(shards) != 1:
        sums = ("" if column.total_only_wide and not wide else column.total(totals) for column in columns)
        table.add_row(*(Text(one, "bold") for one in sums))
    return table


def _number(name: str, warn: str = "") -> Callable[[ShardStatus], Text]:
    """The cell of a count, in the style `warn` unless it is 0."""

    def cell(shard: ShardStatus) -> Text:
        value: int = getattr(shard, name)
        return Text(_amount(value), warn if value else "")

    return cell


def _ready_and_parked(shard: ShardStatus) -> Text:
    return Text.assemble(f"{shard.ready}/", (str(shard.parked), "yellow" if shard.parked else ""))


def _seconds(value: float | None, doubtful: float, bad: float) -> Text:
    if value is None:
        return Text("-", "dim")
    return Text(span(max(0.0, value)), "bold red" if value >= bad else "yellow" if value >= doubtful else "")


def _or_dash(value: str | None) -> Text:
    return Text("-", "dim") if value is None else Text(value)


def _amount(value: int) -> str:
    """Exact while it fits: `1234567`, then `12.3M`."""
    for size, unit in ((10**9, "G"), (10**6, "M")):
        if value >= 10 * size:
            return f"{value / size:.1f}{unit}"
    return str(value)


def _rate(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _bytes(value: int | None) -> str | None:
    if value is None:
        return None
    return f"{value / 2**30:.1f}GiB" if value >= 2**30 else f"{value / 2**20:.0f}MiB"


_COLUMNS = (
    _Column("shard", "#", lambda s: Text(str(s.shard)), lambda _: "all"),
    _Column("state", "state", lambda s: state_text(s.state)),
    _Column("pid", "pid", lambda s: _or_dash(None if s.pid is None else str(s.pid)), dispensable=True),
    _Column(
        "ready/\nparked",
        "ready/\nparked",
        _ready_and_parked,
        lambda t: f"{t.ready}/{t.parked}",
        total_only_wide=True,
        dispensable=True,
    ),
    _Column("open\nclients", "", _number("open_clients"), lambda t: str(t.open_clients), only_wide=True),
    _Column("in\nflight", "in\nflight", _number("in_flight"), lambda t: _amount(t.in_flight)),
    _Column("sent/s", "sent/s", lambda s: Text(_rate(s.sent_per_second)), lambda t: _rate(t.sent_per_second)),
    _Column("sent", "sent", _number("sent"), lambda t: _amount(t.sent)),
    _Column("failed", "failed", _number("failed", "red"), lambda t: _amount(t.failed)),
    _Column("in\ndoubt", "in\ndoubt", _number("in_doubt", "bold yellow"), lambda t: _amount(t.in_doubt)),
    _Column("restarts", "re-\nstarts", _number("restarts", "yellow"), dispensable=True),
    _Column("lag", "lag", lambda s: _seconds(s.lag, 0.25, 1.0), dispensable=True),
    _Column("heartbeat\nage", "beat", lambda s: _seconds(s.heartbeat_age, 5.0, 10.0)),
    _Column("memory", "", lambda s: _or_dash(_bytes(s.rss)), only_wide=True),
    _Column("fds", "", lambda s: _or_dash(None if s.fds is None else str(s.fds)), only_wide=True),
)
