"""Nodes that share a database: a node is its state folder, and whatever its journals prove ends a doubt, whoever had it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from shardd.queue.migrate import migrate
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.servers import Server

LEASE = {"ttl": "8s", "renew_every": "500ms", "margin": "1s"}
QUICK = {"dsn": "", "connect_timeout": "1s", "statement_timeout": "2s"}

MakeNode = Callable[..., Daemon]


def node_on(make_daemon: MakeNode, dsn: str, folder: Path | None = None, **config: Any) -> Daemon:
    """A daemon whose silence is noticed soon."""
    return make_daemon(folder, lease=LEASE, database={**QUICK, "dsn": dsn}, shards=2, **config)


def problems(status: dict[str, Any]) -> str:
    return "\n".join(status["problems"])


def deliveries(*daemons: Daemon) -> Counter[int]:
    return Counter(message["job"] for daemon in daemons for message in daemon.messages())


def served_by(status: dict[str, Any]) -> list[int]:
    """The shards of which a node has a worker that takes jobs."""
    return [number for number, shard in enumerate(status["shards"]) if shard["state"] == "running"]


async def refusal(daemon: Daemon) -> str:
    """Start a daemon that is to be refused; returns why."""
    await daemon.start(wait=False)
    assert await daemon.wait_end() == 75, daemon.log_tail()
    assert "Traceback" not in daemon.log_file.read_text()
    return daemon.log_tail()


def kill_all(daemon: Daemon) -> None:
    """As when the host dies: the workers do not finish what they have begun."""
    workers = daemon.worker_pids()
    daemon.kill(signal.SIGSTOP)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    daemon.kill(signal.SIGKILL)


async def test_a_second_host_of_the_same_name_is_refused_and_both_are_named(
    make_daemon: MakeNode, dsn: str, producer: Producer
) -> None:
    one, two = (node_on(make_daemon, dsn, node="twin") for _ in range(2))
    producer.add_devices(20)
    await one.start()
    producer.add_jobs(400, 20)
    why = await refusal(two)
    for folder in (one.home, two.home):
        assert f"state_dir {folder}" in why
    assert "would be a second node of that name: change `node` in its config" in why
    status = await one.until(lambda s: s["problem_kinds"]["node"] == 1)
    assert f"state_dir {two.home}) was refused" in problems(status)
    assert await producer.until_finished(one, 400) == {"sent": 400}
    # With a name of its own it takes its part.
    two.write_config(node="other")
    await two.start()
    await two.until(lambda s: any(shard["state"] == "running" for shard in s["shards"]) or s["healthy"])
    # The name is free for another folder as soon as its node has stopped.
    assert await one.stop() == 0
    three = node_on(make_daemon, dsn, node="twin")
    await three.start()
    producer.add_jobs(400, 20)
    assert await producer.until_finished(two, 800) == {"sent": 800}
    assert set(deliveries(one, two, three).values()) == {1}


async def test_a_folder_that_is_copied_while_it_is_in_use_is_refused_and_a_copy_proves_nothing(
    make_daemon: MakeNode, dsn: str, producer: Producer, tmp_path: Path
) -> None:
    one = node_on(make_daemon, dsn, node="one", transports={"sandbox": {"connect_for": "10m"}})
    producer.add_devices(8)
    producer.add_jobs(8, 8)
    await one.start()
    await one.until(lambda s: s["totals"]["in_flight"] == 8)
    folder = tmp_path / "copy"
    shutil.copytree(one.home, folder, ignore=shutil.ignore_patterns("*.sock", "daemon.log"))
    copy = node_on(make_daemon, dsn, folder, node="copy")
    why = await refusal(copy)
    assert f"state_dir {one.home}) is running, and node copy" in why
    assert "one is a copy of the other" in why
    assert f"state_dir {folder}) was refused" in problems(await one.until(lambda s: s["problem_kinds"]["node"] == 1))
    assert copy.messages() == []

    # The first host dies; a start on the copy waits until that is certain, and claims of the first stay in doubt.
    kill_all(one)
    await one.wait_end()
    await copy.start()
    assert await producer.until_finished(copy, 8) == {"in_doubt": 8}
    assert producer.execute("SELECT DISTINCT error_class, waits_for FROM shardd.outcomes") == [
        ("node", "the state folder of its node, or a person: shardd job resolve")
    ]
    # The first one is refused now, and takes over from the copy once that has stopped: its journals know what it had.
    assert f"state_dir {folder}) is running" in await refusal(one)
    assert await copy.stop() == 0
    one.write_config(transports={"sandbox": {"connect_for": 0}})
    await one.start()
    assert await producer.until_finished(one, 8) == {"sent": 8}
    assert set(deliveries(one, copy).values()) == {1}


async def test_a_supervisor_that_was_silent_ends_when_another_took_over_as_its_node(
    make_daemon: MakeNode, dsn: str, producer: Producer, tmp_path: Path
) -> None:
    one = node_on(make_daemon, dsn, node="one")
    producer.add_devices(8)
    await one.start()
    folder = tmp_path / "copy"
    shutil.copytree(one.home, folder, ignore=shutil.ignore_patterns("*.sock", "daemon.log"))
    one.kill(signal.SIGSTOP)
    copy = node_on(make_daemon, dsn, folder, node="copy")
    await copy.start()
    one.kill(signal.SIGCONT)
    assert await one.wait_end() == 75
    why = one.log_tail()
    assert f"state_dir {folder}) took over as this node" in why
    assert f"state_dir {one.home}), was silent" in why
    assert "Traceback" not in one.log_file.read_text()
    producer.add_jobs(80, 8)
    assert await producer.until_finished(copy, 80) == {"sent": 80}
    assert set(deliveries(one, copy).values()) == {1}


async def test_a_supervisor_whose_copy_goes_on_ends_and_settles_nothing(
    make_daemon: MakeNode, dsn: str, producer: Producer, superuser_dsn: str
) -> None:
    """Two machines were resumed from one snapshot: what this one has in flight, the other one has in flight, too."""
    one = node_on(make_daemon, dsn, node="one", transports={"sandbox": {"connect_for": "10m"}})
    producer.add_devices(2)
    producer.add_jobs(2, 2)
    await one.start()
    await one.until(lambda s: s["totals"]["in_flight"] == 2)
    with psycopg.connect(superuser_dsn, autocommit=True) as other:
        other.execute("UPDATE shardd.nodes SET beats = beats + 1, beat = gen_random_uuid(), address = '192.0.2.7'")
    assert await one.wait_end() == 75
    assert f"state_dir {one.home}) at 192.0.2.7 is this very supervisor" in one.log_tail()
    assert "resumed from one snapshot" in one.log_tail()
    assert producer.states() == {"sending": 2}


async def test_a_stop_gives_each_shard_away_as_soon_as_its_worker_is_gone(
    make_daemon: MakeNode, dsn: str, producer: Producer
) -> None:
    """While a shard is still being drained, others of the node have moved: by notification, long before anybody would look."""
    config = {"shards": 4, "lease": {"ttl": "1h", "renew_every": "5m"}, "supervisor": {"drain_timeout": "10m"}}
    one = make_daemon(node="one", transports={"sandbox": {"latency_min": "1m", "latency_max": "1m"}}, **config)
    producer.add_devices(1)
    producer.add_jobs(1, 1)
    await one.start()
    await one.until(lambda s: s["totals"]["in_flight"] == 1)
    two = make_daemon(node="two", **config)
    await two.start()
    assert not served_by(await two.status())
    one.kill(signal.SIGTERM)
    await two.until(lambda s: len(served_by(s)) == 3)
    assert (await one.status())["totals"]["in_flight"] == 1
    one.kill(signal.SIGTERM)  # do not wait for the last one
    assert await one.wait_end() == 0
    await two.until(lambda s: len(served_by(s)) == 4)
    assert await producer.until_finished(two, 1) == {"in_doubt": 1}


async def test_every_node_shows_all_and_one_that_is_cordoned_goes_on_without_shards(
    make_daemon: MakeNode, dsn: str, producer: Producer
) -> None:
    one, two = (node_on(make_daemon, dsn, node=name) for name in ("one", "two"))
    for place, daemon in enumerate((one, two)):
        daemon.take_place(place)
        await daemon.start()
    producer.add_devices(20)

    def states(status: dict[str, Any]) -> dict[str, tuple[str, int]]:
        """What each node does, and how many devices it last reported to be ready."""
        return {each["node"]: (each["state"], (each["devices"] or {}).get("ready", 0)) for each in status["nodes"]}

    def is_even(status: dict[str, Any]) -> bool:
        return [len(each["shards"]) for each in status["nodes"]] == [1, 1] and sum(
            ready for _, ready in states(status).values()
        ) == 20

    for daemon in (one, two):
        status = await daemon.until(is_even)
        assert {each["node"]: each["own"] for each in status["nodes"]} == {
            "one": daemon is one,
            "two": daemon is two,
        }
    shardd = Command(one.config_file)
    assert (await shardd("cluster", "cordon", "two")).code == 0
    for daemon in (one, two):
        await daemon.until(lambda s: states(s) == {"one": ("serving", 20), "two": ("cordoned", 0)})
    status = await two.until(lambda s: not served_by(s))
    assert (status["ready"], status["healthy"]) == (True, True)
    assert "this node is cordoned since" in "".join(status["notes"])
    shown = await shardd("status")
    assert shown.code == 0
    assert [line.split()[1] for line in shown.out.splitlines() if line.startswith(("one ", "two "))] == [
        "serving",
        "cordoned",
    ]
    producer.add_jobs(40, 20)
    assert await producer.until_finished(one, 40) == {"sent": 40}
    assert two.messages() == []

    # Nobody is left to send, which each of them says.
    assert (await shardd("cluster", "cordon", "one", "--yes")).code == 0
    for daemon in (one, two):
        status = await daemon.until(lambda s: s["problem_kinds"]["leases"] == 1)
        assert "no node takes shards, because one, two are cordoned: nothing is sent" in problems(status)
    assert (await shardd("cluster", "uncordon", "two")).code == 0
    await two.until(lambda s: served_by(s) == [0, 1] and s["healthy"])
    await one.until(lambda s: not served_by(s) and s["healthy"])
    shown = (await shardd("device", "show", "d1")).out
    assert "now" in shown
    assert "node two serves its shard; estimated from the database" in shown

    # It is missed before its time is over, and what it sent per second is nothing that is known now.
    kill_all(two)
    await two.wait_end()
    status = await one.until(lambda s: s["problem_kinds"]["node"] == 1)
    assert "node two on " in problems(status)
    missed = next(each for each in status["nodes"] if each["node"] == "two")
    assert missed["seen_ago"]
    assert missed["sent_per_second"] is None
    shown = await shardd("status")
    assert any(line.startswith("problem") and "node two on" in line for line in shown.out.splitlines())


async def test_what_a_lost_node_never_handed_over_is_queued_again_when_its_folder_is_back_under_any_name(
    make_daemon: MakeNode, dsn: str, producer: Producer
) -> None:
    """36 jobs in preparation, a folder under a new name, a job that was handed over, and one that a person has retried."""
    sandbox = {"connect_for": "10m"}
    one = node_on(make_daemon, dsn, node="one", transports={"sandbox": sandbox})
    producer.add_devices(38)
    producer.add_jobs(38, 38)
    await one.start()
    await one.until(lambda s: s["totals"]["in_flight"] == 38)
    kill_all(one)
    await one.wait_end()
    other = node_on(make_daemon, dsn, node="other")
    await other.start()
    assert await producer.until_finished(other, 38) == {"in_doubt": 38}
    # A person decides about one, and the other node sends it.
    producer.execute("SELECT * FROM shardd.retry_jobs(array[7])")
    states = await producer.until_finished(other, 38)
    while states["sent"] != 1:
        await other.wait_change()
        states = producer.states()
    assert states == {"sent": 1, "in_doubt": 37}

    one.write_config(node="renamed", transports={"sandbox": {"connect_for": 0}})
    await one.start()
    while producer.states() != {"sent": 38}:
        assert sum(producer.states().values()) == 38
        await one.wait_change()
    assert deliveries(one, other) == dict.fromkeys(range(1, 39), 1)
    assert producer.execute("SELECT count(*) FROM shardd.outbox WHERE kind = 'job.retried'") == [(38,)]
    assert producer.execute("SELECT DISTINCT failures FROM shardd.outcomes") == [(0,)]


async def test_a_node_that_was_cut_off_answers_what_others_doubted(
    make_daemon: MakeNode, dsn: str, producer: Producer
) -> None:
    """Its worker was preparing, and is killed when its lease is over: nothing left, and the doubt ends at once."""
    one = node_on(make_daemon, dsn, node="one", transports={"sandbox": {"connect_for": "10m"}})
    producer.add_devices(16)
    producer.add_jobs(16, 16)
    await one.start()
    await one.until(lambda s: s["totals"]["in_flight"] == 16)
    one.kill(signal.SIGSTOP)
    other = node_on(make_daemon, dsn, node="other")
    await other.start()
    assert await producer.until_finished(other, 16) == {"in_doubt": 16}
    one.kill(signal.SIGCONT)
    while producer.states()["in_doubt"]:
        await other.wait_change()
    await asyncio.to_thread(one.write_config, transports={"sandbox": {"connect_for": 0}})
    assert await one.stop() == 0
    assert await producer.until_finished(other, 16) == {"sent": 16}
    assert set(deliveries(one, other).values()) == {1}


# ---- claims that reached no worker


def hang_commits(server: Server, *, hang: bool) -> None:
    """As with a synchronous standby that is gone: what is committed waits, and becomes visible only when it is given up."""
    server.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{'gone' if hang else ''}'")
    server.execute("SELECT pg_reload_conf()")


def hanging(server: Server) -> int:
    ((count,),) = server.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    return int(count)


async def test_claims_of_a_commit_that_hangs_are_sent_once_whatever_is_stopped_meanwhile(
    tcp_server: Server, make_daemon: MakeNode
) -> None:
    await migrate(tcp_server.dsn())
    config = {"database": {"dsn": tcp_server.dsn(), "connect_timeout": "1s", "statement_timeout": "1s"}, "shards": 8}
    one, two = (
        make_daemon(node=name, lease={"ttl": "10s", "renew_every": "500ms"}, **config) for name in ("one", "two")
    )
    producer = Producer(tcp_server.dsn())
    producer.add_devices(60)
    await one.start()
    await two.start()
    await two.until(lambda s: any(shard["state"] == "running" for shard in s["shards"]))
    hang_commits(tcp_server, hang=True)
    with psycopg.connect(tcp_server.dsn(), autocommit=True) as connection:
        connection.execute("SET synchronous_commit = local")
        connection.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) "
            "SELECT 'd' || g, '+49151' || 1000000 + g, 'x' FROM generate_series(1, 60) g"
        )
    for daemon in (one, two):
        await daemon.until(lambda _, log=daemon.log_file: "database does not answer" in log.read_text())  # type: ignore[misc]
    assert hanging(tcp_server) > 0
    assert producer.states() == {"queued": 60}, "the claims are not visible yet"
    assert await one.stop() == 0
    hang_commits(tcp_server, hang=False)
    states = await producer.until_finished(two, 60)
    assert states["sent"] + states["in_doubt"] == 60
    # What the first could not write at its end, the second cannot know: its folder does.
    await one.start()
    await one.until(lambda _: producer.states() == {"sent": 60})
    assert deliveries(one, two) == dict.fromkeys(range(1, 61), 1)


async def test_a_claim_that_appears_after_its_node_has_stopped_is_sent_by_another(
    make_daemon: MakeNode, dsn: str, producer: Producer, superuser_dsn: str
) -> None:
    one, two = (node_on(make_daemon, dsn, node=name) for name in ("one", "two"))
    producer.add_devices(4)
    await one.start()
    await one.until(lambda s: all(shard["state"] == "running" for shard in s["shards"]))
    assert await one.stop() == 0
    producer.execute("UPDATE shardd.devices SET paused_at = now()")
    producer.add_jobs(4, 4)
    with psycopg.connect(superuser_dsn, autocommit=True) as owner:
        owner.execute(
            "UPDATE shardd.jobs SET attempt = 1, claimed_at = now(), claimed_epoch = (SELECT max(epoch) FROM shardd.epochs)"
        )
    await two.start()
    await two.until(lambda _: producer.states() == {"queued": 4})
    producer.execute("UPDATE shardd.devices SET paused_at = NULL")
    assert await producer.until_finished(two, 4) == {"sent": 4}


async def test_an_order_group_that_changes_nodes_goes_on_without_a_scan(
    make_daemon: MakeNode, dsn: str, producer: Producer
) -> None:
    seldom = {"poll_every": "1m", "scan_every": "10m"}
    one, two = (node_on(make_daemon, dsn, node=name, queue=seldom) for name in ("one", "two"))
    producer.add_devices(20)
    producer.execute("INSERT INTO shardd.device_groups (id) VALUES ('team')")
    producer.execute("INSERT INTO shardd.device_group_members SELECT 'team', id FROM shardd.devices")
    await one.start()
    await two.start()
    for node in (one, two):
        await node.until(lambda s: [shard["state"] for shard in s["shards"]].count("running") == 1)
    # Each device in turn, on whichever node it is; every fourth job goes to whichever device has room.
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, device_group, recipient, body, order_group) "
        "SELECT CASE WHEN mod(n, 4) > 0 THEN d.id END, CASE WHEN mod(n, 4) = 0 THEN 'team' END, '+49151' || 1000000 + n, "
        "n::text, 'steps' FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM shardd.devices) d ORDER BY d.n"
    )
    assert await producer.until_finished(one, 20) == {"sent": 20}
    assert one.messages(), "all devices were of one node"
    assert two.messages(), "all devices were of one node"
    messages = sorted((*one.messages(), *two.messages()), key=lambda message: message["at"])
    assert [int(message["body"]) for message in messages] == list(range(1, 21))
