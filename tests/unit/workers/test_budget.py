"""When a worker is replaced for its resource usage, and when the budget is too small."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from shardd.config.load import parse_config
from shardd.ipc import Heartbeat
from shardd.states import ShardState
from shardd.supervisor.workers.budget import OFTEN_WITHIN, memory_problems, next_to_recycle

MIB = 2**20


def budget(**options: Any) -> Any:
    recycle = {"connects": 0, "fds": 1_000_000, "rss": "1000MiB", **options}
    return parse_config(f"{{state_dir: state, worker: {{recycle: {recycle}}}}}", "test.yaml", {}).worker.recycle


def shard(rss: int = 0, at_start: int = 0, *, connects: int = 0, **more: Any) -> Any:
    beat = Heartbeat(0.0, 1, rss * MIB, 10, connects)
    process = SimpleNamespace(beat=beat, rss_at_start=at_start * MIB)
    known = {
        "index": 3,
        "epoch": 1,
        "held": False,
        "state": ShardState.RUNNING,
        "process": process,
        "outgrown": deque(),
    }
    return SimpleNamespace(**(known | more))


@pytest.mark.parametrize(
    ("rss", "at_start", "replaced"),
    [
        (999, 100, False),
        (1000, 100, True),
        (1000, 750, True),
        (1000, 751, False),  # it has not grown by a quarter of the budget
        (1250, 1000, True),
        (1249, 1000, False),  # it was larger than its budget from its start
    ],
)
def test_a_worker_is_replaced_when_it_is_too_large_and_has_grown(rss: int, at_start: int, *, replaced: bool) -> None:
    found = next_to_recycle([shard(rss, at_start)], budget())
    assert (found is not None) is replaced
    if found is not None:
        assert found[1].memory
        assert found[1].text == f"rss {rss * MIB} of {1000 * MIB}"


def test_a_worker_that_has_spent_something_else_is_replaced_in_order() -> None:
    found = next_to_recycle([shard(2000, 2000, connects=50)], budget(connects=50))
    assert found is not None
    assert (found[1].text, found[1].memory) == ("connects 50 of 50", False)


def test_without_a_budget_nothing_is_spent_nor_too_small() -> None:
    large = shard(10_000, 9000, outgrown=deque([0.0] * 10))
    assert next_to_recycle([large], budget(rss=0)) is None
    assert list(memory_problems([large], budget(rss=0), 1.0)) == []


def test_none_is_replaced_while_another_is_not_well() -> None:
    ill = shard(index=4, state=ShardState.BACKOFF, process=None)
    assert next_to_recycle([ill, shard(2000)], budget()) is None


def test_a_budget_that_workers_need_from_their_start_is_named() -> None:
    assert list(memory_problems([shard(800, 750)], budget(), 0.0)) == []
    (problem,) = memory_problems(
        [shard(800, 751), shard(2000, 1800, index=5), shard(index=6, process=None)], budget(), 0.0
    )
    assert problem.text == (
        "worker.recycle.rss is 1000MiB, and the worker of shard 5 takes 1800MiB before it sends anything: it is replaced only "
        "when it has grown by a quarter of that setting; raise it to 2401MiB or more"
    )


def test_a_shard_that_is_replaced_again_and_again_is_named() -> None:
    now = 10_000.0
    often = deque([now - 3000, now - 800, now - 500, now - 10])
    (problem,) = memory_problems([shard(outgrown=often)], budget(), now)
    assert problem.text.startswith(
        "the worker of shard 3 was replaced 3 times within 15 minutes because it grew beyond"
    )
    assert list(memory_problems([shard(outgrown=often)], budget(), now - 700 + OFTEN_WITHIN)) == []
