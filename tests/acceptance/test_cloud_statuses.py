"""What Meta reports after it accepted a message, through the daemon: lost answers, errors that come later, and crashes."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

from shardd.supervisor.inbound.receipt_spool import NAME
from tests.acceptance.test_platforms import MakeDaemon, add_device, insert, platforms_config, row, text_of, until
from tests.integration.inbound.test_cloud_webhook import SECRET, WORD, free_port, signature
from tests.platform_server import server as steps
from tests.platform_server.server import PlatformServer
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.unit.inbound.test_cloud_notifications import notification


class Meta:
    """Reports statuses to a daemon, as Meta does."""

    def __init__(self, make_daemon: MakeDaemon, platforms: PlatformServer, **config: Any) -> None:
        self.port = free_port()
        webhook = {"listen": f"127.0.0.1:{self.port}", "app_secret": SECRET, "verify_token": WORD}
        self.daemon: Daemon = make_daemon(**platforms_config(platforms.base, cloud_api={"webhook": webhook}), **config)

    async def post(self, number: str, **value: Any) -> int:
        said = notification(metadata={"display_phone_number": "1555", "phone_number_id": number}, **value)
        body = json.dumps(said).encode()
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                f"http://127.0.0.1:{self.port}/cloud_api", data=body, headers={"X-Hub-Signature-256": signature(body)}
            ) as answer,
        ):
            return answer.status

    async def report(self, number: str, message_id: str, word: str, **more: Any) -> None:
        """A status of now."""
        status = {"id": message_id, "status": word, "timestamp": str(int(time.time())), "recipient_id": "628", **more}
        assert await self.post(number, statuses=[status]) == 200


async def test_a_status_settles_a_message_whose_answer_was_lost(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    """Meta's reference of messages: `biz_opaque_callback_data` is returned in each status of the message."""
    meta = Meta(make_daemon, platforms)
    jobs = {}
    for number, columns in {"1": {}, "2": {}, "3": {"on_doubt": "retry"}, "4": {}}.items():
        add_device(producer, "cloud_api", f"p{number}", {"phone_number_id": number, "token": f"token-{number}"})
        jobs[number] = insert(producer, f"p{number}", number, max_attempts=3, **columns)
    platforms.next(*[steps.hang_up_after_read] * 4)
    await meta.daemon.start()
    waits = {"1": "in_doubt", "2": "in_doubt", "3": "scheduled", "4": "in_doubt"}
    await until(meta.daemon, lambda: {n: row(producer, job)["state"] for n, job in jobs.items()} == waits)
    data = {text_of(one.content): one.content["biz_opaque_callback_data"] for one in platforms.received}
    assert row(producer, jobs["1"])["message_id"] is None

    await meta.report("1", "wamid.1", "delivered", biz_opaque_callback_data=data["1"])
    failed = [{"code": 131026, "title": "Message undeliverable"}]
    await meta.report("2", "wamid.2", "failed", errors=failed, biz_opaque_callback_data=data["2"])
    await meta.report("3", "wamid.3", "sent", biz_opaque_callback_data=data["3"])
    # Of another program that uses the number, and of a job that was retried since.
    await meta.report("4", "wamid.4", "delivered", biz_opaque_callback_data="order-17")
    await meta.report("4", "wamid.4", "delivered", biz_opaque_callback_data=data["4"].rpartition(":")[0] + ":7")
    settled = {"1": "sent", "2": "failed", "3": "sent", "4": "in_doubt"}
    await until(meta.daemon, lambda: {n: row(producer, job)["state"] for n, job in jobs.items()} == settled)
    first = row(producer, jobs["1"])
    assert (first["message_id"], first["error"]) == ("wamid.1", None)
    assert first["delivered_at"] is not None
    assert row(producer, jobs["2"])["error"] == "131026: Message undeliverable"
    assert row(producer, jobs["3"])["message_id"] == "wamid.3"
    assert len(platforms.received) == 4, "the one that waited for another try was not posted again"


async def test_what_is_delivered_did_not_fail(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    """Meta's webhook reference: statuses may come in any order."""
    meta = Meta(make_daemon, platforms)
    add_device(producer, "cloud_api", "p1", {"phone_number_id": "1", "token": "token"})
    job = insert(producer, "p1", "hello")
    await meta.daemon.start()
    await producer.until_finished(meta.daemon, 1)
    message = row(producer, job)["message_id"]
    await meta.report("1", message, "failed", errors=[{"code": 131053, "title": "Media upload error"}])
    await until(meta.daemon, lambda: row(producer, job)["state"] == "failed")
    shown = await Command(meta.daemon.config_file)("job", "show", job)
    assert "tries 1 of 5, 0 failed; claimed 1 time" in " ".join(shown.out.split())
    await meta.report("1", message, "delivered")
    await until(meta.daemon, lambda: row(producer, job)["state"] == "sent")
    assert (row(producer, job)["error"], row(producer, job)["error_class"]) == (None, None)
    await meta.report("1", message, "failed", errors=[{"code": 131053, "title": "Media upload error"}])
    await meta.report("1", message, "read")
    await until(meta.daemon, lambda: row(producer, job)["read_at"] is not None)
    assert row(producer, job)["state"] == "sent"
    kinds = [one for (one,) in producer.execute("SELECT kind FROM shardd.events WHERE job_id = %s ORDER BY id", job)]
    assert kinds == ["job.sent", "job.failed", "job.sent", "job.delivered", "job.read"]


async def test_an_error_of_the_account_that_comes_later_stops_its_devices_too(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    """Meta's list of errors: they come in the answer, by webhook, or both. 131042: a payment issue; 131064: until a date."""
    meta = Meta(make_daemon, platforms)
    for number, token in {"1": "a", "2": "b", "3": "c", "4": "c"}.items():
        add_device(producer, "cloud_api", f"p{number}", {"phone_number_id": number, "token": token})
    first = {number: insert(producer, f"p{number}", f"first {number}") for number in "1234"}
    await meta.daemon.start()
    await producer.until_finished(meta.daemon, 4)
    messages = {number: row(producer, job)["message_id"] for number, job in first.items()}
    await meta.report(
        "1", messages["1"], "failed", errors=[{"code": 131042, "title": "Business eligibility payment issue"}]
    )
    await meta.report("3", messages["3"], "failed", errors=[{"code": 131064, "title": "Messaging limit"}])
    await until(meta.daemon, lambda: row(producer, first["3"])["state"] == "failed")
    late = {"id": messages["2"], "status": "failed", "timestamp": "1700000000", "errors": [{"code": 131042}]}
    assert await meta.post("2", statuses=[late]) == 200

    later = {number: insert(producer, f"p{number}", f"later {number}") for number in "1234"}
    await until(meta.daemon, lambda: row(producer, later["2"])["state"] == "sent")
    await meta.daemon.until(lambda status: "3 devices are backing off" in " ".join(status["notes"]))
    assert {number: row(producer, job)["state"] for number, job in later.items()} == {
        **dict.fromkeys("134", "queued"),
        "2": "sent",
    }
    assert (row(producer, first["1"])["state"], row(producer, first["1"])["error_class"]) == ("failed", "account")
    # It is in the database: the next start of a node knows it, too.
    assert await meta.daemon.stop() == 0
    await meta.daemon.start()
    await meta.daemon.until(lambda status: "3 devices are backing off" in " ".join(status["notes"]))
    assert row(producer, later["1"])["state"] == "queued"
    reasons = dict(producer.execute("SELECT id, backoff_reason FROM shardd.devices WHERE backoff_until > now()"))
    assert reasons == {
        "p1": "131042: Business eligibility payment issue",
        **dict.fromkeys(("p3", "p4"), "131064: Messaging limit"),
    }


async def test_what_was_answered_with_200_is_not_lost_by_kill_9(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer, dsn: str
) -> None:
    """Meta repeats only what was not answered with 200."""
    meta = Meta(make_daemon, platforms)
    add_device(producer, "cloud_api", "p1", {"phone_number_id": "1", "token": "token"})
    jobs = [insert(producer, "p1", f"hello {number}") for number in range(3)]
    await meta.daemon.start()
    await producer.until_finished(meta.daemon, 3)
    spool = Path(meta.daemon.state_dir) / NAME
    with psycopg.connect(dsn) as connection:
        connection.execute("LOCK TABLE shardd.archive IN EXCLUSIVE MODE")  # nothing can be written to the rows
        for job in jobs:
            await meta.report("1", row(producer, job)["message_id"], "read")
        assert len(spool.read_bytes().split()) >= 3
        meta.daemon.kill()
        await meta.daemon.wait_end()
    await meta.daemon.start()
    await until(meta.daemon, lambda: all(row(producer, job)["read_at"] is not None for job in jobs))
    await until(meta.daemon, lambda: not spool.exists())


async def test_an_opt_out_holds_for_the_person_whatever_meta_calls_them(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    """Meta's page on business-scoped user ids: people with a username are without `from`; `wa_id` may be another number."""
    meta = Meta(make_daemon, platforms)
    add_device(producer, "cloud_api", "p1", {"phone_number_id": "1", "token": "token"})
    people = {
        "+16505551234": {"recipient_id": "16505551234", "recipient_user_id": "US.1"},
        "+5531987654321": {"recipient_id": "553187654321"},
        "+5531987654322": {},
        "+16505551235": {},
        "+16505551236": {},
        "+16505551237": {},
    }
    first = {number: insert(producer, "p1", "hello", number) for number in people}
    await meta.daemon.start()
    await producer.until_finished(meta.daemon, len(people))
    for number, names in people.items():
        if names:
            await meta.report("1", row(producer, first[number])["message_id"], "delivered", **names)
    await until(meta.daemon, lambda: ("US.1@bsuid",) in producer.execute("SELECT other FROM shardd.same_person"))

    def said(**message: Any) -> dict[str, Any]:
        return {
            "id": f"wamid.{message}",
            "timestamp": str(int(time.time())),
            "type": "text",
            "text": {"body": "STOP"},
            **message,
        }

    button = {"type": "button", "button": {"text": "Stop promotions", "payload": "Stop promotions"}}
    reply = said(**{"from": "16505551236", "from_user_id": "US.3", "text": {"body": "later"}})
    preference = {
        "wa_id": "16505551235", "detail": "User requested to stop marketing messages", "category": "marketing_messages",
        "value": "stop", "timestamp": 1731705721,
    }  # fmt: skip
    for value in (
        {"contacts": [{"profile": {"name": "Ana"}, "user_id": "US.1"}], "messages": [said(from_user_id="US.1")]},
        {"contacts": [{"wa_id": "553187654321"}], "messages": [said(**{"from": "553187654321"})]},
        {"contacts": [{"wa_id": "553187654322"}], "messages": [said(**{"from": "553187654322", **button})]},
        {"contacts": [{"wa_id": "16505551235"}], "user_preferences": [preference]},
        {"contacts": [{"wa_id": "16505551236", "user_id": "US.3"}], "messages": [reply]},
    ):
        assert await meta.post("1", **value) == 200
    await until(meta.daemon, lambda: ("US.3@bsuid",) in producer.execute("SELECT other FROM shardd.same_person"))
    assert await meta.post("1", messages=[said(from_user_id="US.3")]) == 200

    def listed() -> set[str]:
        return {address for (address,) in producer.execute("SELECT address FROM shardd.opt_outs")}

    stopped = {
        "16505551234",
        "5531987654321",
        "5531987654322",
        "16505551235",
        "16505551236",
        "US.1@bsuid",
        "US.3@bsuid",
    }
    await until(meta.daemon, lambda: listed() == stopped)
    # Meta's page on system messages: it has no contacts.
    system = {"body": "User Bo changed from 16505551236 to 12195555358", "wa_id": "12195555358"}
    changed = said(**{"from": "16505551236", "type": "system", "system": {**system, "type": "user_changed_number"}})
    assert await meta.post("1", messages=[changed]) == 200
    await until(meta.daemon, lambda: listed() == stopped | {"12195555358"})
    assert row(producer, insert(producer, "p1", "more", "+12195555358"))["state"] == "opted_out"
    # In a group, nobody opts out.
    assert await meta.post("1", messages=[said(**{"from": "16505551237", "group_id": "Y2FwaV9ncm91cDox"})]) == 200
    again = {number: insert(producer, "p1", "more", number) for number in people}
    await until(meta.daemon, lambda: row(producer, again["+16505551237"])["state"] == "sent")
    assert {number: row(producer, job)["state"] for number, job in again.items()} == {
        **dict.fromkeys(people, "opted_out"),
        "+16505551237": "sent",
    }
    assert len(platforms.received) == len(people) + 1
    kinds = Counter(
        data["kind"] for (data,) in producer.execute("SELECT data FROM shardd.events WHERE kind = 'message.received'")
    )
    assert kinds == {"text": 4, "button": 1, "preference": 1, "other": 1}
