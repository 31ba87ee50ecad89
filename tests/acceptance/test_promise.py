"""The promise: nothing lost, nothing twice, nothing claimed that is not known; whatever is killed, and in order.

Each test counts what the sandbox really delivered against what the rows say.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from tests.fixtures.postgres import Cluster
from tests.support.daemon import Daemon, Producer, wait_gone

DEVICES = 200


def check(daemon: Daemon, producer: Producer, jobs: int) -> Counter[str]:
    """Hold the rows against the deliveries; returns the rows by state."""
    delivered = Counter(message["job"] for message in daemon.messages())
    rows = dict(producer.execute("SELECT id, state FROM shardd.outcomes"))
    assert len(rows) == jobs, "a row is lost"
    assert set(delivered) <= set(rows)
    twice = [job for job, times in delivered.items() if times > 1]
    assert not twice, f"delivered twice: {twice[:5]}"
    claimed = [job for job, state in rows.items() if state == "sent" and not delivered[job]]
    assert not claimed, f"called sent, but never delivered: {claimed[:5]}"
    hidden = [job for job, state in rows.items() if state not in ("sent", "in_doubt") and delivered[job]]
    assert not hidden, f"delivered, but neither sent nor in doubt: {hidden[:5]}"
    return Counter(rows.values())


def check_order(daemon: Daemon) -> None:
    """Each device's messages left in the order of its line."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for message in daemon.messages():
        lines.setdefault(message["device"], []).append(message)
    for device, messages in lines.items():
        messages.sort(key=lambda m: m["at"])
        numbers = [int(m["body"]) for m in messages]
        assert all(a < b for a, b in pairwise(numbers)), f"{device}: {numbers}"


async def test_every_job_is_sent_once_and_in_order(make_daemon: Callable[..., Daemon], producer: Producer) -> None:
    daemon = make_daemon()
    producer.add_devices(DEVICES)
    producer.add_jobs(4000, DEVICES)
    await daemon.start()
    await producer.until_finished(daemon, 4000)
    assert await daemon.stop() == 0
    assert check(daemon, producer, 4000) == {"sent": 4000}
    check_order(daemon)
    assert daemon.worker_pids() == []


async def test_killed_workers_lose_nothing_and_repeat_nothing(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(
        transports={"sandbox": {"latency_min": "20ms", "latency_max": "100ms"}},
        supervisor={"breaker": {"crashes": 50}},
    )
    producer.add_devices(DEVICES)
    producer.add_jobs(7000, DEVICES)
    await daemon.start()
    for round_ in range(6):
        goal = 1000 * (round_ + 1)
        status = await daemon.until(lambda s, goal=goal: s["healthy"] and _ended(s) >= goal)  # type: ignore[misc]
        os.kill(status["shards"][round_ % 2]["pid"], signal.SIGKILL)
        await daemon.until(lambda s, n=round_ + 1: sum(x["restarts"] for x in s["shards"]) >= n)  # type: ignore[misc]
    await producer.until_finished(daemon, 7000)
    assert await daemon.stop() == 0
    states = check(daemon, producer, 7000)
    assert states["sent"] + states["in_doubt"] == 7000
    # At most what six dying workers had in flight; and what had started must not be called queued.
    assert 0 < states["in_doubt"] <= 6 * DEVICES
    check_order(daemon)


async def test_killed_supervisor_leaves_no_orphan_and_no_doubt(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(transports={"sandbox": {"latency_min": "5ms", "latency_max": "50ms"}})
    producer.add_devices(DEVICES)
    producer.add_jobs(6000, DEVICES)
    await daemon.start()
    for goal in (1000, 2500):
        await daemon.until(lambda s, goal=goal: producer.states()["sent"] >= goal)  # type: ignore[misc]
        workers = daemon.worker_pids()
        daemon.kill(signal.SIGKILL)
        await daemon.wait_end()
        for pid in workers:
            await wait_gone(pid)
        await daemon.start()
    await producer.until_finished(daemon, 6000)
    assert await daemon.stop() == 0
    # The orphaned workers finished what they had started and wrote it down: nobody has to doubt.
    assert check(daemon, producer, 6000) == {"sent": 6000}
    check_order(daemon)


async def test_everything_is_killed_at_once(make_daemon: Callable[..., Daemon], producer: Producer) -> None:
    # Slow and early enough for the kill to find jobs in flight on a busy machine, too.
    daemon = make_daemon(transports={"sandbox": {"latency_min": "200ms", "latency_max": "500ms"}})
    producer.add_devices(DEVICES)
    producer.add_jobs(4000, DEVICES)
    await daemon.start()
    await daemon.until(
        lambda s: s["totals"]["sent"] >= 200
    )  # early, so that the kill finds jobs in flight on a busy machine, too
    workers = daemon.worker_pids()
    daemon.kill(signal.SIGSTOP)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    daemon.kill(signal.SIGKILL)
    await daemon.wait_end()
    await daemon.start()
    await producer.until_finished(daemon, 4000)
    assert await daemon.stop() == 0
    states = check(daemon, producer, 4000)
    assert 0 < states["in_doubt"] <= DEVICES
    assert states["sent"] == 4000 - states["in_doubt"]
    check_order(daemon)


async def test_postgres_restarts_in_the_middle(
    make_daemon: Callable[..., Daemon], producer: Producer, postgres: Cluster
) -> None:
    daemon = make_daemon(transports={"sandbox": {"latency_min": "5ms", "latency_max": "50ms"}})
    producer.add_devices(DEVICES)
    producer.add_jobs(6000, DEVICES)
    await daemon.start()
    await daemon.until(lambda s: s["totals"]["sent"] >= 1000)
    await postgres.restart()
    await daemon.until(lambda s: s["totals"]["sent"] >= 2500 and s["healthy"])
    await postgres.crash()
    await producer.until_finished(daemon, 6000)
    assert await daemon.stop() == 0
    assert check(daemon, producer, 6000) == {"sent": 6000}
    check_order(daemon)


async def test_twenty_thousand_jobs_through_every_kind_of_death(
    make_daemon: Callable[..., Daemon], producer: Producer, postgres: Cluster
) -> None:
    daemon = make_daemon(
        shards=4,
        # 2500 messages a second at most: on a quick machine the queue must not be empty before the last kill.
        transports={"sandbox": {"latency_min": "100ms", "latency_max": "300ms"}},
        supervisor={"breaker": {"crashes": 50}},
    )
    devices, jobs = 500, 20_000
    producer.add_devices(devices)
    producer.add_jobs(jobs, devices)
    await daemon.start()

    async def reach(goal: int) -> dict[str, Any]:
        return await daemon.until(lambda s: s["healthy"] and _ended(s) >= goal)

    status = await reach(2000)
    os.kill(status["shards"][0]["pid"], signal.SIGKILL)
    await reach(4000)
    await postgres.restart()
    await reach(6000)
    daemon.kill(signal.SIGKILL)
    await daemon.wait_end()
    await daemon.start()
    await reach(2000)
    for pid in daemon.worker_pids():
        os.kill(pid, signal.SIGKILL)
    await reach(4000)
    await postgres.crash()
    await reach(5000)
    daemon.kill(signal.SIGKILL)
    for pid in daemon.worker_pids():
        os.kill(pid, signal.SIGKILL)
    await daemon.wait_end()
    await daemon.start()
    await producer.until_finished(daemon, jobs)
    assert await daemon.stop() == 0
    states = check(daemon, producer, jobs)
    assert states["sent"] + states["in_doubt"] == jobs
    assert states["in_doubt"] <= 3 * devices
    check_order(daemon)


async def test_sigterm_drains_and_sends_nothing_more(make_daemon: Callable[..., Daemon], producer: Producer) -> None:
    daemon = make_daemon(transports={"sandbox": {"latency_min": "100ms", "latency_max": "200ms"}})
    producer.add_devices(DEVICES)
    producer.add_jobs(2000, DEVICES)
    await daemon.start()
    await daemon.until(lambda s: s["totals"]["sent"] >= 200)
    assert await daemon.stop() == 0
    states = check(daemon, producer, 2000)
    assert states["in_doubt"] == 0
    assert states["sending"] == 0
    assert states["queued"] > 0
    assert states["sent"] == len(daemon.messages())
    assert daemon.worker_pids() == []


async def test_second_sigterm_hurries(make_daemon: Callable[..., Daemon], producer: Producer) -> None:
    daemon = make_daemon(transports={"sandbox": {"hang_rate": 1.0, "hang_for": "10m"}})
    producer.add_devices(4)
    producer.add_jobs(4, 4)
    await daemon.start()
    await daemon.until(lambda s: s["totals"]["in_flight"] == 4 and len(daemon.messages()) == 4)
    daemon.kill(signal.SIGTERM)
    await daemon.wait_said("STOPPING=1")
    daemon.kill(signal.SIGTERM)
    assert await daemon.wait_end() == 0
    # They hung after the delivery: nobody here can know, so nobody claims to.
    assert check(daemon, producer, 4) == {"in_doubt": 4}


def _ended(status: dict[str, Any]) -> int:
    return int(status["totals"]["sent"] + status["totals"]["in_doubt"])
