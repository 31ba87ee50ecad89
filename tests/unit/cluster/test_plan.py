"""How nodes share the shards: evenly, with few moves, and each of them alike."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shardd.supervisor.cluster.plan import plan, reserve

names = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8, unique=True)
counts = st.integers(1, 64)


@st.composite
def clusters(draw: st.DrawFn, most: int = 64) -> tuple[int, list[str], dict[int, str]]:
    """Any shards, nodes and leases, also of nodes that are gone and of shards that the config no longer has."""
    shards, nodes = draw(st.integers(1, most)), draw(names)
    holders = st.sampled_from([*nodes, "gone", "long gone"])
    return shards, nodes, draw(st.dictionaries(st.integers(0, 70), holders))


def spread(planned: dict[int, str], nodes: list[str]) -> int:
    """By how much the largest share exceeds the smallest."""
    sizes = Counter(planned.values())
    return max(sizes[node] for node in nodes) - min(sizes[node] for node in nodes)


def test_the_plan_never_changes() -> None:
    # Another value here means that nodes of two releases disagree while one is replaced by the other.
    nodes = ["host-a", "host-b", "host-c"]
    fresh = plan(12, nodes, {})
    assert "".join(fresh[shard][-1] for shard in range(12)) == "aacbacbbcbac"
    joined = plan(12, [*nodes, "host-d"], fresh)
    assert "".join(joined[shard][-1] for shard in range(12)) == "dadbacbbcdac"


@given(clusters())
def test_every_shard_has_a_node_and_shares_are_even_to_within_one(
    cluster: tuple[int, list[str], dict[int, str]],
) -> None:
    shards, nodes, held = cluster
    planned = plan(shards, nodes, held)
    assert set(planned) == set(range(shards))
    assert set(planned.values()) <= set(nodes)
    assert spread(planned, nodes) <= 1


@given(clusters(), st.randoms())
def test_every_node_plans_the_same(cluster: tuple[int, list[str], dict[int, str]], rng: object) -> None:
    shards, nodes, held = cluster
    pairs = list(held.items())
    planned = plan(shards, nodes, held)
    for each in (nodes, pairs):
        rng.shuffle(each)  # type: ignore[attr-defined]  # hypothesis' Random
    assert plan(shards, nodes, dict(pairs)) == planned


@given(clusters())
def test_a_plan_that_is_carried_out_stays(cluster: tuple[int, list[str], dict[int, str]]) -> None:
    shards, nodes, held = cluster
    planned = plan(shards, nodes, held)
    assert plan(shards, nodes, planned) == planned


@given(clusters(most=12), st.data())
def test_what_is_where_it_should_be_stays_while_the_rest_moves(
    cluster: tuple[int, list[str], dict[int, str]], data: st.DataObject
) -> None:
    """Shards are given back and taken one by one, and every node plans anew each time."""
    shards, nodes, held = cluster
    planned = plan(shards, nodes, held)
    moving = [shard for shard in range(shards) if held.get(shard) != planned[shard]]
    for shard in data.draw(st.permutations(moving)):
        held.pop(shard, None)
        kept = {kept: node for kept, node in held.items() if node == planned.get(kept)}
        assert plan(shards, nodes, held).items() >= kept.items()
        held[shard] = planned[shard]


@given(counts, names, st.data())
def test_whoever_looks_first_all_shards_of_a_dead_node_are_taken(
    shards: int, nodes: list[str], data: st.DataObject
) -> None:
    """Each node looks once: nothing tells it that another one has taken its own share."""
    held = {shard: node for shard, node in plan(shards, [*nodes, "dead"], {}).items() if node != "dead"}
    for node in data.draw(st.permutations(nodes)):
        planned = plan(shards, nodes, held)
        held |= {shard: node for shard, taker in planned.items() if taker == node and shard not in held}
    assert set(held) == set(range(shards))


@given(counts, names)
def test_a_node_that_joins_moves_at_most_its_share_rounded_up(shards: int, nodes: list[str]) -> None:
    held: dict[int, str] = {}
    for number in range(1, len(nodes) + 1):
        planned = plan(shards, nodes[:number], held)
        moved = [shard for shard, node in held.items() if planned[shard] != node]
        assert len(moved) <= -(-shards // number)
        assert all(planned[shard] == nodes[number - 1] for shard in moved)
        held = planned


@given(counts, names)
def test_a_node_that_leaves_moves_only_its_own_shards(shards: int, nodes: list[str]) -> None:
    held = plan(shards, nodes, {})
    for number in range(len(nodes) - 1, 0, -1):
        planned = plan(shards, nodes[:number], held)
        assert all(planned[shard] == node for shard, node in held.items() if node != nodes[number])
        held = planned


def test_without_nodes_nobody_holds_anything() -> None:
    assert plan(3, [], {0: "gone"}) == {}


@given(clusters(most=24))
def test_a_node_has_reserves_for_all_that_it_gets_when_another_is_lost(
    case: tuple[int, list[str], dict[int, str]],
) -> None:
    shards, nodes, held = case
    before = plan(shards, nodes, held)
    has = Counter(before.values())
    for lost in nodes:
        left = [node for node in nodes if node != lost]
        after = Counter(plan(shards, left, {shard: node for shard, node in before.items() if node != lost}).values())
        assert all(after[node] - has[node] <= reserve(shards, len(nodes), has[node]) for node in left)


def test_reserves_are_no_larger_than_needed() -> None:
    assert [reserve(8, nodes, 8 // nodes) for nodes in (1, 2, 4, 8)] == [0, 4, 1, 1]
    assert reserve(2, 3, 0) == 1, "a node that stands by"
    assert reserve(2, 3, 1) == 0
