"""Devices do not delay each other, and do nothing without work."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

from tests.fixtures.whatsapp_fleet import Fleet, Phone, tasks_of
from tests.support.daemon import Daemon

HANG = 45
"""Seconds that a hung device holds out, longer than the rest of the test takes."""
PROBE_AFTER = 1.0
RUNTIME_THREADS = 4
"""Threads that Go and the event loop may have started for themselves meanwhile: a constant of the process, not of a device."""


async def the_worker(daemon: Daemon) -> int:
    (shard,) = (await daemon.status())["shards"]
    return int(shard["pid"])


def connections_to(pid: int, port: int) -> int:
    """Established TCP connections of a process to a port (proc(5): remote address, state 01, inode)."""
    own = {link for fd in Path(f"/proc/{pid}/fd").iterdir() if (link := _target(fd)).startswith("socket:")}
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(
        fields[2].endswith(f":{port:04X}") and fields[3] == "01" and f"socket:[{fields[9]}]" in own for fields in lines
    )


async def delays(fleet: Fleet, phones: list[Phone], rounds: range) -> list[float]:
    """Seconds from the insert of each job to its arrival at WhatsApp, one job of each device after the other."""
    found = []
    for round_ in rounds:
        jobs = {f"{phone.id} {round_}": fleet.send(phone, f"{phone.id} {round_}") for phone in phones}
        for body, job in jobs.items():
            row = await fleet.job_is(job, "sent")
            (message,) = fleet.seen(body)
            found.append(message.arrivals[0].time - row["created_at"].timestamp())
    return found


async def test_hung_devices_delay_no_other(fleet: Fleet) -> None:
    # More that hang in a connect than may connect at the same time.
    healthy, hung = fleet.add(6), fleet.add(8)
    daemon = fleet.daemon(
        shards=1,
        supervisor={"drain_timeout": "2s"},
        transports={
            "whatsapp": {
                "max_connecting": 4,
                "connect_timeout": f"{HANG}s",
                "answer_timeout": f"{HANG}s",
                "probe_timeout": f"{HANG}s",
                "probe_after": f"{PROBE_AFTER:g}s",
            }
        },
    )
    await daemon.start()
    *dialling, unanswered, mute = hung
    for phone in (unanswered, mute):
        await fleet.job_is(fleet.send(phone, f"{phone.id} before"), "sent")
    before = await delays(fleet, healthy, range(4))
    for phone, stage in zip(dialling, ("connect", "tls", "upgrade", "login") * 2, strict=False):
        fleet.server.control.fault("mute", stage, device=phone.name)
    fleet.server.control.fault("ignore", "message", device=unanswered.name)
    fleet.server.control.mute(mute.name)
    await asyncio.sleep(PROBE_AFTER * 1.5)  # silence has to last before anybody doubts
    stuck = [fleet.send(phone, f"{phone.id} stuck") for phone in hung]
    await fleet.until(lambda: len(fleet.server.control.events("fault")) == len(dialling) + 1)
    await fleet.until(lambda: all(fleet.job(job)["state"] == "sending" for job in stuck))
    # Devices that are open, and some that have to connect beside those that hang in it.
    during = await delays(fleet, healthy + fleet.add(3), range(4, 8))
    assert all(fleet.job(job)["state"] == "sending" for job in stuck), "they hung too short to delay anybody"
    assert statistics.median(during) < statistics.median(before) + 1.0
    assert max(during) < HANG / 2
    # Nor do they keep the daemon from stopping; what never left waits for its next start.
    assert await daemon.stop() == 0
    states = {job: fleet.job(job)["state"] for job in stuck}
    assert list(states.values()) == ["queued"] * len(dialling) + ["in_doubt", "queued"]


async def test_after_the_idle_time_nothing_of_a_device_is_left(fleet: Fleet) -> None:
    phones = fleet.add(20)
    daemon = fleet.daemon(shards=1, transports={"whatsapp": {"idle_close": "2s", "probe_after": "1s"}})
    await daemon.start()
    pid = await the_worker(daemon)
    # The library and its constant threads are there after the first device.
    await fleet.job_is(fleet.send(phones[0], "first"), "sent")
    await fleet.asleep(daemon)
    alone = await _quiet(fleet, pid)
    await fleet.finished(1 + fleet.send_many(phones, 1))
    assert tasks_of(pid) > alone + 10, "open clients have a thread each"
    await fleet.asleep(daemon)
    assert connections_to(pid, fleet.server.proxy_port) == 0
    await fleet.until(lambda: tasks_of(pid) <= alone + RUNTIME_THREADS)
    # The library never closes its connections to the store: the database ends them when they were idle.
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name NOT LIKE 'shardd%%'"
    )
    await fleet.until(lambda: len(fleet.rows(query)) <= 2)
    assert (await the_worker(daemon)) == pid


async def test_a_client_whose_server_vanished_is_closed_and_does_not_come_back_by_itself(fleet: Fleet) -> None:
    phones = fleet.add(10)
    daemon = fleet.daemon(shards=1)
    await daemon.start()
    pid = await the_worker(daemon)
    await fleet.finished(fleet.send_many(phones, 1))
    assert fleet.server.control.stats()["online"] == 10
    made = fleet.server.control.stats()["counts"]["connections"]
    fleet.server.control.cut()
    await daemon.until(lambda s: s["totals"]["open_clients"] == 0)
    assert connections_to(pid, fleet.server.proxy_port) == 0
    # Longer than the library's own patience: it tries at once, after 2 seconds, after 4.
    await asyncio.sleep(5)
    assert fleet.server.control.stats()["counts"]["connections"] == made
    assert fleet.server.control.stats()["connections"] == 0
    await fleet.job_is(fleet.send(phones[0], "again"), "sent")
    assert fleet.server.control.stats()["counts"]["connections"] == made + 1
    assert {fleet.device(phone)["state"] for phone in phones} == {"ready"}


async def _quiet(fleet: Fleet, pid: int) -> int:
    """The threads of a worker once none ends any more within the time that an idle one lives."""
    while True:
        before = tasks_of(pid)
        await asyncio.sleep(2.5)
        if tasks_of(pid) >= before:
            return tasks_of(pid)


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:  # closed meanwhile
        return ""
