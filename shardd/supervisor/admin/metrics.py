"""The health of a node as Prometheus text (exposition format 0.0.4), made from the same data as `shardd status`.

Most metrics are fields of the status that are marked with their `Metric`; those with a label of their own are made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_type_hints

import msgspec
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as AnyMetric
from prometheus_client.registry import Collector

from shardd.states import ShardState
from shardd.supervisor.status import Metric, ShardStatus, Status, WebhookStatus

Family = CounterMetricFamily | GaugeMetricFamily


def render_metrics(status: Status, more: Callable[[], Iterable[AnyMetric]] = tuple) -> bytes:
    """The whole page; `more`: families that are not made from the status."""
    return generate_latest(_StatusCollector(status, more))


class _StatusCollector(Collector):
    """Of one moment; without a registry, so that nothing is shared and nothing else is shown."""

    def __init__(self, status: Status, more: Callable[[], Iterable[AnyMetric]]) -> None:
        self._status = status
        self._more = more

    def collect(self) -> Iterator[AnyMetric]:
        status, queue = self._status, self._status.queue
        yield from _fields(Status, (), {"": status})
        yield _family(
            Metric("shardd_problems", "What keeps the node from being healthy, by kind."),
            ("kind",),
            (((kind,), number) for kind, number in status.problem_kinds.items()),
        )
        yield _family(
            Metric("shardd_devices", "Devices by state; those that are paused only as paused."),
            ("state",),
            (((state,), number) for state, number in status.device_states.items()),
        )
        if queue is not None:
            states = ("queued", "scheduled", "sending", "in_doubt")
            yield _family(
                Metric("shardd_jobs", "Jobs that are not over, by state; in_doubt: they wait for a person."),
                ("state",),
                (((state,), getattr(queue, state)) for state in states),
            )
            yield _family(
                Metric(
                    "shardd_unreadable_messages",
                    "Messages of the last 24 hours that a device of their recipient cannot decrypt.",
                ),
                ("resent",),
                ((("yes",), queue.resent), (("no",), queue.unreadable - queue.resent)),
            )
            yield GaugeMetricFamily(
                "shardd_oldest_due_job_seconds",
                "For how long the oldest job is due that its pace, its device and its campaign allow to be sent.",
                queue.oldest_due_age or 0.0,
            )
            campaigns = (("running", queue.running_campaigns), ("paused", queue.paused_campaigns))
            yield _family(
                Metric("shardd_campaigns", "Campaigns that have jobs in the queue, by state."),
                ("state",),
                (((state,), number) for state, number in campaigns),
            )
            yield GaugeMetricFamily(
                "shardd_paused_campaign_jobs", "Jobs of paused campaigns.", float(queue.paused_jobs)
            )
            counted = max(0.0, status.now - queue.as_of)
            yield GaugeMetricFamily("shardd_queue_count_age_seconds", "Time since the jobs were counted.", counted)
        yield from _fields(WebhookStatus, ("webhook",), {one.name: one for one in status.webhooks})
        yield _family(
            Metric("shardd_shard_state", "1 for the state that the shard is in."),
            ("shard", "state"),
            (((str(s.shard), state), s.state == state) for s in status.shards for state in ShardState),
        )
        yield from _fields(ShardStatus, ("shard",), {str(shard.shard): shard for shard in status.shards})
        yield from self._more()


def _fields(kind: type[msgspec.Struct], label: tuple[str, ...], rows: Mapping[str, msgspec.Struct]) -> Iterator[Family]:
    """A family for each marked field of `kind`, with a sample for each row; unknown values (None) are left out."""
    for field, hint in get_type_hints(kind, include_extras=True).items():
        for metric in getattr(hint, "__metadata__", ()):
            values = (((key,) * len(label), getattr(row, field)) for key, row in rows.items())
            yield _family(metric, label, ((key, value) for key, value in values if value is not None))


def _family(metric: Metric, labels: tuple[str, ...], samples: Iterable[tuple[tuple[str, ...], Any]]) -> Family:
    kind = CounterMetricFamily if metric.name.endswith("_total") else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=labels)
    for values, value in samples:
        family.add_metric(values, float(value))
    return family
