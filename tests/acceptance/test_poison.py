"""Jobs whose preparation ends workers, with real workers and real signals: they end, and nobody else's messages do."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon import Daemon, Producer


@pytest.fixture
def poisoned(make_daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    """A daemon of one shard whose jobs can be poison."""

    def make(**config: Any) -> Daemon:
        sandbox = {"poison": True, "connect_for": "300ms", "latency_min": "1ms", "latency_max": "5ms"}
        return make_daemon(
            **{
                "shards": 1,
                "transports": {"sandbox": {**sandbox, **config.pop("sandbox", {})}},
                "supervisor": {"heartbeat_every": "100ms", "backoff": {"first": "50ms", "cap": "200ms"}},
                **config,
            }
        )

    return make


def add_jobs(producer: Producer, devices: int, poison: dict[int, str], each: int = 3) -> None:
    """For each device some jobs; by number of the device, the first one may be poison."""
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, reference, max_attempts) "
        "SELECT 'd' || d, '+49151' || 1000000 + d, "
        "       CASE WHEN n = 1 THEN coalesce(%s::jsonb->>(d::text), 'good') ELSE 'good' END, "
        "       CASE WHEN n = 1 AND %s::jsonb ? (d::text) THEN 'poison' ELSE 'good' END, 1 "
        "  FROM generate_series(1, %s) n, generate_series(1, %s) d",
        *(json.dumps(poison), json.dumps(poison), each, devices),
    )


def failed(producer: Producer) -> list[tuple[str, str, str]]:
    return producer.execute(  # type: ignore[return-value]
        "SELECT reference, error_class, error FROM shardd.outcomes WHERE state = 'failed' ORDER BY id"
    )


async def test_a_job_that_kills_its_worker_fails_and_no_other_does(
    poisoned: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = poisoned()
    producer.add_devices(12)
    add_jobs(producer, 12, {5: "!crash"})
    await daemon.start(wait=False)
    assert await producer.until_finished(daemon, 36) == {"sent": 35, "failed": 1}
    assert failed(producer) == [
        (
            "poison",
            "worker",
            "its worker died while it was being prepared, also when no other was: SIGKILL",
        )
    ]
    status = await daemon.until(lambda s: s["shards"][0]["state"] == "running")
    assert status["shards"][0]["restarts"] == 3
    # Some that were being prepared when a worker died, or two, were sent all the same.
    ((attempts,),) = producer.execute("SELECT max(attempt) FROM shardd.outcomes WHERE state = 'sent'")
    assert attempts > 2
    ((number,),) = producer.execute("SELECT id FROM shardd.outcomes WHERE state = 'failed'")
    (problem,) = status["problems"]
    assert f"1 job has failed because of what preparing them does to a worker; job {number} of device d5" in problem
    assert status["problem_kinds"]["poison"] == 1
    assert '"action":"poison"' in daemon.log_file.read_text()
    sent = [message["job"] for message in daemon.messages()]
    assert len(sent) == len(set(sent)) == 35


async def test_several_such_jobs_end_one_after_the_other_and_their_shard_goes_on(
    poisoned: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = poisoned()
    producer.add_devices(12)
    # More than the breaker's five crashes, were each of them counted.
    add_jobs(producer, 12, dict.fromkeys([2, 3, 5, 7, 8, 11], "!crash"))
    await daemon.start(wait=False)
    assert await producer.until_finished(daemon, 36) == {"sent": 30, "failed": 6}
    assert {(reference, kind) for reference, kind, _ in failed(producer)} == {("poison", "worker")}
    status = await daemon.until(lambda s: s["shards"][0]["state"] == "running")
    assert status["shards"][0]["restarts"] <= 3 * 6
    assert "broken" not in daemon.log_file.read_text()


async def test_a_job_that_stops_its_workers_loop_fails(poisoned: Callable[..., Daemon], producer: Producer) -> None:
    daemon = poisoned(
        supervisor={
            "heartbeat_every": "100ms",
            "heartbeat_timeout": "1s",
            "backoff": {"first": "50ms", "cap": "200ms"},
        }
    )
    producer.add_devices(4)
    add_jobs(producer, 4, {2: "!hang"})
    await daemon.start(wait=False)
    assert await producer.until_finished(daemon, 12) == {"sent": 11, "failed": 1}
    ((reference, kind, error),) = failed(producer)
    assert (reference, kind) == ("poison", "worker")
    assert "also when no other was: SIGABRT" in error


async def test_a_job_that_takes_the_memory_of_its_worker_fails_and_no_other_does(
    poisoned: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = poisoned(
        sandbox={"poison_memory": "150MiB"}, worker={"recycle": {"rss": "128MiB"}}, queue={"send_timeout": "50s"}
    )
    producer.add_devices(12)
    add_jobs(producer, 12, {5: "!bloat"})
    await daemon.start(wait=False)
    assert await producer.until_finished(daemon, 36) == {"sent": 35, "failed": 1}
    ((reference, kind, error),) = failed(producer)
    assert (reference, kind) == ("poison", "worker")
    assert error.startswith(
        "its worker grew beyond 134,217,728 bytes while it was being prepared, also when no other was"
    )
    status = await daemon.status()
    assert status["shards"][0]["restarts"] == 0, "it was replaced, and did not crash"
    assert daemon.log_file.read_text().count('"action":"recycle"') == 3
    assert status["problem_kinds"] | {"poison": 1, "memory": 1} == status["problem_kinds"]
    assert any("was replaced 3 times within 15 minutes" in problem for problem in status["problems"])


async def test_a_memory_budget_below_what_every_worker_needs_is_named_and_stops_nobody(
    poisoned: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = poisoned(worker={"recycle": {"rss": "20MiB"}})
    producer.add_devices(12)
    await daemon.start()
    status = await daemon.until(lambda s: s["problem_kinds"]["memory"] == 1)
    assert "worker.recycle.rss is 20MiB, and the worker of shard 0 takes " in status["problems"][0]
    add_jobs(producer, 12, {})
    assert await producer.until_finished(daemon, 36) == {"sent": 36}
    assert '"action":"recycle"' not in daemon.log_file.read_text()
    assert (await daemon.status())["shards"][0]["pid"] == status["shards"][0]["pid"]


def deaths(producer: Producer, daemon: Daemon) -> list[int]:
    """Of each job that is still to be sent, as the owner of the tables sees it."""
    assert daemon.dsn is not None
    return [row[0] for row in Producer(daemon.dsn).execute("SELECT worker_deaths FROM shardd.jobs ORDER BY id")]


async def test_what_operators_do_makes_no_job_suspect(poisoned: Callable[..., Daemon], producer: Producer) -> None:
    daemon = poisoned(sandbox={"connect_for": "1m"}, queue={"send_timeout": "5m"})
    producer.add_devices(4)
    producer.add_jobs(4, 4)
    await daemon.start()
    from shardd.cli.client import ask  # noqa: PLC0415

    for _ in range(3):
        await daemon.until(lambda s: s["shards"][0]["in_flight"] == 4)
        await ask(daemon.socket, "POST", "/shards/0/restart", timeout=30)
    await daemon.until(lambda s: s["shards"][0]["in_flight"] == 4)
    os.kill((await daemon.status())["shards"][0]["pid"], signal.SIGTERM)
    await daemon.until(lambda s: s["shards"][0]["restarts"] == 1 and s["shards"][0]["in_flight"] == 4)
    assert await daemon.stop() == 0
    assert deaths(producer, daemon) == [0, 0, 0, 0]

    # Nor does the end of the supervisor, whose workers finish and write that down.
    await daemon.start()
    await daemon.until(lambda s: s["shards"][0]["in_flight"] == 4)
    daemon.kill()
    await daemon.wait_end()
    await daemon.start()
    assert await daemon.stop() == 0
    assert deaths(producer, daemon) == [0, 0, 0, 0]
