"""The health of a node as Prometheus text (exposition format 0.0.4), made from the same data as `shardd status`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from shardd.states import ShardState
from shardd.supervisor.status import ShardStatus, Status, WebhookStatus

_PER_SHARD: Final = (
    ("shardd_shard_devices", "gauge", "Devices of the shard.", "devices"),
    ("shardd_shard_devices_ready", "gauge", "Devices of the shard that may send.", "ready"),
    ("shardd_shard_devices_parked", "gauge", "Devices of the shard whose jobs wait.", "parked"),
    ("shardd_shard_open_clients", "gauge", "Clients that are open now.", "open_clients"),
    ("shardd_shard_in_flight", "gauge", "Jobs in the hand of the shard's worker.", "in_flight"),
    ("shardd_shard_sent_total", "counter", "Messages sent.", "sent"),
    ("shardd_shard_failed_total", "counter", "Attempts that failed.", "failed"),
    ("shardd_shard_in_doubt_total", "counter", "Attempts whose outcome nobody knows.", "in_doubt"),
    ("shardd_shard_restarts_total", "counter", "Workers that died and were replaced.", "restarts"),
    ("shardd_shard_loop_lag_seconds", "gauge", "How late the worker's event loop was at its last heartbeat.", "lag"),
    ("shardd_shard_heartbeat_age_seconds", "gauge", "Time since the worker's last heartbeat.", "heartbeat_age"),
    ("shardd_shard_resident_bytes", "gauge", "Resident memory of the worker.", "rss"),
    ("shardd_shard_open_fds", "gauge", "Open file descriptors of the worker.", "fds"),
)

_OLDEST_DUE: Final = (
    "Since when the oldest job is due whose device is not paused, parked, at a limit, quiet or backing off."
)


def render_metrics(status: Status) -> str:
    """The whole page."""
    lines: list[str] = []
    _family(lines, "shardd_up", "gauge", "1 when the node is healthy.", [("", float(status.healthy))])
    _family(lines, "shardd_start_time_seconds", "gauge", "When the supervisor started.", [("", status.started_at)])
    kinds = [(f'{{kind="{kind}"}}', float(number)) for kind, number in status.problem_kinds.items()]
    _family(lines, "shardd_problems", "gauge", "What keeps the node from being healthy, by kind.", kinds)
    if status.queue is not None:
        depth = [
            (f'{{state="{name}"}}', float(getattr(status.queue, name)))
            for name in ("queued", "scheduled", "sending", "in_doubt")
        ]
        _family(
            lines, "shardd_jobs", "gauge", "Jobs that are not over, by state; in_doubt: they wait for a person.", depth
        )
        age = status.queue.oldest_due_age or 0.0
        _family(lines, "shardd_oldest_due_job_seconds", "gauge", _OLDEST_DUE, [("", age)])
        counted = max(0.0, status.now - status.queue.as_of)
        _family(lines, "shardd_queue_count_age_seconds", "gauge", "Time since the jobs were counted.", [("", counted)])
    _webhooks(lines, status.webhooks)
    states = [
        (f'{{shard="{s.shard}",state="{state}"}}', float(s.state == state))
        for s in status.shards
        for state in ShardState
    ]
    _family(lines, "shardd_shard_state", "gauge", "1 for the state that the shard is in.", states)
    for name, kind, text, attribute in _PER_SHARD:
        _family(lines, name, kind, text, _of_shards(status.shards, attribute))
    return "\n".join(lines) + "\n"


def _webhooks(lines: list[str], webhooks: Sequence[WebhookStatus]) -> None:
    failing = [(f'{{webhook="{one.name}"}}', float(one.failing)) for one in webhooks]
    behind = [(f'{{webhook="{one.name}"}}', one.behind) for one in webhooks if one.behind is not None]
    _family(lines, "shardd_webhook_failing", "gauge", "1 while a webhook's receiver fails or it is disabled.", failing)
    _family(lines, "shardd_webhook_behind_seconds", "gauge", "How long the oldest undelivered event waits.", behind)


def _of_shards(shards: Iterable[ShardStatus], attribute: str) -> list[tuple[str, float]]:
    values = ((s.shard, getattr(s, attribute)) for s in shards)
    return [(f'{{shard="{shard}"}}', float(value)) for shard, value in values if value is not None]


def _family(lines: list[str], name: str, kind: str, text: str, samples: list[tuple[str, float]]) -> None:
    lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{labels} {value:g}" if value < 1e6 else f"{name}{labels} {value!r}" for labels, value in samples]
