"""Spare workers with two nodes: who sends for a node that was killed, and what is left when the supervisor is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.acceptance.test_nodes import deliveries, kill_all, node_on, served_by
from tests.support.daemon import Daemon, Producer, wait_gone


def pids(status: dict[str, Any]) -> set[int]:
    return {shard["pid"] for shard in status["shards"] if shard["pid"]}


async def test_the_spare_worker_of_another_node_sends_for_a_node_that_was_killed(
    make_daemon: Callable[..., Daemon], dsn: str, producer: Producer
) -> None:
    one, two = (node_on(make_daemon, dsn, node=name, supervisor={"spares": None}) for name in ("one", "two"))
    producer.add_devices(20)
    await one.start()
    await two.start()
    # Each has to take over one shard if the other is lost, and has a worker for it.
    for node in (one, two):
        await node.until(lambda s: len(served_by(s)) == 1 and s["spares"] == 1)
        assert len(node.spare_pids()) == 1
    (spare,) = two.spare_pids()
    assert spare not in pids(await two.status())
    left = one.spare_pids()
    kill_all(one)
    await one.wait_end()
    for pid in left:
        await wait_gone(pid)
    producer.add_jobs(20, 20)
    assert await producer.until_finished(two, 20) == {"sent": 20}
    assert deliveries(one, two) == dict.fromkeys(range(1, 21), 1)
    assert spare in pids(await two.status())
    assert await two.stop() == 0


async def test_an_orderly_stop_ends_spare_workers_and_calls_none_dead(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(shards=1, supervisor={"spares": 2})
    await daemon.start()
    await daemon.until(lambda s: s["spares"] == 2)
    spares = daemon.spare_pids()
    assert await daemon.stop() == 0
    for pid in spares:
        await wait_gone(pid)
    assert "spare worker died" not in daemon.log_file.read_text()
