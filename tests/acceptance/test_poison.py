"""Jobs whose preparation ends workers, with real workers and signals: only these jobs fail."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardd.control_client import ask
from tests.support.daemon import PATIENCE, Daemon, Producer, wait_gone


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


def owner(daemon: Daemon) -> Producer:
    """Who may do with the tables what no producer may."""
    assert daemon.dsn is not None
    return Producer(daemon.dsn)


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
            "its worker died while preparing it, even when it prepared no other job: SIGKILL",
        )
    ]
    status = await daemon.until(lambda s: s["shards"][0]["state"] == "running")
    assert status["shards"][0]["restarts"] == 3
    # Some that were being prepared when a worker died, or two, were sent all the same.
    ((attempts,),) = producer.execute("SELECT max(attempt) FROM shardd.outcomes WHERE state = 'sent'")
    assert attempts > 2
    ((number,),) = producer.execute("SELECT id FROM shardd.outcomes WHERE state = 'failed'")
    (problem,) = status["problems"]
    assert f"1 job failed because preparing it kills workers; job {number} of device d5" in problem
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


def breaker(crashes: int, probe_every: str) -> dict[str, Any]:
    return {
        "heartbeat_every": "100ms",
        "backoff": {"first": "50ms", "cap": "200ms"},
        "breaker": {"crashes": crashes, "within": "1h", "probe_every": probe_every},
    }


async def test_a_shard_with_nothing_but_such_jobs_ends_them_one_by_one_and_then_sends(
    poisoned: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = poisoned(supervisor=breaker(3, "1s"))
    producer.add_devices(4)
    add_jobs(producer, 4, dict.fromkeys(range(1, 5), "!crash"), each=1)
    await daemon.start(wait=False)
    assert await producer.until_finished(daemon, 4) == {"failed": 4}
    assert {(reference, kind) for reference, kind, _ in failed(producer)} == {("poison", "worker")}
    assert '"event":"shard is broken"' in daemon.log_file.read_text(), "no worker proved that it was well"
    producer.add_jobs(4, 4)
    assert await producer.until_finished(daemon, 8) == {"failed": 4, "sent": 4}
    status = await daemon.until(lambda s: s["shards"][0]["state"] == "running")
    assert any("4 jobs failed because preparing them kills workers" in problem for problem in status["problems"])


@pytest.mark.parametrize(
    ("deaths", "well", "states"),
    [
        # None is alone with its fault yet.
        (0, False, {"queued": 12}),
        # All were being prepared when two workers died.
        (2, False, {"failed": 5, "queued": 7}),
        # And the worker had sent before: that proves something of it and the next two.
        (2, True, {"sent": 12, "failed": 8, "queued": 4}),
    ],
)
async def test_when_every_worker_dies_of_all_that_it_prepares_few_jobs_are_ended(
    poisoned: Callable[..., Daemon], producer: Producer, *, deaths: int, well: bool, states: dict[str, int]
) -> None:
    daemon = poisoned(supervisor=breaker(5, "1h"))
    producer.add_devices(12)
    await daemon.start()
    if well:
        producer.add_jobs(12, 12)
        await producer.until_finished(daemon, 12)
    owner(daemon).execute(
        "DO $$ BEGIN "
        "INSERT INTO shardd.jobs (device_id, recipient, body) SELECT 'd' || d, '+49151' || 1000000 + d, '!crash' "
        "  FROM generate_series(1, 12) d; "
        f"UPDATE shardd.jobs SET worker_deaths = {deaths}; END $$"
    )
    status = await daemon.until(lambda s: s["shards"][0]["state"] == "broken")
    assert producer.states() == states
    (problem,) = (text for text in status["problems"] if text.startswith("shard 0 is broken"))
    assert "worker died: SIGKILL, while it prepared job " in problem
    assert status["problem_kinds"]["poison"] == ("failed" in states)


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
    assert "even when it prepared no other job: SIGABRT" in error


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


def deaths(daemon: Daemon) -> list[int]:
    """Of each job that is still to be sent."""
    return [row[0] for row in owner(daemon).execute("SELECT worker_deaths FROM shardd.jobs ORDER BY id")]


async def test_what_operators_do_makes_no_job_suspect(poisoned: Callable[..., Daemon], producer: Producer) -> None:
    daemon = poisoned(sandbox={"connect_for": "1m"}, queue={"send_timeout": "5m"})
    producer.add_devices(4)
    producer.add_jobs(4, 4)
    await daemon.start()
    for _ in range(3):
        await daemon.until(lambda s: s["shards"][0]["in_flight"] == 4)
        await ask(daemon.socket, "POST", "/shards/0/restart", timeout=30)
    await daemon.until(lambda s: s["shards"][0]["in_flight"] == 4)
    os.kill((await daemon.status())["shards"][0]["pid"], signal.SIGTERM)
    await daemon.until(lambda s: s["shards"][0]["restarts"] == 1 and s["shards"][0]["in_flight"] == 4)
    assert await daemon.stop() == 0
    assert deaths(daemon) == [0, 0, 0, 0]

    # Nor does the end of the supervisor, whose workers finish and write that down.
    await daemon.start()
    await daemon.until(lambda s: s["shards"][0]["in_flight"] == 4)
    daemon.kill()
    await daemon.wait_end()
    await daemon.start()
    assert await daemon.stop() == 0
    assert deaths(daemon) == [0, 0, 0, 0]


async def test_a_worker_that_is_killed_for_an_operator_makes_no_job_suspect(
    poisoned: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = poisoned(sandbox={"connect_for": "1m"}, supervisor={"heartbeat_every": "100ms", "drain_timeout": "1s"})
    producer.add_devices(4)
    producer.add_jobs(3, 4)
    await daemon.start()
    await preparing(daemon, 3)
    producer.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d4', '+491511000004', '!hang')")
    await preparing(daemon, 4)
    # Its loop stands still, so it hears nothing of it.
    await ask(daemon.socket, "POST", "/shards/0/restart", timeout=30)
    assert deaths(daemon) == [0, 0, 0, 0]


async def test_what_was_handed_over_when_its_worker_died_is_in_doubt_and_not_called_poison(
    poisoned: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = poisoned(sandbox={"connect_for": 0, "latency_min": "1m", "latency_max": "1m"})
    producer.add_devices(3)
    producer.add_jobs(3, 3)
    await daemon.start()
    await started(daemon, 3)
    os.kill((await daemon.status())["shards"][0]["pid"], signal.SIGKILL)
    assert await producer.until_finished(daemon, 3) == {"in_doubt": 3}
    assert (await daemon.status())["problem_kinds"]["poison"] == 0


async def test_a_worker_that_is_told_to_end_and_then_killed_makes_no_job_suspect(
    poisoned: Callable[..., Daemon], producer: Producer
) -> None:
    latency = {"connect_for": 0, "latency_min": "1m", "latency_max": "1m", "poison_memory": "1MiB"}
    daemon = poisoned(sandbox=latency)
    producer.add_devices(4)
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, on_doubt) SELECT 'd' || d, '+49151' || 1000000 + d, "
        "CASE d WHEN 4 THEN '!bloat' ELSE 'good' END, 'retry' FROM generate_series(1, 4) d"
    )
    await daemon.start()
    await preparing(daemon, 4)
    await started(daemon, 3)
    pid = (await daemon.status())["shards"][0]["pid"]
    os.kill(pid, signal.SIGTERM)
    await logged(daemon, '"verdict":"returned"')
    os.kill(pid, signal.SIGKILL)
    await daemon.until(lambda s: s["shards"][0]["restarts"] == 1)
    await logged(daemon, '"verdict":"in_doubt"')
    assert deaths(daemon) == [0, 0, 0, 0]


async def test_a_worker_that_is_killed_for_a_lost_lease_makes_no_job_suspect(
    poisoned: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = poisoned(sandbox={"connect_for": "1m"}, lease={"ttl": "6s", "renew_every": "500ms", "margin": "1s"})
    daemon.settings["database"] |= {"connect_timeout": "1s", "statement_timeout": "1s"}
    producer.add_devices(4)
    producer.add_jobs(4, 4)
    await daemon.start()
    await preparing(daemon, 4)
    owner(daemon).execute("UPDATE shardd.leases SET expires_at = now() - interval '1 second'")
    await logged(daemon, '"action":"fence"')
    await daemon.until(lambda s: s["shards"][0]["state"] == "running" and s["shards"][0]["in_flight"] == 4)
    assert deaths(daemon) == [0, 0, 0, 0]
    ((attempts,),) = owner(daemon).execute("SELECT min(attempt) FROM shardd.jobs")
    assert attempts == 2, "it was killed while it prepared all of them"


async def test_a_worker_is_careful_after_two_that_died_until_it_has_proven_itself(
    poisoned: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = poisoned(
        sandbox={"connect_for": "6s"},
        supervisor={"heartbeat_every": "100ms", "backoff": {"first": "10ms", "cap": "10ms", "reset_after": "3s"}},
    )
    producer.add_devices(4)
    await daemon.start()
    for died in range(2):
        status = await daemon.until(
            lambda s, n=died: s["shards"][0]["state"] == "running" and s["shards"][0]["restarts"] == n  # type: ignore[misc]
        )
        os.kill(status["shards"][0]["pid"], signal.SIGKILL)
    producer.add_jobs(4, 4)
    await preparing(daemon, 1)
    assert b",1]" in next(line for line in journal(daemon).read_bytes().split(b"\n") if b" p [" in line), "alone"
    await preparing(daemon, 4)
    assert producer.states()["sent"] <= 1, "those behind the first one are prepared side by side"
    assert await producer.until_finished(daemon, 4) == {"sent": 4}


async def test_a_job_that_is_prepared_when_all_of_a_node_is_killed_again_and_again_is_sent(
    poisoned: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = poisoned(sandbox={"connect_for": "1m"}, queue={"send_timeout": "5m"})
    producer.add_devices(4)
    producer.add_jobs(4, 4)
    for counted in ([0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [2, 2, 2, 3], [2, 2, 2, 4]):
        await daemon.start()
        await daemon.until(lambda s: s["shards"][0]["in_flight"] == 4)
        assert sorted(deaths(daemon)) == counted
        # From the third time on one is prepared, and the others wait for it.
        await preparing(daemon, 1 if 2 in counted else 4)
        await kill_all(daemon)
    daemon.write_config(transports={"sandbox": {"connect_for": "10ms"}})
    await daemon.start()
    assert await producer.until_finished(daemon, 4) == {"sent": 4}
    assert len(daemon.messages()) == 4
    assert (await daemon.status())["problem_kinds"]["poison"] == 0


def journal(daemon: Daemon) -> Path:
    """Of the only shard."""
    return daemon.home / "journal" / "shard-000.journal"


async def preparing(daemon: Daemon, jobs: int) -> None:
    """Until the journal of the only shard says that so many jobs are being prepared, or were."""
    await holds(daemon, journal(daemon), " p [", jobs)


async def started(daemon: Daemon, jobs: int) -> None:
    """The same of jobs that are handed over."""
    await holds(daemon, journal(daemon), " s [", jobs)


async def logged(daemon: Daemon, text: str) -> None:
    """Until this is in the log."""
    await holds(daemon, daemon.log_file, text)


async def holds(daemon: Daemon, file: Path, text: str, times: int = 1) -> None:
    """Until a file contains a text so many times."""

    def found() -> int:
        return file.read_bytes().count(text.encode())

    async with asyncio.timeout(PATIENCE):
        while found() < times:
            await daemon.wait_change()


async def kill_all(daemon: Daemon) -> None:
    """As a container is killed: none hears of another's end before its own."""
    workers = daemon.worker_pids()
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for pid in workers:
            os.kill(pid, signum)
        daemon.kill(signum)
    assert await daemon.wait_end() == -signal.SIGKILL
    for pid in workers:
        await wait_gone(pid)
