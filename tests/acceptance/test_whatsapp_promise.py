"""The promise, counted by WhatsApp: no message twice and none missing, whatever is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.fixtures.whatsapp_fleet import Fleet
from tests.support.daemon import Daemon

SLOW_ACKS = {"kind": "delay", "at": "message", "times": None, "seconds": 0.2}


def _ended(status: dict[str, Any]) -> int:
    return int(status["totals"]["sent"] + status["totals"]["in_doubt"])


async def test_killed_workers_repeat_nothing_and_lose_nothing(fleet: Fleet) -> None:
    # Late acks, so that every kill finds messages that have left and are not confirmed.
    fleet.server.control.fault(**SLOW_ACKS)
    phones = fleet.add(12)
    daemon = fleet.daemon(supervisor={"breaker": {"crashes": 50}, "backoff": {"first": "100ms", "cap": "300ms"}})
    await daemon.start()
    jobs = fleet.send_many(phones, 12)
    for round_ in range(4):
        goal = 25 * (round_ + 1)
        status = await daemon.until(lambda s, goal=goal: s["healthy"] and _ended(s) >= goal)  # type: ignore[misc]
        os.kill(status["shards"][round_ % 2]["pid"], signal.SIGKILL)
        await daemon.until(lambda s, n=round_ + 1: sum(x["restarts"] for x in s["shards"]) >= n)  # type: ignore[misc]
    await fleet.finished(jobs)
    assert await daemon.stop() == 0
    states = fleet.check_deliveries()
    assert states["sent"] + states["in_doubt"] == jobs
    # At most what four dying workers had in flight; and their kills did hit messages on the way.
    assert 0 < states["in_doubt"] <= 4 * len(phones)
    assert fleet.server.control.resent() == []
    for row in fleet.rows("SELECT error FROM shardd.archive WHERE state = 'in_doubt'"):
        assert "handed over" in row["error"]


async def test_a_killed_daemon_goes_on_with_the_same_sessions(fleet: Fleet) -> None:
    phones = fleet.add(8)
    daemon = fleet.daemon()
    await daemon.start()
    jobs = fleet.send_many(phones, 40)
    await daemon.until(lambda s: s["totals"]["sent"] >= 20)
    daemon.kill(signal.SIGKILL)
    await daemon.wait_end()
    await daemon.start()
    await daemon.until(lambda s: s["totals"]["sent"] >= 20)
    # In order, this time.
    assert await daemon.stop() == 0
    assert fleet.server.control.stats()["online"] == 0
    await daemon.start()
    await fleet.finished(jobs)
    assert await daemon.stop() == 0
    # The orphaned workers finished what they had started and wrote it down.
    assert fleet.check_deliveries() == {"sent": jobs}
    fleet.check_one_client_each()


async def test_spent_workers_are_replaced_one_at_a_time_while_jobs_flow(fleet: Fleet) -> None:
    # So few may be open that each device is closed after its jobs: 8 connects of each worker, give or take its devices.
    phones = fleet.add(16)
    daemon = fleet.daemon(
        worker={"recycle": {"connects": 4}}, transports={"whatsapp": {"max_open_clients": 2, "max_connecting": 2}}
    )
    await daemon.start()
    before = [shard["pid"] for shard in (await daemon.status())["shards"]]
    jobs = fleet.send_many(phones, 4)
    states: list[tuple[str, ...]] = []

    def done(status: dict[str, Any]) -> bool:
        states.append(tuple(shard["state"] for shard in status["shards"]))
        return _ended(status) >= jobs

    status = await daemon.until(done)
    assert all(shard["pid"] != pid for shard, pid in zip(status["shards"], before, strict=True))
    assert [shard["restarts"] for shard in status["shards"]] == [0, 0], "a recycled worker was called crashed"
    assert all("running" in pair for pair in states), "two shards were replaced at the same time"
    recycled = [line for line in daemon.log_file.read_text().splitlines() if '"action":"recycle"' in line]
    assert len(recycled) >= 2
    assert await daemon.stop() == 0
    assert fleet.check_deliveries() == {"sent": jobs}
    fleet.check_one_client_each()


def two_nodes(fleet: Fleet) -> tuple[Daemon, Daemon]:
    """Two daemons on one database, each with one of its two shards, which notice soon when the other is gone."""
    quick = {
        "database": {"dsn": fleet.dsn, "connect_timeout": "2s", "statement_timeout": "2s"},
        "lease": {"ttl": "8s", "renew_every": "1s", "margin": "2s"},
        "shards": 2,
    }
    one, two = fleet.daemon(node="node-1", **quick), fleet.daemon(node="node-2", **quick)
    for place, daemon in enumerate((one, two)):
        daemon.take_place(place)
    return one, two


def shards_of(status: dict[str, Any]) -> set[int]:
    return {shard["shard"] for shard in status["shards"] if shard["state"] == "running"}


async def two_running_nodes(fleet: Fleet) -> tuple[Daemon, Daemon]:
    nodes = two_nodes(fleet)
    for node in nodes:
        await node.start()
    for node in nodes:
        await node.until(lambda s: len(shards_of(s)) == 1)
    return nodes


async def test_sessions_move_to_the_node_that_is_left(fleet: Fleet) -> None:
    phones = fleet.add(12)
    first, second = two_nodes(fleet)
    await first.start()
    jobs = fleet.send_many(phones, 2)
    await fleet.finished(jobs)
    await second.start()
    await second.until(lambda s: bool(shards_of(s)))
    await first.until(lambda s: len(shards_of(s)) == 1)
    jobs += _more(fleet, "shared", [phone.id for phone in phones])
    await fleet.finished(jobs)
    assert min([(await node.status())["totals"]["sent"] for node in (first, second)]) > 0
    first.kill(signal.SIGKILL)
    await first.wait_end()
    await second.until(lambda s: shards_of(s) == {0, 1})
    jobs += _more(fleet, "moved", [phone.id for phone in phones])
    await fleet.finished(jobs)
    assert await second.stop() == 0
    assert fleet.check_deliveries() == {"sent": jobs}
    fleet.check_one_client_each()
    assert {fleet.device(phone)["state"] for phone in phones} == {"ready"}


async def test_a_node_that_was_paused_repeats_nothing_and_spoils_nothing(fleet: Fleet) -> None:
    fleet.server.control.fault(**SLOW_ACKS)
    phones = fleet.add(12)
    first, second = await two_running_nodes(fleet)
    jobs = fleet.send_many(phones, 8)
    await fleet.until(lambda: fleet.states()["sent"] >= 20)
    # Its workers and their clients live on; its successor's logins throw those out, which must not be called the device's state.
    first.kill(signal.SIGSTOP)
    await second.until(lambda s: shards_of(s) == {0, 1})
    jobs += _more(fleet, "meanwhile", [phone.id for phone in phones])
    await fleet.until(lambda: fleet.states()["queued"] == 0)
    first.kill(signal.SIGCONT)
    await first.until(lambda s: len(shards_of(s)) == 1)
    jobs += _more(fleet, "back", [phone.id for phone in phones])
    await fleet.finished(jobs)
    assert await first.stop() == await second.stop() == 0
    # What it had in flight when it stopped was sent by its worker, and the outcome waited for it.
    assert fleet.check_deliveries() == {"sent": jobs}
    assert {fleet.device(phone)["state"] for phone in phones} == {"ready"}


async def test_a_node_that_sleeps_longer_than_its_leases_sends_no_byte_when_it_wakes(fleet: Fleet) -> None:
    """Supervisor and workers are stopped, as in a suspend: only the kernel can close their clients in time."""
    fleet.server.control.fault(**SLOW_ACKS)
    phones = fleet.add(12)
    first, second = await two_running_nodes(fleet)
    jobs = fleet.send_many(phones, 8)
    await fleet.until(lambda: fleet.states()["sent"] >= 20)
    workers = first.worker_pids()
    first.kill(signal.SIGSTOP)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    await second.until(lambda s: shards_of(s) == {0, 1})
    # Their supervisor cannot wait for them yet.
    assert {_state(worker) for worker in workers} == {"Z"}
    jobs += _more(fleet, "meanwhile", [phone.id for phone in phones])
    await fleet.until(lambda: fleet.states()["queued"] == 0)
    first.kill(signal.SIGCONT)
    await first.until(lambda s: len(shards_of(s)) == 1)
    jobs += _more(fleet, "back", [phone.id for phone in phones])
    await fleet.finished(jobs)
    assert await first.stop() == await second.stop() == 0
    states = fleet.check_deliveries()
    assert states["sent"] + states["in_doubt"] == jobs
    # At most what had been handed over when it fell asleep.
    assert states["in_doubt"] <= len(phones)
    fleet.check_one_client_each()
    assert {fleet.device(phone)["state"] for phone in phones} == {"ready"}


def _state(pid: int) -> str:
    """Of a process, as the kernel names it: `Z` is dead."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _more(fleet: Fleet, body: str, devices: list[str]) -> int:
    """One more job for each device; returns how many."""
    for device in devices:
        fleet.rows(
            "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES (%s, %s, %s)",
            *(device, "+" + fleet.stranger(), f"{device} {body}"),
        )
    return len(devices)
