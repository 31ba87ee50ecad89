"""The columns that a producer can set, with a running daemon, checked in the sandbox's record."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.support.command import Command
from tests.support.daemon import Daemon, Producer

SLOW = {"sandbox": {"connect_for": "3s"}}


def insert(producer: Producer, device: str, body: str = "hi", **fields: Any) -> int:
    columns = {"device_id": device, "recipient": "+4915112345", "body": body, **fields}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    (row,) = producer.execute(f"INSERT INTO shardd.jobs ({names}) VALUES ({marks}) RETURNING id", *columns.values())
    return int(row[0])


def expiring(producer: Producer, device: str, seconds: float, **fields: Any) -> int:
    ((moment,),) = producer.execute("SELECT now() + make_interval(secs => %s)", seconds)
    return insert(producer, device, expires_at=moment, **fields)


async def until_ended(daemon: Daemon, producer: Producer, *jobs: int) -> dict[int, str]:
    """The states of these jobs once none of them is live any more."""
    rows: list[tuple[Any, ...]] = []

    def look() -> bool:
        nonlocal rows
        rows = producer.execute("SELECT id, state FROM shardd.outcomes WHERE id = ANY (%s)", list(jobs))
        return not {state for _, state in rows} & {"queued", "scheduled", "sending"}

    async with asyncio.timeout(60):
        while not look():
            await daemon.wait_change()
    return dict(rows)


def sent_bodies(daemon: Daemon) -> list[str]:
    return [message["body"] for message in sorted(daemon.messages(), key=lambda message: message["at"])]


async def test_nothing_leaves_after_its_time(make_daemon: Callable[..., Daemon], producer: Producer) -> None:
    """Whether it waits in the queue, or its device takes longer to connect than it has time."""
    producer.add_devices(3)
    producer.execute("UPDATE shardd.devices SET paused_at = now() WHERE id = 'd2'")
    daemon = make_daemon(transports=SLOW)
    await daemon.start()
    late = [expiring(producer, "d1", 1.5, order_group="g"), expiring(producer, "d2", 1.5)]
    good = expiring(producer, "d3", 3600)
    behind = insert(producer, "d1", "after", order_group="g")
    ended = await until_ended(daemon, producer, *late, good, behind)
    assert ended == {late[0]: "expired", late[1]: "expired", good: "sent", behind: "cancelled"}
    rows = producer.execute("SELECT error, error_class, failures FROM shardd.outcomes WHERE state = 'expired'")
    assert rows == [("not sent before expires_at", "expired", 0)] * 2
    await daemon.stop()
    assert [message["job"] for message in daemon.messages()] == [good]


async def test_a_worker_that_slept_over_it_sends_nothing_late(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    producer.add_devices(1)
    daemon = make_daemon(shards=1)
    await daemon.start()
    warm = insert(producer, "d1")
    await until_ended(daemon, producer, warm)
    (worker,) = daemon.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    job = expiring(producer, "d1", 2.0)
    producer.execute("SELECT pg_sleep_until(expires_at) FROM shardd.outcomes WHERE id = %s", job)
    os.kill(worker, signal.SIGCONT)
    assert await until_ended(daemon, producer, job) == {job: "expired"}
    await daemon.stop()
    assert [message["job"] for message in daemon.messages()] == [warm]


async def test_an_order_group_goes_on_only_after_each_was_sent(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    producer.add_devices(2)
    daemon = make_daemon(transports={"sandbox": {"permanent_rate": 1.0}})
    shardd = Command(daemon.config_file)
    steps = [insert(producer, f"d{1 + n % 2}", f"step {n}", order_group="order 7") for n in range(4)]
    await daemon.start()
    assert await until_ended(daemon, producer, steps[0]) == {steps[0]: "failed"}
    await daemon.stop()
    assert producer.states() == {"failed": 1, "scheduled": 3}

    daemon.write_config(transports={"sandbox": {"permanent_rate": 0.0}})
    await daemon.start()
    assert (await shardd("job", "retry", "--order-group", "order 7", "--yes")).out == "retried 1 job\n"
    await until_ended(daemon, producer, *steps)
    await daemon.stop()
    assert sent_bodies(daemon) == ["step 0", "step 1", "step 2", "step 3"]


async def test_a_rehearsal_reads_numbers_as_the_transports_do(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    """Otherwise the sandbox sends to somebody else, past the opt-out that holds on the real device."""
    producer.add_devices(1)
    producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+4915112345678')")
    daemon = make_daemon(transports={"whatsapp": {"default_region": "DE"}})
    await daemon.start()
    spellings = ("0151 12345678", "151 12345678", "15112345678", "004915112345678")
    jobs = [insert(producer, "d1", recipient=spelling) for spelling in spellings]
    other = insert(producer, "d1", recipient="0151 22345678")
    assert await until_ended(daemon, producer, *jobs, other) == {**dict.fromkeys(jobs, "opted_out"), other: "sent"}
    assert [message["recipient"] for message in daemon.messages()] == ["+4915122345678"]

    await daemon.stop()
    daemon.write_config(transports={"whatsapp": {"default_region": "DE"}, "wablas": {"default_region": "ID"}})
    await daemon.start()
    with pytest.raises(psycopg.errors.CheckViolation, match="could be a number of several countries"):
        insert(producer, "d1", recipient="0151 12345678")
    await daemon.stop()


async def test_what_a_person_reads_is_what_the_producer_meant(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    producer.add_devices(1)
    daemon = make_daemon()
    await daemon.start()
    template = (
        "Hi {name|you}!\n\nYour order {order}: https://x.id/p?u={order}&d=100%25\r\n"
        "*bold* {{as is}} \U0001f600 \u200f\u05e9\u05dc\u05d5\u05dd"
    )
    jobs = [
        insert(producer, "d1", template, variables=json.dumps({"name": "A{order}", "order": "7/b"})),
        insert(producer, "d1", template, variables=json.dumps({"order": 8})),
        insert(producer, "d1", '{"a": 1} 100% { x }', metadata=json.dumps({"row": [1, None]})),
    ]
    await until_ended(daemon, producer, *jobs)
    rows = producer.execute("SELECT id, metadata FROM shardd.outcomes WHERE metadata IS NOT NULL")
    assert rows == [(jobs[2], {"row": [1, None]})]
    await daemon.stop()
    rest = "&d=100%25\r\n*bold* {as is} \U0001f600 \u200f\u05e9\u05dc\u05d5\u05dd"
    assert sent_bodies(daemon) == [
        f"Hi A{{order}}!\n\nYour order 7/b: https://x.id/p?u=7/b{rest}",
        f"Hi you!\n\nYour order 8: https://x.id/p?u=8{rest}",
        '{"a": 1} 100% { x }',
    ]


async def test_a_key_is_one_message_before_and_after_it_was_sent(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    producer.add_devices(2)
    daemon = make_daemon()
    statement = (
        "INSERT INTO shardd.jobs (device_id, recipient, body, dedupe_key) "
        "SELECT 'd' || 1 + mod(n, 2), '+4915112345', 'x', 'key ' || mod(n, 5) FROM generate_series(1, 20) n RETURNING id"
    )
    jobs = [row[0] for row in producer.execute(statement)]
    await daemon.start()
    assert producer.execute(statement) == []
    await until_ended(daemon, producer, *jobs)
    assert producer.execute(statement) == []
    await daemon.stop()
    assert len(jobs) == len(daemon.messages()) == 5


async def test_a_retried_job_is_sent_once_more_and_no_other(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    """A daemon that runs takes jobs that came back up by itself."""
    producer.add_devices(1)
    daemon = make_daemon()
    shardd = Command(daemon.config_file)
    await daemon.start()
    jobs = [insert(producer, "d1", run_at="2090-01-01") for _ in range(3)]
    assert (await shardd("job", "cancel", "--state", "scheduled", "--yes")).out == "cancelled 3 jobs\n"
    producer.execute("UPDATE shardd.archive SET run_at = now() WHERE id = ANY (%s)", jobs[:2])
    assert (await shardd("job", "retry", *jobs)).out == "retried 3 jobs\n"
    assert await until_ended(daemon, producer, *jobs[:2]) == {jobs[0]: "sent", jobs[1]: "sent"}
    assert producer.states() == {"sent": 2, "scheduled": 1}
    await daemon.stop()
    assert [message["job"] for message in daemon.messages()] == jobs[:2]


async def test_a_daemon_forgets_what_is_older_than_it_keeps(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    producer.add_devices(1)
    producer.execute(
        "CREATE TABLE shardd.archive_2020_01 PARTITION OF shardd.archive "
        "FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-02-01 00:00:00+00')"
    )
    jobs = [insert(producer, "d1", run_at="2090-01-01", dedupe_key=f"key {n}") for n in range(3)]
    producer.execute("SELECT shardd.end_jobs(%s, 'in_doubt', NULL, NULL)", jobs[:1])
    producer.execute("SELECT shardd.end_jobs(%s, 'failed', NULL, NULL)", jobs[1:])
    producer.execute("UPDATE shardd.archive SET settled_at = '2020-01-15 00:00:00+00'")
    producer.execute("UPDATE shardd.dedupe_keys SET created_at = '2020-01-15 00:00:00+00'")
    daemon = make_daemon(retention={"finished": "30d", "dedupe_keys": "30d"})
    await daemon.start()
    async with asyncio.timeout(60):
        while producer.execute("SELECT key FROM shardd.dedupe_keys") != [("key 0",)]:
            await daemon.wait_change()
    assert producer.execute("SELECT id, state FROM shardd.outcomes") == [(jobs[0], "in_doubt")]
    assert '"month":"2020-01"' in daemon.log_file.read_text()
    await daemon.stop()
