"""Events of a running shardd, by webhook, SQL and the command line."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.webhook_receiver import SECRET, Posted, Receiver


def webhook(receiver: Receiver, **options: Any) -> dict[str, Any]:
    backoff = {"first": "50ms", "cap": "200ms"}
    return {"url": receiver.url, "secret": SECRET, "backoff": backoff, "timeout": "5s", **options}


def outbox(producer: Producer) -> dict[str, tuple[str, int | None]]:
    rows = producer.execute("SELECT event_id, kind, job_id FROM shardd.events")
    return {number: (kind, job) for number, kind, job in rows}


async def test_a_program_learns_of_every_end_through_kills_of_the_daemon(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    jobs, devices = 400, 8
    async with Receiver() as receiver:
        refusals = iter(range(10**6))
        receiver.manner = lambda _: 503 if next(refusals) % 7 == 6 else 204
        sandbox = {"permanent_rate": 0.1, "in_doubt_rate": 0.1, "latency_min": "5ms", "latency_max": "20ms"}
        daemon = make_daemon(
            webhooks={"crm": webhook(receiver, kinds="job.*")}, transports={"sandbox": sandbox}, lease={"ttl": "20s"}
        )
        await daemon.start()
        producer.add_devices(devices)
        producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body, reference, metadata) "
            "SELECT 'd' || 1 + g %% %s, '+49151' || 1000000 + g, 'x', 'order-' || g, jsonb_build_object('cart', g) "
            "FROM generate_series(1, %s) g",
            *(devices, jobs),
        )
        for part in (1, 2, 3):
            await receiver.until_taken(part * jobs // 4)
            daemon.kill()
            await daemon.wait_end()
            await daemon.start()
        await producer.until_finished(daemon, jobs)
        written = {number: told for number, told in outbox(producer).items() if told[0].startswith("job.")}
        await receiver.until(lambda r: written.keys() <= {post.number for post in r.taken})
        assert await daemon.stop() == 0

    assert len({job for _, job in written.values()}) == jobs
    # At least once, under one id and with one content each; nothing that did not happen.
    assert {post.number: (post.kind, post.job) for post in receiver.posted} == written
    assert len({(post.number, post.body) for post in receiver.posted}) == len(written)
    for post in receiver.taken:
        assert post.json["data"]["metadata"] == {"cart": int(post.json["data"]["reference"].removeprefix("order-"))}
    assert Counter(kind for kind, _ in written.values()).keys() == {"job.sent", "job.failed", "job.in_doubt"}


async def test_a_slow_receiver_delays_neither_messages_nor_other_receivers(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    async with Receiver(lambda _: "hang") as slow, Receiver() as quick:
        daemon = make_daemon(webhooks={"slow": webhook(slow, timeout="60s"), "quick": webhook(quick)})
        await daemon.start()
        producer.add_devices(4)
        producer.add_jobs(200, 4)
        await producer.until_finished(daemon, 200)
        await quick.until_taken(204)
        assert slow.taken == []
        assert 1 <= len(slow.posted) <= 8
        assert await daemon.stop() == 0  # what hangs is cut


async def test_an_operator_sees_what_happened_and_mends_a_webhook(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    refuses = {3}

    def manner(post: Posted) -> int:
        return 422 if post.job in refuses else 200

    async with Receiver(manner) as receiver:
        daemon = make_daemon(webhooks={"crm": webhook(receiver, kinds="job.sent")})
        shardd = Command(daemon.config_file)
        await daemon.start()
        assert (await shardd("webhook", "list", "--json")).json[0]["state"] == "delivering"
        producer.add_devices(2)
        producer.add_jobs(10, 2)
        await producer.until_finished(daemon, 10)
        await receiver.until_taken(9)
        while not (failed := (await shardd("webhook", "failed", "crm", "--json")).json):
            await daemon.wait_change()
            producer.add_jobs(1, 2)  # the receiver proves that it is up
        assert [(one["kind"], one["error"]) for one in failed] == [("job.sent", "HTTP 422")]

        listed = await shardd("event", "list", "--kind", "job.*", "--kind", "device.state", "--limit", "4", "--json")
        newest = listed.json
        assert [row["id"] for row in newest] == sorted(row["id"] for row in newest)
        after = await shardd("event", "list", "--after", newest[1]["position"], "--json")
        assert after.json[:2] == newest[2:]
        devices = (await shardd("event", "list", "--kind", "device.*")).out
        assert "new → ready" in devices
        assert "2 events" in devices

        refuses.clear()
        said = (await shardd("webhook", "retry", "crm")).out
        assert said == "webhook crm is tried at once; sent once more: 1 event\n"
        await receiver.until(lambda r: 3 in {post.job for post in r.taken})
        for arguments, said in (
            (("webhook", "retry", "nobody"), "webhook nobody is unknown; the others: shardd webhook list"),
            (("webhook", "failed", "nobody"), "webhook nobody is unknown; the others: shardd webhook list"),
            (("event", "list", "--kind", "job.sended"), "--kind: job.sended is not a kind of event; write job.sent"),
            (("event", "list", "--after", "77"), "--after 77 is not a position of this database"),
        ):
            refused = await shardd(*arguments)
            assert (refused.code, refused.out) == (64, "")
            assert said in refused.err

        # A receiver that goes away shows in the status, without its address; a reload to another one ends that.
        await receiver.stop()
        producer.add_jobs(4, 2)
        status = await daemon.until(lambda status: bool(status["notes"]))
        assert re.search(r"webhook crm has failed for \d+ s: cannot be reached: Connection refused", status["notes"][0])
        assert status["healthy"]
        assert [(one["name"], one["failing"]) for one in status["webhooks"]] == [("crm", True)]
        # The table has it a moment after the status.
        while "failing" not in (listed := await shardd("webhook", "list")).out:
            await daemon.wait_change()
        shown = (
            listed.out + (await shardd("webhook", "list", "--json")).out + json.dumps(status) + daemon.log_tail(10**6)
        )
        assert "geheim" not in shown
        assert SECRET.removeprefix("whsec_") not in shown
        async with Receiver() as other:
            daemon.write_config(webhooks={"crm": webhook(other, kinds="job.sent")})
            daemon.kill(signal.SIGHUP)
            await other.until_taken(4)
            await daemon.until(lambda status: not status["notes"])
            assert await daemon.stop() == 0


async def test_events_are_kept_as_long_as_the_config_says(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(events={"keep": "1h", "most": 1000})
    producer.add_devices(2)
    producer.execute(
        "INSERT INTO shardd.outbox (kind, at) SELECT 'job.sent', now() - interval '2h' FROM generate_series(1, 7000)"
    )
    producer.execute("INSERT INTO shardd.outbox (kind) SELECT 'job.sent' FROM generate_series(1, 6000)")
    await daemon.start()
    await daemon.until(lambda _: len(outbox(producer)) == 1000)
    daemon.write_config(events={"keep": 0})
    daemon.kill(signal.SIGHUP)
    await daemon.until(lambda _: len(outbox(producer)) == 0)
    producer.add_jobs(10, 2)
    await producer.until_finished(daemon, 10)
    assert outbox(producer) == {}
    assert await daemon.stop() == 0
