"""The health of a node as data: what counts as a problem, the sums, and the shape that scripts rely on."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shardd.config import parse_config
from shardd.states import ShardState, Verdict
from shardd.supervisor.admin.node import problems_of, shard_status, sum_up
from shardd.supervisor.problems import ProblemKind
from shardd.supervisor.status import NodeStatus, NodeSummary, QueueStatus, ShardStatus, Status, Totals, WebhookStatus
from shardd.supervisor.workers.shard import Shard

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def shard(**fields: Any) -> ShardStatus:
    plain = ShardStatus(
        shard=0, state="running", since=1.0, epoch=7, pid=4711, devices=10, ready=8, parked=2, open_clients=3, in_flight=4,
        sent=100, failed=5, in_doubt=1, sent_per_second=2.5, restarts=0, lag=0.0, heartbeat_age=0.5, rss=1 << 26, fds=20,
        connects=9, error=None,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **fields)


def bare_shard() -> Shard:
    config = parse_config("state_dir: state", "test.yaml", {}).supervisor
    return Shard(index=3, config=config)


# ---- the shape


SHAPES = {
    Status: {
        "version", "node", "pid", "state", "healthy", "problems", "problem_kinds", "problems_by_kind", "notes", "started_at",
        "now", "database", "config", "shards", "totals", "queue", "starting", "migrated", "ready", "lease_margin",
        "device_states", "nodes",
    },
    NodeStatus: {
        "node", "id", "own", "host", "version", "state", "since", "cordoned", "shards", "planned", "devices", "in_flight",
        "sent_per_second", "problems",
    },
    NodeSummary: {"devices", "in_flight", "sent_per_second", "problems"},
    ShardStatus: {
        "shard", "state", "since", "epoch", "pid", "devices", "ready", "parked", "open_clients", "in_flight", "sent", "failed",
        "in_doubt", "sent_per_second", "restarts", "lag", "heartbeat_age", "rss", "fds", "connects", "error",
        "previews_left_out", "deaths_lately", "last_death", "last_death_at",
    },
    Totals: {
        "devices", "ready", "parked", "sandbox_devices", "open_clients", "in_flight", "sent", "failed", "in_doubt",
        "sent_per_second", "shard_down",
    },
    QueueStatus: {
        "queued", "scheduled", "sending", "oldest_due_age", "as_of", "running_campaigns", "paused_campaigns", "paused_jobs",
        "in_doubt", "waits",
    },
    WebhookStatus: {"name", "failing", "disabled", "behind"},
}  # fmt: skip


@pytest.mark.parametrize("kind", list(SHAPES))
def test_no_field_is_renamed_or_taken_away(kind: type[msgspec.Struct]) -> None:
    assert SHAPES[kind] <= {field.encode_name for field in msgspec.structs.fields(kind)}


def test_the_status_of_a_node_that_knows_no_later_field_is_read() -> None:
    told: dict[str, Any] = dict.fromkeys(("since", "devices", "in_flight", "sent_per_second", "problems"))
    told |= dict.fromkeys(("node", "id", "host", "version", "state"), "x")
    told |= {"own": True, "cordoned": False, "shards": [], "planned": []}
    assert msgspec.convert(told, NodeStatus).seen_ago is None


def test_it_is_plain_json() -> None:
    text = msgspec.json.encode(shard(lag=None))
    assert msgspec.json.decode(text)["lag"] is None
    assert msgspec.json.decode(text, type=ShardStatus) == shard(lag=None)


# ---- problems


def problems(*shards: ShardStatus, error: str | None = None, leases: bool = True) -> list[str]:
    return [p.text for p in problems_of(list(shards), database_error=error, leases_known=leases)]


def test_a_node_whose_shards_run_is_healthy() -> None:
    assert problems(shard(), shard(shard=1, state="drained")) == []


@pytest.mark.parametrize("state", sorted(set(ShardState) - {ShardState.RUNNING, ShardState.DRAINED}))
def test_a_shard_that_does_not_run_is_a_problem(state: ShardState) -> None:
    mend = "; start it again: shardd restart {}" if state is ShardState.BROKEN else ""
    assert problems(shard(), shard(shard=1, state=state.value)) == [f"shard 1 is {state.value}" + mend.format(1)]
    (told,) = problems(shard(state=state.value, error="worker died: SIGKILL"))
    assert told == f"shard 0 is {state.value}: worker died: SIGKILL" + mend.format(0)


def test_a_shard_of_another_node_is_not_a_problem() -> None:
    assert problems(shard(), shard(shard=1, state="waiting", epoch=None, error="old")) == []


def test_an_unreachable_database_is_named_before_the_leases() -> None:
    assert problems(shard(), error="nothing answers", leases=False) == ["database: nothing answers"]
    assert problems(shard(), leases=False) == ["leases cannot be renewed: nothing is claimed"]


# ---- one shard


def test_devices_are_ready_or_parked() -> None:
    seen = shard_status(bare_shard(), 7, 5, {}, 0)
    assert (seen.devices, seen.ready, seen.parked) == (7, 5, 2)


def test_a_shard_without_a_worker_has_no_numbers_of_one() -> None:
    seen = shard_status(bare_shard(), 0, 0, {}, 0)
    assert (seen.shard, seen.state, seen.epoch, seen.pid) == (3, "waiting", None, None)
    assert [seen.lag, seen.heartbeat_age, seen.rss, seen.fds, seen.connects, seen.error] == [None] * 6
    assert (seen.open_clients, seen.sent_per_second) == (0, 0.0)


def test_every_verdict_is_counted_where_it_belongs() -> None:
    totals = {verdict: 10**number for number, verdict in enumerate(Verdict)}
    seen = shard_status(bare_shard(), 0, 0, totals, 6)
    assert seen.sent == totals[Verdict.SENT]
    assert seen.failed == totals[Verdict.PERMANENT] + totals[Verdict.TRANSIENT]
    assert seen.in_doubt == totals[Verdict.IN_DOUBT]
    assert seen.in_flight == 6


def test_the_rate_is_that_of_the_last_seconds() -> None:
    a_shard = bare_shard()
    now = time.monotonic()
    for second in range(100):
        a_shard.sample(now + second, sent=second * (4 if second < 50 else 2))
    assert shard_status(a_shard, 0, 0, {}, 0).sent_per_second == 2.0


# ---- sums


def test_the_totals_are_sums() -> None:
    some = [shard(), shard(shard=1, sent_per_second=0.75), shard(shard=2, sent=0, ready=10, parked=0)]
    totals = sum_up(some, sandbox_devices=12)
    assert totals.sandbox_devices == 12
    for name in SHAPES[Totals] - {"sandbox_devices", "shard_down"}:
        assert getattr(totals, name) == sum(getattr(one, name) for one in some), name


def test_devices_are_ready_in_vain_while_their_shard_does_not_run() -> None:
    some = [
        shard(),
        shard(shard=1, state="broken", ready=4),
        shard(shard=2, state="waiting", epoch=None, ready=2),
        shard(shard=3, state="waiting", epoch=None, ready=1),
    ]
    totals = sum_up(some, sandbox_devices=0, elsewhere={2})
    assert (totals.ready, totals.shard_down) == (15, 5)


def test_no_shards_sum_up_to_nothing() -> None:
    totals = sum_up([], sandbox_devices=0)
    assert all(getattr(totals, name) == 0 for name in SHAPES[Totals])


def test_the_guide_has_the_fix_of_every_kind_of_problem() -> None:
    page = (Path(__file__).parents[3] / "shardd/guide/operate.md").read_text()
    problems = page.partition("\n## Problems\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in problems.splitlines() if line.startswith("| `")]
    told = {word for row in rows for word in row.replace("`", "").replace(",", "").split()}
    assert {kind.value for kind in ProblemKind} <= told
