"""Jobs sent through HTTP platforms with a running daemon, checked in the platforms' own record."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from shardd.hashing import shard_of
from tests.integration.inbound.test_cloud_webhook import SECRET, WORD, free_port, signature
from tests.platform_server import server as steps
from tests.platform_server.server import Connection, PlatformServer, says
from tests.support.daemon import Daemon, Producer
from tests.support.platform_device import key_of, settings_of
from tests.unit.inbound.test_cloud_notifications import notification, status

PLATFORMS = ["wablas", "whacenter", "cloud_api"]
MakeDaemon = Callable[..., Daemon]


def add_device(producer: Producer, transport: str, device_id: str, settings: dict[str, str]) -> None:
    producer.execute(
        "INSERT INTO shardd.devices (id, transport, settings) VALUES (%s, %s, %s)",
        device_id,
        transport,
        json.dumps(settings),
    )


def insert(producer: Producer, device_id: str, body: str, recipient: str = "+6281234567890", **columns: Any) -> int:
    columns = {"device_id": device_id, "recipient": recipient, "body": body, **columns}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    rows = producer.execute(f"INSERT INTO shardd.jobs ({names}) VALUES ({marks}) RETURNING id", *columns.values())
    return int(rows[0][0])


def row(producer: Producer, job: int) -> dict[str, Any]:
    rows = producer.execute("SELECT row_to_json(o) FROM shardd.outcomes o WHERE id = %s", job)
    return dict(rows[0][0])


async def until(daemon: Daemon, true: Callable[[], bool]) -> None:
    await daemon.until(lambda _: true())


def platforms_config(base: str, **more: Any) -> dict[str, Any]:
    return {"transports": {name: {"base": base} | more.get(name, {}) for name in PLATFORMS}}


def text_of(content: Any) -> str:
    return str(content["text"]["body"] if "text" in content else content["message"])


async def test_every_row_arrives_once_and_in_order(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    daemon = make_daemon(**platforms_config(platforms.base))
    keys = {}
    for number in range(9):
        transport = PLATFORMS[number % 3]
        settings = settings_of(transport)
        add_device(producer, transport, f"p{number}", settings)
        keys[key_of(settings)] = f"p{number}"
    jobs = [insert(producer, f"p{number % 9}", f"{number % 9} {number}") for number in range(180)]
    await daemon.start()
    await producer.until_finished(daemon, len(jobs))
    assert await daemon.stop() == 0
    assert producer.states() == {"sent": len(jobs)}
    assert Counter(text_of(r.content) for r in platforms.received) == Counter(f"{n % 9} {n}" for n in range(180))
    for key, device in keys.items():
        mine = [text_of(r.content).split() for r in platforms.received if r.key == key]
        assert [f"p{number}" for number, _ in mine] == [device] * 20
        assert [int(n) for _, n in mine] == sorted(int(n) for _, n in mine)
    named = [row(producer, job)["message_id"] for job in jobs]
    assert len(set(named)) == len(jobs)


@pytest.mark.parametrize("transport", PLATFORMS)
async def test_misbehaviour_never_doubles_a_message_nor_loses_a_row(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer, transport: str
) -> None:
    """Each recipient has its own fate, so that a message that came twice would be seen."""
    fates = {
        "6281200000001": (steps.good, "sent"),
        "6281200000002": (steps.reset_after_read, "in_doubt"),
        "6281200000003": (says(500, b"<html>"), "in_doubt"),
        "6281200000004": (says(200, b"<html>"), "in_doubt"),
        "6281200000005": (
            says(400, {"status": False, "message": "wrong number", "msg": "wrong number", "error": {"code": 131026}}),
            "failed",
        ),
        "6281200000006": (says(422, b"<html>"), "failed"),
    }

    async def by_recipient(connection: Connection) -> None:
        """The fate of whoever is written to."""
        received = await connection.read()
        assert received is not None
        await fates[received.recipient][0](connection)

    platforms.otherwise = by_recipient
    daemon = make_daemon(**platforms_config(platforms.base))
    jobs = {}
    for index, recipient in enumerate(fates):
        # A device for each: after a doubtful answer an account backs off.
        add_device(producer, transport, f"p{index}", settings_of(transport))
        jobs[recipient] = insert(producer, f"p{index}", "hello", f"+{recipient}", on_doubt="hold")
    await daemon.start()
    await producer.until_finished(daemon, len(jobs))
    assert await daemon.stop() == 0
    assert row(producer, jobs["6281200000005"])["error_class"] == "recipient"
    states = {recipient: row(producer, job)["state"] for recipient, job in jobs.items()}
    assert states == {recipient: state for recipient, (_, state) in fates.items()}
    assert Counter(r.recipient for r in platforms.received) == dict.fromkeys(fates, 1)


async def test_after_429_the_account_rests_and_then_the_message_goes_out(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    platforms.next(says(429, b"slow down", Retry_After="2"))
    daemon = make_daemon(**platforms_config(platforms.base))
    # On different shards, so that it is not one worker's memory alone that makes the sibling wait.
    names = {shard_of(name, 2): name for name in (f"p{number}" for number in range(20))}
    for name in names.values():
        add_device(producer, "wablas", name, {"token": "shared-token"})
    job = insert(producer, names[0], "first")
    await daemon.start()
    await platforms.until_received(1)
    await until(daemon, lambda: row(producer, job)["state"] == "queued")
    sibling = insert(producer, names[1], "second")
    await producer.until_finished(daemon, 2)
    assert [row(producer, one)["state"] for one in (job, sibling)] == ["sent", "sent"]
    assert row(producer, job)["failures"] == 0
    refused, *others = platforms.received
    assert len(others) == 2
    assert all(other.at - refused.at >= 2.0 for other in others)


async def test_meta_says_what_became_of_a_message(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    port = free_port()
    webhook = {"listen": f"127.0.0.1:{port}", "app_secret": SECRET, "verify_token": WORD}
    daemon = make_daemon(**platforms_config(platforms.base, cloud_api={"webhook": webhook}))
    add_device(producer, "cloud_api", "p1", {"phone_number_id": "106540352242922", "token": "some-token"})
    job, lost = insert(producer, "p1", "hello"), insert(producer, "p1", "hello", "+6281200000002")
    await daemon.start()
    await producer.until_finished(daemon, 2)
    message_id, lost_id = row(producer, job)["message_id"], row(producer, lost)["message_id"]
    undeliverable = status("failed", id=lost_id, errors=[{"code": 131026, "title": "Message undeliverable"}])
    body = json.dumps(
        notification(statuses=[status("delivered", id=message_id), status("read", id=message_id), undeliverable])
    ).encode()
    async with aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{port}/cloud_api"
        async with http.post(url, data=body, headers={"X-Hub-Signature-256": signature(body)}) as answer:
            assert answer.status == 200
    await until(daemon, lambda: row(producer, job)["read_at"] is not None)
    assert row(producer, job)["delivered_at"].startswith("2023-11-14T22:13:20")
    await until(daemon, lambda: row(producer, lost)["state"] == "failed")
    assert row(producer, lost)["error"] == "131026: Message undeliverable"
    assert row(producer, lost)["delivered_at"] is None
    assert await daemon.stop() == 0
    assert SECRET not in daemon.log_file.read_text()


async def test_kill_9_in_the_middle_of_a_post_leaves_doubt_and_no_second_post(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    platforms.next(steps.slow)
    daemon = make_daemon(**platforms_config(platforms.base))
    add_device(producer, "whacenter", "p1", {"device_id": "some-device-id"})
    job = insert(producer, "p1", "hello")
    await daemon.start()
    await platforms.until_received(1)
    for pid in daemon.worker_pids():
        os.kill(pid, signal.SIGKILL)
    await until(daemon, lambda: row(producer, job)["state"] == "in_doubt")
    after = insert(producer, "p1", "and on")
    await until(daemon, lambda: row(producer, after)["state"] == "sent")
    assert [text_of(received.content) for received in platforms.received] == ["hello", "and on"]


async def test_a_platform_that_is_away_costs_no_attempt(make_daemon: MakeDaemon, producer: Producer) -> None:
    platform, port = PlatformServer(), free_port()
    daemon = make_daemon(**platforms_config(f"http://127.0.0.1:{port}"))
    add_device(producer, "cloud_api", "p1", settings_of("cloud_api"))
    job = insert(producer, "p1", "hello", max_attempts=1)
    await daemon.start()
    await until(daemon, lambda: "cannot be reached" in (row(producer, job)["error"] or ""))
    assert (row(producer, job)["state"], row(producer, job)["failures"]) == ("queued", 0)
    await platform.start(port=port)
    try:
        await producer.until_finished(daemon, 1)
    finally:
        await platform.stop()
    assert row(producer, job)["state"] == "sent"
    assert len(platform.received) == 1
