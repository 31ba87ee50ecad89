"""Device groups with a real daemon: which device delivered what, in the sandbox's record."""

from __future__ import annotations

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable

from tests.support.command import Command
from tests.support.daemon import Daemon, Producer, wait_gone

DEVICES = 4
RECIPIENTS = 100


def make_group(producer: Producer) -> None:
    producer.add_devices(DEVICES)
    producer.execute("INSERT INTO shardd.device_groups (id) VALUES ('team')")
    producer.execute("INSERT INTO shardd.device_group_members SELECT 'team', id FROM shardd.devices")


def add_jobs(producer: Producer, batch: str, *, first: int = 0, recipients: int = RECIPIENTS, each: int = 1) -> None:
    """So many jobs for each of these recipients, the batch as body."""
    producer.execute(
        "INSERT INTO shardd.jobs (device_group, recipient, body) "
        "SELECT 'team', '+49151' || 1000000 + r, %s FROM generate_series(1, %s::int) e, generate_series(%s::int, %s::int) r",
        *(batch, each, first, first + recipients - 1),
    )


def senders(daemon: Daemon, batch: str) -> dict[str, set[str]]:
    """By recipient, the devices that sent them something of a batch."""
    found: dict[str, set[str]] = defaultdict(set)
    for message in daemon.messages():
        if message["body"] == batch:
            found[message["recipient"]].add(message["device"])
    return found


def share(daemon: Daemon, batch: str) -> Counter[str]:
    """How many messages of a batch each device sent."""
    return Counter(message["device"] for message in daemon.messages() if message["body"] == batch)


async def finish(daemon: Daemon, producer: Producer, jobs: int) -> None:
    """All are sent, each of them once."""
    assert await producer.until_finished(daemon, jobs) == {"sent": jobs}
    assert Counter(Counter(message["job"] for message in daemon.messages()).values()) == {1: jobs}


async def change_device(daemon: Daemon, producer: Producer, device: str, state: str, parked: int) -> None:
    """Until the daemon knows the new state, and has none of the device's jobs in flight."""
    producer.execute("UPDATE shardd.devices SET state = %s, state_since = now() WHERE id = %s", state, device)
    await daemon.until(lambda s: s["totals"]["parked"] == parked and not sending(producer, device))


def sending(producer: Producer, device: str) -> int:
    rows = producer.execute(
        "SELECT count(*) FROM shardd.jobs WHERE device_id = %s AND claimed_epoch IS NOT NULL", device
    )
    return int(rows[0][0])


async def test_a_group_shares_its_work_and_recipients_keep_their_device(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    make_group(producer)
    await daemon.start()
    add_jobs(producer, "first", each=2)
    await finish(daemon, producer, 2 * RECIPIENTS)
    counts = share(daemon, "first")
    assert len(counts) == DEVICES
    assert min(counts.values()) >= 2 * RECIPIENTS / DEVICES / 2, counts
    known = senders(daemon, "first")
    assert all(len(devices) == 1 for devices in known.values())

    # Who knows whom is remembered over a restart.
    await daemon.stop()
    await daemon.start()
    add_jobs(producer, "second")
    await finish(daemon, producer, 3 * RECIPIENTS)
    assert senders(daemon, "second") == known


async def test_a_groups_jobs_move_on_when_a_device_dies_and_it_gets_new_ones_when_it_is_back(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(transports={"sandbox": {"latency_min": "10ms", "latency_max": "30ms"}})
    make_group(producer)
    await daemon.start()
    add_jobs(producer, "first", each=4)
    await daemon.until(lambda s: s["totals"]["sent"] >= RECIPIENTS)
    await change_device(daemon, producer, "d1", "logged_out", parked=1)
    by_d1 = share(daemon, "first")["d1"]
    assert by_d1 > 0
    await finish(daemon, producer, 4 * RECIPIENTS)
    assert share(daemon, "first")["d1"] == by_d1, "it sent after it was known to be dead"

    # Its recipients stay with those who took them over, also when it is back; new ones come to it.
    add_jobs(producer, "dead")
    await finish(daemon, producer, 5 * RECIPIENTS)
    taken_over = senders(daemon, "dead")
    assert set().union(*taken_over.values()) == {"d2", "d3", "d4"}
    await change_device(daemon, producer, "d1", "ready", parked=0)
    add_jobs(producer, "back")
    await finish(daemon, producer, 6 * RECIPIENTS)
    assert senders(daemon, "back") == taken_over
    add_jobs(producer, "new", first=RECIPIENTS)
    await finish(daemon, producer, 7 * RECIPIENTS)
    assert share(daemon, "new")["d1"] > 0


async def test_killed_processes_make_a_group_send_nothing_twice(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(transports={"sandbox": {"latency_min": "20ms", "latency_max": "60ms"}})
    make_group(producer)
    add_jobs(producer, "first", each=4)
    await daemon.start()
    await daemon.until(lambda s: producer.states()["sent"] >= RECIPIENTS)
    status = await daemon.status()
    os.kill(next(shard["pid"] for shard in status["shards"] if shard["devices"]), signal.SIGKILL)
    await daemon.until(lambda s: producer.states()["sent"] >= 2 * RECIPIENTS)
    workers = daemon.worker_pids()
    daemon.kill()
    await daemon.wait_end()
    for pid in workers:
        await wait_gone(pid)
    await daemon.start()
    states = await producer.until_finished(daemon, 4 * RECIPIENTS)
    assert await daemon.stop() == 0
    delivered = Counter(message["job"] for message in daemon.messages())
    assert set(delivered.values()) == {1}
    # Who knows nobody may doubt only what the killed worker had in flight.
    assert states["in_doubt"] <= DEVICES
    assert states["sent"] == 4 * RECIPIENTS - states["in_doubt"]
    assert all(len(devices) == 1 for devices in senders(daemon, "first").values())


async def test_a_group_without_a_device_that_can_send_waits_and_says_so(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    shardd = Command(daemon.config_file)
    make_group(producer)
    producer.execute("UPDATE shardd.devices SET state = 'banned'")
    await daemon.start()
    add_jobs(producer, "first", recipients=10)
    # A look at the pool has passed when a device outside of the group has sent.
    producer.add_devices(1, prefix="other")
    producer.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('other1', '+4915112345', 'other')")
    await daemon.until(lambda s: producer.states()["sent"] == 1)
    assert producer.states() == {"sent": 1, "queued": 10}
    assert "10 jobs without a device yet: none of its devices can send" in (await shardd("group", "show", "team")).out
    # One by one they come back, one of them by a person.
    producer.execute("UPDATE shardd.devices SET state = 'ready', paused_at = now() WHERE id IN ('d1', 'd2')")
    assert (await shardd("device", "resume", "d2")).code == 0
    await finish(daemon, producer, 11)
    assert share(daemon, "first") == {"d2": 10}
    members = (await shardd("group", "show", "team", "--json")).json["members"]
    assert {member["device_id"]: member["contacts"] for member in members} == {"d1": 0, "d2": 10, "d3": 0, "d4": 0}


async def test_a_device_that_leaves_its_group_gets_none_of_its_new_jobs(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    shardd = Command(daemon.config_file)
    make_group(producer)
    await daemon.start()
    add_jobs(producer, "first")
    await finish(daemon, producer, RECIPIENTS)
    assert share(daemon, "first")["d1"] > 0
    assert (await shardd("group", "remove", "team", "d1", "d2", "d3")).code == 0
    await daemon.stop()
    await daemon.start()
    add_jobs(producer, "second", recipients=30)
    await finish(daemon, producer, RECIPIENTS + 30)
    assert share(daemon, "second") == {"d4": 30}


async def test_a_campaign_is_shared_by_a_group_and_its_cap_counts_for_each_device(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    shardd = Command(daemon.config_file)
    make_group(producer)
    producer.execute("INSERT INTO shardd.campaigns (id, device_cap) VALUES ('spring', 5)")
    producer.execute(
        "INSERT INTO shardd.jobs (device_group, recipient, body, campaign) "
        "SELECT 'team', '+49151' || 1000000 + g, 'spring', 'spring' FROM generate_series(1, 100) g"
    )
    await daemon.start()
    await daemon.until(lambda s: s["totals"]["sent"] == 5 * DEVICES)
    # The group goes on with what has no cap.
    add_jobs(producer, "none", first=1000)
    await daemon.until(lambda s: s["totals"]["sent"] == 5 * DEVICES + RECIPIENTS)
    assert share(daemon, "spring") == {f"d{number}": 5 for number in range(1, DEVICES + 1)}
    assert len(share(daemon, "none")) == DEVICES
    progress = (await shardd("campaign", "show", "spring", "--json")).json["progress"]
    assert (progress["states"]["sent"], progress["states"]["queued"]) == (20, 80)


async def test_a_member_that_only_rests_keeps_no_job_from_the_others(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    make_group(producer)
    # Well as far as anybody knows, until it is told to send: its account has no token, which takes a person.
    producer.execute("INSERT INTO shardd.devices (id, transport) VALUES ('keyless', 'wablas')")
    producer.execute("INSERT INTO shardd.device_group_members VALUES ('team', 'keyless')")
    await daemon.start()
    add_jobs(producer, "all")
    await finish(daemon, producer, RECIPIENTS)
    assert len(share(daemon, "all")) == DEVICES
