"""The supervision of workers, from outside: real processes, real signals, the real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from shardd.control_client import ask
from shardd.errors import UsageError
from tests.support.daemon import Daemon, Producer, wait_gone

SHARDD = [sys.executable, "-m", "shardd.cli.main"]


async def run(*command: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)


def shard(status: dict[str, Any], index: int) -> dict[str, Any]:
    found: dict[str, Any] = status["shards"][index]
    return found


async def test_a_hung_worker_is_seen_aborted_and_replaced(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(supervisor={"heartbeat_every": "200ms", "heartbeat_timeout": "2s"})
    await daemon.start()
    before = shard(await daemon.status(), 0)["pid"]
    os.kill(before, signal.SIGSTOP)
    status = await daemon.until(lambda s: shard(s, 0)["restarts"] == 1 and shard(s, 0)["state"] == "running")
    assert shard(status, 0)["pid"] != before
    assert shard(status, 1)["restarts"] == 0
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)


async def test_a_crash_loop_stops_its_shard_only_and_a_restart_brings_it_back(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(supervisor={"breaker": {"crashes": 3, "within": "1m", "probe_every": "10m"}})
    producer.add_devices(20)
    await daemon.start()
    for crashes in range(1, 4):
        status = await daemon.until(lambda s: shard(s, 0)["state"] == "running")
        os.kill(shard(status, 0)["pid"], signal.SIGKILL)
        await daemon.until(lambda s, n=crashes: shard(s, 0)["restarts"] == n)  # type: ignore[misc]
    status = await daemon.until(lambda s: shard(s, 0)["state"] == "broken")
    assert not status["healthy"]
    assert any("shard 0 is broken" in problem for problem in status["problems"])
    assert shard(status, 1)["state"] == "running"

    producer.add_jobs(40, 20)
    others = shard(status, 1)["devices"]
    await daemon.until(lambda s: shard(s, 1)["sent"] == 2 * others)
    assert producer.states() == {"sent": 2 * others, "queued": 40 - 2 * others}

    await ask(daemon.socket, "POST", "/shards/0/restart", timeout=30)
    assert await producer.until_finished(daemon, 40) == {"sent": 40}


async def test_drain_and_restart_touch_one_shard(make_daemon: Callable[..., Daemon], producer: Producer) -> None:
    daemon = make_daemon()
    producer.add_devices(20)
    await daemon.start()
    before = await daemon.status()
    await ask(daemon.socket, "POST", "/shards/1/drain", timeout=30)
    drained = await daemon.status()
    assert shard(drained, 1)["state"] == "drained"
    assert shard(drained, 1)["pid"] is None
    assert drained["healthy"], "an operator's drain is no illness"
    assert shard(drained, 0)["pid"] == shard(before, 0)["pid"]

    producer.add_jobs(20, 20)
    mine = shard(drained, 0)["devices"]
    await daemon.until(lambda s: s["totals"]["sent"] == mine)
    assert producer.states()["queued"] == 20 - mine

    await ask(daemon.socket, "POST", "/shards/1/restart", timeout=30)
    assert await producer.until_finished(daemon, 20) == {"sent": 20}
    after = await daemon.status()
    assert shard(after, 0)["pid"] == shard(before, 0)["pid"]
    assert shard(after, 1)["pid"] not in (None, shard(before, 1)["pid"])
    with pytest.raises(UsageError, match="shard 7 is unknown: this config has shards 0 to 1"):
        await ask(daemon.socket, "POST", "/shards/7/drain")


async def test_a_worker_that_is_told_to_end_finishes_and_is_replaced(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(transports={"sandbox": {"latency_min": "100ms", "latency_max": "200ms"}})
    producer.add_devices(40)
    producer.add_jobs(400, 40)
    await daemon.start()
    status = await daemon.until(lambda s: s["totals"]["sent"] >= 40)
    os.kill(shard(status, 0)["pid"], signal.SIGTERM)
    await daemon.until(lambda s: shard(s, 0)["restarts"] == 1 and shard(s, 0)["state"] == "running")
    assert await producer.until_finished(daemon, 400) == {"sent": 400}
    # What it had not started went back once, not again and again.
    assert producer.execute("SELECT max(attempt) <= 2 FROM shardd.outcomes") == [(True,)]


async def test_no_second_supervisor_on_one_state_folder(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    await daemon.start()
    second = await run(*SHARDD, "start", f"--config={daemon.config_file}")
    assert second.returncode == 75
    assert "is running on" in second.stderr
    assert "Traceback" not in second.stderr
    assert (await daemon.status())["healthy"]


async def test_the_control_socket_is_private_and_speaks_http(
    make_daemon: Callable[..., Daemon], producer: Producer, unused_tcp_port: int
) -> None:
    daemon = make_daemon(control={"metrics": f"127.0.0.1:{unused_tcp_port}"})
    producer.add_devices(3)
    await daemon.start()
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o600
    curl = await run("curl", "-sS", "--unix-socket", str(daemon.socket), "http://shardd/metrics")
    assert curl.returncode == 0, curl.stderr
    assert 'shardd_shard_state{shard="0",state="running"} 1' in curl.stdout
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{unused_tcp_port}/metrics") as page:
            assert "shardd_up 1" in await page.text()
        async with session.get(f"http://127.0.0.1:{unused_tcp_port}/status") as refused:
            assert refused.status == 404, "TCP serves metrics only"


async def test_reload_takes_a_good_file_and_refuses_a_bad_one_whole(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(pacing={"gap_min": "1h", "gap_max": "1h"})
    producer.add_devices(1)
    producer.add_jobs(3, 1)
    await daemon.start()
    await daemon.until(lambda s: s["totals"]["sent"] == 1)

    daemon.config_file.write_text("pacing: {gap_min: soon, gap_max: 0}\nqueue: {batch: 9}\n")
    daemon.kill(signal.SIGHUP)
    status = await daemon.until(lambda s: bool(s["notes"]))
    assert "config refused" in status["notes"][0]
    assert "pacing.gap_min" in status["notes"][0]
    assert status["totals"]["sent"] == 1
    assert status["healthy"]

    daemon.write_config(pacing={"gap_min": 0, "gap_max": 0}, shards=5)
    daemon.kill(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in await daemon.wait_said("RELOADING=1")
    status = await daemon.until(lambda s: s["notes"] and "shards: 2" in s["notes"][0])
    assert "takes effect with a restart" in status["notes"][0]
    assert len(status["shards"]) == 2
    # The gap of an hour that was running ends with the new file.
    assert await producer.until_finished(daemon, 3) == {"sent": 3}


async def test_failures_are_retried_with_backoff_and_end(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(
        transports={"sandbox": {"transient_rate": 1.0}}, queue={"backoff": {"first": "100ms", "cap": "200ms"}}
    )
    producer.add_devices(5)
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, max_attempts) "
        "SELECT 'd' || g, '+4915112345678', 'x', 3 FROM generate_series(1, 5) g"
    )
    await daemon.start()
    assert await producer.until_finished(daemon, 5) == {"failed": 5}
    rows = producer.execute("SELECT attempt, failures, error FROM shardd.outcomes")
    assert rows == [(3, 3, "sandbox: refused for now, as configured")] * 5
    assert daemon.messages() == []


async def test_in_doubt_holds_or_retries_as_the_producer_asked(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(
        transports={"sandbox": {"in_doubt_rate": 1.0}}, queue={"backoff": {"first": "50ms", "cap": "50ms"}}
    )
    producer.add_devices(2)
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, on_doubt, max_attempts) "
        "VALUES ('d1', '+4915112345678', 'held', 'hold', 5), ('d2', '+4915112345678', 'again', 'retry', 3)"
    )
    await daemon.start()
    assert await producer.until_finished(daemon, 2) == {"in_doubt": 2}
    assert dict(producer.execute("SELECT device_id, attempt FROM shardd.outcomes")) == {"d1": 1, "d2": 3}


async def test_an_unreachable_device_uses_up_no_attempt(make_daemon: Callable[..., Daemon], producer: Producer) -> None:
    daemon = make_daemon(transports={"sandbox": {"unavailable_rate": 0.5}})
    producer.add_devices(4)
    producer.add_jobs(8, 4)
    await daemon.start()
    assert await producer.until_finished(daemon, 8) == {"sent": 8}
    assert producer.execute("SELECT sum(failures) FROM shardd.outcomes") == [(0,)]


async def test_paused_devices_hold_their_jobs_and_others_go_on(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    producer.add_devices(4)
    await daemon.start()
    producer.execute("UPDATE shardd.devices SET paused_at = now(), paused_why = 'new number' WHERE id = 'd1'")
    await daemon.until(lambda s: s["totals"]["parked"] == 1)
    producer.add_jobs(8, 4)
    await daemon.until(lambda s: s["totals"]["sent"] == 6)
    waits = producer.execute("SELECT DISTINCT state, waits_for FROM shardd.outcomes WHERE device_id = 'd1'")
    assert waits == [("queued", "its device: paused, new number")]
    producer.execute("UPDATE shardd.devices SET paused_at = NULL WHERE id = 'd1'")
    assert await producer.until_finished(daemon, 8) == {"sent": 8}


async def test_a_daily_limit_holds_and_survives_a_restart(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(pacing={"daily_limit": 3})
    producer.add_devices(2)
    producer.add_jobs(12, 2)
    await daemon.start()
    await daemon.until(lambda s: s["totals"]["sent"] == 6)
    assert await daemon.stop() == 0
    await daemon.start()
    producer.execute("UPDATE shardd.devices SET daily_limit = 4 WHERE id = 'd2'")
    await daemon.until(lambda s: s["totals"]["sent"] == 1)
    assert await daemon.stop() == 0
    assert dict(producer.execute("SELECT device_id, count(*) FROM shardd.archive GROUP BY 1")) == {"d1": 3, "d2": 4}
    assert dict(producer.execute("SELECT device_id, sent FROM shardd.device_days")) == {"d1": 3, "d2": 4}


async def test_two_nodes_share_the_shards_and_one_takes_over(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    lease = {"ttl": "4s", "renew_every": "500ms", "margin": "1s"}
    database = {"connect_timeout": "1s", "statement_timeout": "1s"}
    one = make_daemon(node="one", shards=8, lease=lease)
    two = make_daemon(node="two", shards=8, lease=lease)
    for place, daemon in enumerate((one, two)):
        daemon.take_place(place)
        daemon.settings["database"] |= database
    producer.add_devices(40)
    await one.start()
    await one.until(lambda s: all(x["state"] == "running" for x in s["shards"]))
    await two.start()

    def held(status: dict[str, Any]) -> set[int]:
        return {x["shard"] for x in status["shards"] if x["epoch"] is not None}

    status = await two.until(lambda s: len(held(s)) > 0 and s["healthy"])
    await one.until(lambda s: not held(s) & held(status) and s["healthy"])
    producer.add_jobs(400, 40)
    await producer.until_finished(one, 400)
    assert two.messages()

    two.kill(signal.SIGKILL)
    await two.wait_end()
    status = await one.until(lambda s: held(s) == set(range(8)) and len(s["problems"]) == 1)
    assert status["problems"][0].startswith("node two on ")
    producer.add_jobs(400, 40)
    assert await producer.until_finished(one, 800) == {"sent": 800}
    sent = [m["job"] for m in one.messages() + two.messages()]
    assert len(sent) == len(set(sent)) == 800


async def test_a_dead_workers_last_words_are_told(make_daemon: Callable[..., Daemon]) -> None:
    # The error is shown until the next worker is ready: that must not be at once.
    slow = {"first": "1m", "cap": "1m"}
    daemon = make_daemon(supervisor={"heartbeat_every": "200ms", "heartbeat_timeout": "1s", "backoff": slow})
    await daemon.start()
    pid = shard(await daemon.status(), 0)["pid"]
    # What the Go runtime does when it finds its maps in disorder.
    os.kill(pid, signal.SIGABRT)
    status = await daemon.until(lambda s: shard(s, 0)["error"])
    assert "SIGABRT" in shard(status, 0)["error"]
    assert "Fatal Python error: Aborted" in shard(status, 0)["error"]


async def test_workers_of_a_supervisor_that_hangs_end_with_their_lease(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(lease={"ttl": "4s", "renew_every": "500ms", "margin": "1s"})
    daemon.settings["database"] |= {"connect_timeout": "1s", "statement_timeout": "1s"}
    producer.add_devices(10)
    await daemon.start()
    workers = [x["pid"] for x in (await daemon.status())["shards"]]
    daemon.kill(signal.SIGSTOP)
    for pid in workers:
        await wait_gone(pid)
    daemon.kill(signal.SIGCONT)
    producer.add_jobs(20, 10)
    assert await producer.until_finished(daemon, 20) == {"sent": 20}
