"""The metrics page: valid exposition text whose numbers are those of the status."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.states import ShardState
from shardd.supervisor.admin.metrics import render_metrics
from shardd.supervisor.admin.node import sum_up
from shardd.supervisor.status import QueueStatus, ShardStatus, Status, WebhookStatus

SAMPLE = re.compile(r'^([a-z_]+)(\{[a-z]+="[^"\\\n]*"(?:,[a-z]+="[^"\\\n]*")*\})? (\S+)$')


def shard(index: int = 0, **fields: Any) -> ShardStatus:
    plain = ShardStatus(
        shard=index, state="running", since=1.0, epoch=7, pid=4711, devices=10, ready=8, parked=2, open_clients=3, in_flight=4,
        sent=100, failed=5, in_doubt=1, sent_per_second=2.5, restarts=6, lag=0.25, heartbeat_age=0.5, rss=123_456_789, fds=20,
        connects=9, error=None,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **fields)


def status(*shards: ShardStatus, queue: QueueStatus | None = None, healthy: bool = True) -> Status:
    return Status(
        version="0.1.0", node="host-a", pid=1, state="running", healthy=healthy,
        problems=[], problem_kinds={}, problems_by_kind={}, notes=[],
        started_at=1_800_000_000.25, now=1_800_000_001.0, database="embedded", config=None, shards=list(shards),
        totals=sum_up(shards, sandbox_devices=0), queue=queue,
    )  # fmt: skip


def parse(text: bytes) -> dict[str, float]:
    """Samples by name and labels; raises AssertionError for what a scraper would refuse."""
    page = text.decode()
    assert page.endswith("\n")
    samples: dict[str, float] = {}
    told: dict[str, str] = {}
    family = ""
    for line in page.splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            assert family not in told, f"{family} stands in two places"
            told[family] = ""
            assert len(line.split(" ", 3)[3]) > 5
        elif line.startswith("# TYPE "):
            assert line.split(" ")[2] == family
            told[family] = line.split(" ")[3]
            assert told[family] in ("gauge", "counter")
        else:
            found = SAMPLE.match(line)
            assert found is not None, line
            assert found[1] == family
            key = found[1] + (found[2] or "")
            assert key not in samples
            samples[key] = float(found[3])
    for name, kind in told.items():
        assert (kind == "counter") == name.endswith("_total"), name
        assert name.startswith("shardd_")
    return samples


def test_every_number_of_a_shard_is_there() -> None:
    samples = parse(render_metrics(status(shard(0), shard(1, sent=7))))
    assert samples["shardd_up"] == 1
    assert samples["shardd_start_time_seconds"] == 1_800_000_000.25
    assert samples['shardd_shard_sent_total{shard="0"}'] == 100
    assert samples['shardd_shard_sent_total{shard="1"}'] == 7
    for name, value in {
        "devices": 10, "devices_ready": 8, "devices_parked": 2, "open_clients": 3, "in_flight": 4, "failed_total": 5,
        "in_doubt_total": 1, "restarts_total": 6, "loop_lag_seconds": 0.25, "heartbeat_age_seconds": 0.5,
        "resident_bytes": 123_456_789, "open_fds": 20,
    }.items():  # fmt: skip
        assert samples[f'shardd_shard_{name}{{shard="0"}}'] == value


def test_an_unhealthy_node_is_down() -> None:
    assert parse(render_metrics(status(shard(), healthy=False)))["shardd_up"] == 0


@pytest.mark.parametrize("state", list(ShardState))
def test_a_shard_is_in_one_state(state: ShardState) -> None:
    samples = parse(render_metrics(status(shard(state=state.value))))
    told = {other: samples[f'shardd_shard_state{{shard="0",state="{other.value}"}}'] for other in ShardState}
    assert told == {other: float(other is state) for other in ShardState}


def test_unknown_values_are_left_out() -> None:
    page = render_metrics(status(shard(lag=None, heartbeat_age=None, rss=None, fds=None)))
    names = {key.split("{")[0] for key in parse(page)}
    assert not names & {"shardd_shard_loop_lag_seconds", "shardd_shard_resident_bytes", "shardd_jobs"}


def test_the_queue_is_shown_with_the_age_of_its_count() -> None:
    queue = QueueStatus(
        queued=2_000_000,
        scheduled=3,
        sending=4,
        in_doubt=7,
        oldest_due_age=None,
        as_of=1_799_999_961.0,
        unreadable=5,
        resent=2,
    )
    samples = parse(render_metrics(status(queue=queue)))
    states = ("queued", "scheduled", "sending", "in_doubt")
    assert [samples[f'shardd_jobs{{state="{state}"}}'] for state in states] == [2_000_000, 3, 4, 7]
    assert samples["shardd_queue_count_age_seconds"] == 40
    assert [samples[f'shardd_unreadable_messages{{resent="{word}"}}'] for word in ("yes", "no")] == [2, 3]
    assert samples["shardd_oldest_due_job_seconds"] == 0
    aged = msgspec.structs.replace(queue, oldest_due_age=12.5)
    assert parse(render_metrics(status(queue=aged)))["shardd_oldest_due_job_seconds"] == 12.5


def test_a_failing_webhook_is_shown_and_a_disabled_one_does_not_seem_up_to_date() -> None:
    hooks = [
        WebhookStatus(name="crm", failing=True, disabled=False, behind=75.5),
        WebhookStatus(name="off", failing=True, disabled=True, behind=None),
        WebhookStatus(name="shop", failing=False, disabled=False, behind=0.0),
    ]
    samples = parse(render_metrics(msgspec.structs.replace(status(shard()), webhooks=hooks)))
    assert [samples[f'shardd_webhook_failing{{webhook="{name}"}}'] for name in ("crm", "off", "shop")] == [1, 1, 0]
    behind = {name: value for name, value in samples.items() if name.startswith("shardd_webhook_behind_seconds")}
    assert behind == {
        'shardd_webhook_behind_seconds{webhook="crm"}': 75.5,
        'shardd_webhook_behind_seconds{webhook="shop"}': 0,
    }


@given(st.integers(0, 2**53), st.integers(0, 2**53), st.floats(0, 1e9))
def test_counters_are_exact(sent: int, failed: int, lag: float) -> None:
    samples = parse(render_metrics(status(shard(sent=sent, failed=failed, lag=lag))))
    assert samples['shardd_shard_sent_total{shard="0"}'] == sent
    assert samples['shardd_shard_failed_total{shard="0"}'] == failed
    assert samples['shardd_shard_loop_lag_seconds{shard="0"}'] == lag
