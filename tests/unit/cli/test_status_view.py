"""The status view in many terminal sizes: everything important is shown, and nothing is truncated silently."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from shardd.cli.status.view import render_status
from shardd.states import ShardState
from shardd.supervisor.admin.node import problems_of, sum_up
from shardd.supervisor.status import NodeStatus, QueueStatus, ShardStatus, Status


def shard(index: int, state: ShardState, *, sent: int) -> ShardStatus:
    up = state is ShardState.RUNNING
    return ShardStatus(
        shard=index,
        state=state.value,
        since=0.0,
        epoch=1 + index,
        pid=4_000_000 + index if up else None,
        devices=375,
        ready=370,
        parked=5,
        open_clients=120,
        in_flight=64,
        sent=sent,
        failed=12,
        in_doubt=1,
        sent_per_second=123.4,
        restarts=0 if up else 7,
        lag=0.012 if up else None,
        heartbeat_age=0.9 if up else None,
        rss=330_000_000,
        fds=250,
        connects=900,
        error=None if up else "killed by signal 9 (SIGKILL)",
    )


def node(shards: int, *, down: dict[int, ShardState] | None = None, sent: int = 1_234_567) -> Status:
    states = down or {}
    rows = [shard(index, states.get(index, ShardState.RUNNING), sent=sent) for index in range(shards)]
    problems = [problem.text for problem in problems_of(rows, database_error=None, leases_known=True)]
    return Status(
        version="1.2.3",
        node="host-a",
        pid=1,
        state="running",
        healthy=not problems,
        problems=problems,
        problem_kinds={},
        problems_by_kind={},
        notes=[],
        started_at=0.0,
        now=7_500.0,
        database="embedded",
        config=None,
        shards=rows,
        totals=sum_up(rows, sandbox_devices=0),
        queue=QueueStatus(queued=1_000_000, scheduled=3, sending=4, oldest_due_age=754.0, as_of=7_491.0),
    )


def paint(status: Status, width: int, height: int | None = None) -> list[str]:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(render_status(status, width=width, height=height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("shards", [1, 8, 64])
@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_no_cell_is_cut_off(width: int, shards: int) -> None:
    lines = paint(node(shards, down={0: ShardState.DRAINING}), width)
    assert "…" not in "".join(lines)
    assert all(len(line) <= width for line in lines)
    rows = [line for line in lines if " 1234567 " in line]
    assert [row.split()[0] for row in rows] == [str(index) for index in range(shards)]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 30), (100, 16), (80, 40)])
def test_a_live_picture_fits_its_screen_and_shows_the_unhealthy_shards(width: int, height: int) -> None:
    down = {40: ShardState.BROKEN, 63: ShardState.BACKOFF}
    lines = paint(node(64, down=down), width, height)
    assert len(lines) <= height
    rows = [line.split() for line in lines]
    assert any(row[:2] == ["40", "broken"] for row in rows)
    assert any(row[:2] == ["63", "backoff"] for row in rows)
    shown = sum(" 1234567 " in line for line in lines)
    assert f"and {64 - shown} more shards, all healthy" in lines[-1]


def test_hidden_unhealthy_shards_are_not_called_healthy() -> None:
    down = dict.fromkeys(range(30), ShardState.BACKOFF)
    lines = paint(node(64, down=down), 80, 24)
    assert "not all healthy" in lines[-1]
    assert "and 26 more problems" in "\n".join(lines)


def test_large_sums_are_shortened_and_totals_are_told_in_full() -> None:
    lines = paint(node(8, sent=87_654_321), 80)
    assert "87.7M" in "\n".join(lines)
    assert any("701,234,568 since the start" in line for line in lines)


def test_the_head_tells_health_queue_and_the_oldest_due_job() -> None:
    text = "\n".join(paint(node(2), 120))
    assert "shardd 1.2.3 on host-a: healthy  up 2h 5m, pid 1, database embedded" in text
    assert "1,000,000 queued, 3 scheduled, 4 sending; oldest due 12m 34s" in text
    assert "sandbox" not in text


def test_a_count_that_is_old_tells_its_age() -> None:
    status = node(2)
    assert "as of" not in "\n".join(paint(status, 80))
    assert status.queue is not None
    old = msgspec.structs.replace(status, queue=msgspec.structs.replace(status.queue, as_of=7_460.0))
    assert "oldest due 12m 34s (as of 40s ago)" in "\n".join(paint(old, 120))


def test_jobs_in_doubt_are_told_with_what_to_do() -> None:
    status = node(2)
    assert "for you to decide" not in "\n".join(paint(status, 80))
    assert status.queue is not None
    doubts = msgspec.structs.replace(status, queue=msgspec.structs.replace(status.queue, in_doubt=2))
    assert "in doubt  2 jobs for you to decide: shardd job list --state=in_doubt" in "\n".join(paint(doubts, 80))


def test_unreadable_messages_are_told_with_where_they_are() -> None:
    status = node(2)
    assert "unreadable" not in "\n".join(paint(status, 80))
    assert status.queue is not None
    unreadable = msgspec.structs.replace(status, queue=msgspec.structs.replace(status.queue, unreadable=3, resent=2))
    text = "\n".join(paint(unreadable, 120))
    assert "unreadable  3 messages in the last 24 hours, 2 sent again: shardd job list --unreadable" in text


def test_it_is_told_what_jobs_wait_for_and_which_devices_are_ready_in_vain() -> None:
    status = node(2, down={1: ShardState.BROKEN})
    assert status.queue is not None
    queue = msgspec.structs.replace(status.queue, waits={"its device: logged_out": 1_200, "its daily limit": 3})
    text = "\n".join(paint(msgspec.structs.replace(status, queue=queue), 120))
    assert "waits    its device: logged_out (1,200); its daily limit (3)" in text
    assert "370 ready, 370 ready whose shard does not run, 10 parked" in text


def test_a_worker_that_died_lately_is_told_with_how_and_when() -> None:
    status = node(3)
    shards = [
        status.shards[0],
        msgspec.structs.replace(status.shards[1], deaths_lately=3, last_death="SIGKILL", last_death_at=7_380.0),
        msgspec.structs.replace(
            status.shards[2], deaths_lately=1, last_death="exit code 1: OSError", last_death_at=7_490.0
        ),
    ]
    lines = [line.strip() for line in paint(msgspec.structs.replace(status, shards=shards), 120)]
    first = lines.index(next(line for line in lines if line.startswith("died")))
    assert lines[first].endswith("worker of shard 2: exit code 1: OSError, 10s ago")
    assert lines[first + 1].endswith("worker of shard 1: SIGKILL, 2m ago; 3 in the last hour")


def test_campaigns_are_told_when_there_are_some() -> None:
    status = node(2)
    assert status.queue is not None
    assert "campaigns" not in "\n".join(paint(status, 80))
    queue = msgspec.structs.replace(status.queue, running_campaigns=2, paused_campaigns=1, paused_jobs=1_000_000)
    text = "\n".join(paint(msgspec.structs.replace(status, queue=queue), 80))
    assert "campaigns  2 running, 1 paused with 1,000,000 jobs" in text


def test_spare_workers_are_shown_where_there_are_any() -> None:
    assert "spare" not in "\n".join(paint(node(2), 120))
    (line,) = (line for line in paint(msgspec.structs.replace(node(2), spares=1), 120) if "spare" in line)
    assert line.startswith("leases")
    assert line.rstrip().endswith("; 1 spare worker")


def test_a_status_that_is_no_longer_true_says_so() -> None:
    picture = render_status(node(2), width=80, stale=True)
    console = Console(width=80, file=io.StringIO())
    console.print(picture)
    assert isinstance(console.file, io.StringIO)
    assert "was healthy" in console.file.getvalue()


def cluster(*names: str) -> list[NodeStatus]:
    """The first one is this node, the second one is cordoned and gives its shards away, the third one is silent."""
    states = ["serving", "cordoned", "silent", *(["serving"] * len(names))]
    return [
        NodeStatus(
            node=name, id=name, own=number == 0, host="host", version="1.2.3", state=states[number],
            since=None if states[number] == "serving" else 7_320.0, cordoned=states[number] == "cordoned",
            seen_ago=90.0 if states[number] == "silent" else None,
            shards=[4, 5, 6, 7] if number == 1 else [], planned=[4, 5, 6, 7] if number == 0 else [],
            devices=None if states[number] == "silent" else {"ready": 2900, "banned": 100},
            in_flight=3, sent_per_second=None if states[number] == "silent" else 12.34,
            problems=None if states[number] == "silent" else number,
        )
        for number, name in enumerate(names)
    ]  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_node_has_a_row_that_fits(width: int) -> None:
    status = node(2)
    assert not any("cordoned" in line for line in paint(status, width))
    nodes = cluster("berlin", "frankfurt-am-main-7", "x")
    lines = paint(msgspec.structs.replace(status, nodes=nodes), width)
    assert all(len(line) <= width for line in lines)
    heading = next(number for number, line in enumerate(lines) if line.startswith("node "))
    one, two, three = (line.split() for line in lines[heading + 1 : heading + 4])
    assert one[:8] == ["berlin", "serving", "0", "→", "4", "2900/3000", "12.3", "0"]
    assert two[0].startswith("frankfurt")
    assert two[1:9] == ["cordoned", "3m", "4", "→", "0", "2900/3000", "12.3", "1"]
    assert three[:7] == ["x", "silent", "3m", "0", "-", "-", "-"]


def test_a_live_picture_shows_first_the_nodes_that_do_not_serve() -> None:
    nodes = cluster("a", "b", "c", *(f"other-{number}" for number in range(9)))
    lines = paint(msgspec.structs.replace(node(64), nodes=nodes), 80, 24)
    assert len(lines) <= 24
    text = "\n".join(lines)
    assert "cordoned 3m" in text
    assert "silent 3m" in text
    assert "more nodes; shardd cluster list" in text


def test_a_node_without_leases_says_why() -> None:
    nodes = cluster("a", "b")
    rows = [msgspec.structs.replace(row, epoch=None) for row in node(2).shards]
    idle = msgspec.structs.replace(node(2), shards=rows, nodes=nodes, ready=True)
    assert "leases  none: other nodes have the shards" in " ".join(" ".join(paint(idle, 80)).split("  "))
    alone = msgspec.structs.replace(idle, nodes=[])
    assert "none: no node is known to have the shards" in "\n".join(paint(alone, 80))
    late = msgspec.structs.replace(idle, ready=False)
    assert "none: its leases lapsed, because they were not renewed in time" in "\n".join(paint(late, 120))
    away = msgspec.structs.replace(late, problem_kinds={"database": 1})
    assert "none: its leases lapsed, because the database does not answer" in "\n".join(paint(away, 120))
    assert "none: this node is stopping" in "\n".join(paint(msgspec.structs.replace(away, state="stopping"), 80))
    mine = [msgspec.structs.replace(each, own=each.node == "b") for each in nodes]
    assert "none: this node is cordoned" in "\n".join(paint(msgspec.structs.replace(idle, nodes=mine), 80))
