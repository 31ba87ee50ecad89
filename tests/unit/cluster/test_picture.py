"""What a node makes of what it read about all nodes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import msgspec

from shardd.queue.leases import Lease, Node
from shardd.states import DeviceState, NodeState
from shardd.supervisor.admin.node import LONGEST_PROBLEM
from shardd.supervisor.cluster.picture import FREE_SHOWN, ClusterPicture, summary_of
from shardd.supervisor.status import NodeSummary

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def node(name: str, state: NodeState = NodeState.SERVING, *, ttl: float = 30.0, margin: float | None = 5.0) -> Node:
    return Node(
        id=f"id-{name}", name=name, incarnation=uuid4(), shards=4, version="0.1.0", pid=1, host="host", state_dir="/x",
        place=None, ttl=ttl, margin=margin, started_at=NOW, cordoned_at=NOW if state == NodeState.CORDONED else None,
        summary=None, state=state, since=None if state == NodeState.SERVING else NOW, beat=None, timeline=None, seen_at=NOW,
        seen_ago=ttl + 10.0 if state == NodeState.SILENT else 1.0, rival=None, rival_age=None,
    )  # fmt: skip


def picture(*nodes: Node, held: dict[int, str], own: tuple[int, ...] = (), now: float = 0.0) -> ClusterPicture:
    """As the node `a` sees it."""
    seen = ClusterPicture("id-a")
    look(seen, *nodes, held=held, own=own, now=now)
    return seen


def look(seen: ClusterPicture, *nodes: Node, held: dict[int, str], own: tuple[int, ...] = (), now: float) -> None:
    seen.look(4, nodes, [Lease(shard, f"id-{holder}", 9.0) for shard, holder in held.items()], own, now)


def texts(seen: ClusterPicture) -> list[str]:
    return [problem.text for problem in seen.problems()]


def test_every_node_is_shown_with_what_it_holds_and_should_hold() -> None:
    gone = node("gone", NodeState.STOPPED)
    said = msgspec.to_builtins(NodeSummary(devices={"ready": 3}, problems=2, down=[1]))
    b = replace(node("b", NodeState.CORDONED), summary=said)
    seen = picture(node("a"), b, gone, held={0: "a", 1: "b"}, own=(0, 2, 3))
    a, b_status = seen.statuses()
    assert (a.node, a.own, a.state, a.shards, a.planned, a.devices) == (
        "a",
        True,
        "serving",
        [0, 2, 3],
        [0, 1, 2, 3],
        None,
    )
    assert (b_status.node, b_status.own, b_status.state, b_status.shards, b_status.planned) == (
        "b",
        False,
        "cordoned",
        [1],
        [],
    )
    assert (b_status.devices, b_status.problems, b_status.cordoned, b_status.since) == (
        {"ready": 3},
        2,
        True,
        NOW.timestamp(),
    )
    assert (a.down, b_status.down) == (None, [1])
    assert texts(seen) == []


def test_what_a_silent_node_said_last_is_not_shown_nor_what_another_release_says() -> None:
    silent = replace(node("b", NodeState.SILENT), summary={"problems": 2})
    (_, status) = picture(node("a"), silent, held={}).statuses()
    assert status.problems is None
    newer = replace(node("c"), summary={"problems": 1, "planets": 9})
    assert summary_of(newer) == NodeSummary(problems=1)
    assert summary_of(replace(newer, summary={"problems": "many"})) is None


def test_a_summary_is_small() -> None:
    many = 10**9
    devices = {state.value: many for state in DeviceState} | {"paused": many}
    summary = NodeSummary(
        devices=devices, in_flight=many, sent_per_second=many + 0.12, problems=many, problem="x" * LONGEST_PROBLEM
    )
    assert len(msgspec.json.encode(summary)) < 2048


def test_a_shard_that_nobody_holds_for_long_is_a_problem_until_somebody_does() -> None:
    nodes = node("a"), node("b")
    seen = picture(*nodes, held={0: "a", 1: "b"}, own=(0,), now=100.0)
    assert seen.any_free
    assert texts(seen) == []
    # One of them moved meanwhile, and is free again.
    look(seen, *nodes, held={1: "b", 2: "b"}, own=(0,), now=109.0)
    assert texts(seen) == []
    look(seen, *nodes, held={1: "b"}, own=(0,), now=100.0 + FREE_SHOWN)
    assert texts(seen) == ["shard 3 has had no node for 10 s: its jobs are not sent; see: shardd cluster list"]
    look(seen, *nodes, held={1: "b"}, own=(0,), now=130.0)
    (text,) = texts(seen)
    assert text.startswith("shards 2, 3 have had no node for 30 s: ")
    look(seen, *nodes, held={1: "b", 2: "b", 3: "b"}, own=(0,), now=131.0)
    assert not seen.any_free
    assert texts(seen) == []


def test_with_every_node_cordoned_that_is_the_problem_at_once() -> None:
    cordoned = node("a", NodeState.CORDONED), node("b", NodeState.CORDONED)
    seen = picture(*cordoned, held={1: "b"}, own=(0,))
    assert texts(seen) == [
        "no node takes shards, because a, b are cordoned: nothing is sent; shardd cluster uncordon NODE"
    ]
    assert seen.notes() == [
        "this node is cordoned since 2026-03-01 12:00 UTC, and takes no shards: shardd cluster uncordon a"
    ]
    # Also when the only one that could is dead.
    seen = picture(cordoned[0], node("b", NodeState.SILENT), held={}, own=())
    assert (
        texts(seen)[0] == "no node takes shards, because a is cordoned: nothing is sent; shardd cluster uncordon NODE"
    )
    # A stop frees shards, too; nobody is to take them.
    assert texts(picture(node("a", NodeState.LEAVING), held={}, now=100.0)) == []


def test_nodes_with_other_lease_settings_are_named() -> None:
    seen = picture(node("a"), node("b"), node("c", ttl=6.0, margin=2.0), held={}, own=(0, 1, 2, 3))
    (text,) = texts(seen)
    which = "ttl: 30s, margin: 5s on a, b; ttl: 6s, margin: 2s on c"
    assert text == f"the nodes have different `lease` settings: {which}. Give all of them the same"
    gone = node("c", NodeState.SILENT, ttl=6.0)
    (text,) = texts(picture(node("a"), gone, node("d", margin=None), held={}, own=(0, 1, 2, 3)))
    assert text.startswith("node c on host was not heard of")


def test_a_node_that_misses_renewals_is_a_problem_before_it_is_silent() -> None:
    said = msgspec.to_builtins(NodeSummary(devices={"ready": 3}, problems=0, sent_per_second=7.0))
    late = replace(node("b"), summary=said, seen_ago=12.0)
    seen = picture(node("a"), late, held={0: "b"}, own=(1, 2, 3))
    (text,) = texts(seen)
    assert text.startswith(
        "node b on host was not heard of for 12s: it is down or cut off from the database; its shards go to"
    )
    assert [(one.seen_ago, one.sent_per_second) for one in seen.statuses()] == [(None, None), (12.0, None)]
    look(seen, node("a"), replace(late, seen_ago=5.1), held={0: "b"}, own=(1, 2, 3), now=5.0)
    assert texts(seen) == []
    assert [(one.seen_ago, one.sent_per_second) for one in seen.statuses()] == [(None, None), (None, 7.0)]
    look(seen, node("a"), node("b", NodeState.SILENT), held={}, own=(0, 1, 2, 3), now=35.0)
    (text,) = texts(seen)
    assert "go to other nodes" not in text
    gone = replace(node("b", NodeState.SILENT), seen_ago=90_000.0)
    look(seen, node("a"), gone, held={}, own=(0, 1, 2, 3), now=90_000.0)
    assert texts(seen) == []
    assert seen.notes() == ["node b on host is silent since 2026-03-01 12:00 UTC"]
