"""Opt-outs with the daemon running: what somebody wrote, or a producer inserted, stops what is queued. The server's record proves
that nothing more arrived than the one confirmation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import psycopg

from tests.fixtures.producers import Tenants
from tests.fixtures.whatsapp_fleet import Fleet, Phone
from tests.integration.inbound.test_cloud_webhook import SECRET, WORD, free_port, signature
from tests.platform_server.server import PlatformServer
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.unit.inbound.test_cloud_notifications import notification

BYE = "You will get no more messages from us."


@asynccontextmanager
async def cloud(
    make_daemon: Callable[..., Daemon], producer: Producer, platforms: PlatformServer, **config: Any
) -> AsyncIterator[tuple[Daemon, Callable[[str], Awaitable[None]]]]:
    """A daemon with the devices p1 of a cloud_api and d1, and who writes STOP to p1."""
    webhook = {"listen": f"127.0.0.1:{free_port()}", "app_secret": SECRET, "verify_token": WORD}
    section = {"base": platforms.base, "webhook": webhook}
    daemon = make_daemon(transports={"cloud_api": section}, **config)
    producer.add_devices(1)
    producer.execute(
        "INSERT INTO shardd.devices (id, transport, settings) VALUES "
        """('p1', 'cloud_api', '{"phone_number_id": "106540352242922", "token": "some-token"}')"""
    )
    await daemon.start()
    async with aiohttp.ClientSession() as http:

        async def stop(sender: str) -> None:
            said = {"id": f"wamid.{sender}", "from": sender, "type": "text", "text": {"body": "STOP"}}
            body = json.dumps(notification(messages=[said])).encode()
            headers = {"X-Hub-Signature-256": signature(body)}
            async with http.post(f"http://{webhook['listen']}/cloud_api", data=body, headers=headers) as answer:
                assert answer.status == 200

        yield daemon, stop


def queue(fleet: Fleet, phone: Phone, bodies: list[str], to: str, job_class: str = "marketing") -> list[int]:
    rows = fleet.rows(
        "INSERT INTO shardd.jobs (device_id, recipient, body, class) SELECT %s, %s, body, %s FROM unnest(%s::text[]) body "
        "RETURNING id",
        *(phone.id, to, job_class, bodies),
    )
    return [row["id"] for row in rows]


async def test_stop_stops_what_is_queued_and_is_confirmed_once(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person, other = fleet.stranger(), fleet.stranger()
    fleet.rows("UPDATE shardd.devices SET gap_min = 3600, gap_max = 3600")
    daemon = fleet.daemon(opt_outs={"confirm": BYE}, transports={"whatsapp": {"default_region": "ID"}})
    await daemon.start()
    await fleet.job_is(fleet.send(phone, "first", person), "sent")
    # These wait for the device's turn, and so does the confirmation.
    national = "0" + person.removeprefix("62")
    queued = [
        *queue(fleet, phone, ["second", "third"], f"+{person}"),
        *queue(fleet, phone, ["fourth"], national),
        *queue(fleet, phone, ["fifth"], f"+62 (0){person.removeprefix('62')}", "service"),
    ]
    fleet.server.control.write(phone.name, person, "STOP!")
    await fleet.until(lambda: fleet.rows("SELECT 1 FROM shardd.opt_outs WHERE address = %s", person))
    fleet.server.control.write(phone.name, person, "stop!!!")
    await fleet.until(lambda: daemon.log_tail(50).count("a recipient opted out") == 2)
    fleet.rows("UPDATE shardd.devices SET gap_min = 0, gap_max = 0")
    (proof,) = queue(fleet, phone, ["to another"], f"+{other}")
    await fleet.job_is(proof, "sent")
    for job in queued:
        row = await fleet.job_is(job, "opted_out")
        assert (row["error_class"], row["message_id"]) == ("opted_out", None)
    await fleet.until(lambda: fleet.seen(BYE))
    assert await daemon.stop() == 0
    arrived = Counter((message.recipient, message.text) for message in fleet.server.control.messages())
    assert arrived == {(person, "first"): 1, (person, BYE): 1, (other, "to another"): 1}
    (row,) = fleet.rows("SELECT * FROM shardd.opt_outs WHERE address = %s", person)
    assert (row["source"], row["device_id"], row["words"]) == ("message", phone.id, "STOP!")

    shardd = Command(daemon.config_file)
    shown = (await shardd("opt-out", "show", national, "--json")).json
    assert shown["address"] == person
    assert (shown["heard"][0]["words"], shown["heard"][0]["kind"]) == ("STOP!", "opted_out")
    assert {job["id"] for job in shown["jobs_stopped"]} == set(queued)


async def test_an_opt_out_that_waited_stops_the_job_that_woke_the_device(fleet: Fleet) -> None:
    """Of somebody whom the device had written to, also when WhatsApp hides the number."""
    phones = fleet.add(2)
    people = [(phone, fleet.stranger(), hidden) for phone, hidden in zip(phones, (False, True), strict=True)]
    daemon = fleet.daemon(transports={"whatsapp": {"idle_close": "1s", "probe_after": "1s"}})
    await daemon.start()
    for phone, person, _ in people:
        await fleet.job_is(fleet.send(phone, "first", person), "sent")
    await fleet.asleep(daemon)
    fleet.server.control.settings(announce_delay=0.8, backlog_delay=0.4)
    for phone, person, hidden in people:
        fleet.server.control.write(phone.name, person, "berhenti", hidden=hidden)
    second = [fleet.send(phone, "second", person) for phone, person, _ in people]
    for job in second:
        await fleet.job_is(job, "opted_out")
    listed = "SELECT 1 FROM shardd.opt_outs WHERE address = %s"
    for phone, person, _ in people:
        await fleet.until(lambda person=person: fleet.rows(listed, person))
        assert fleet.job(fleet.send(phone, "third", person))["state"] == "opted_out", "known at its INSERT"
    assert await daemon.stop() == 0
    assert [message.text for message in fleet.server.control.messages()] == ["first", "first"]


async def test_a_receipt_that_the_library_cannot_report_hides_no_later_opt_out(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person, other = fleet.stranger(), fleet.stranger()
    daemon = fleet.daemon()
    await daemon.start()
    job = fleet.send(phone, "first", person)
    await fleet.job_is(job, "sent")
    fleet.server.control.receipt(phone.name, person, fleet.job(job)["message_id"], kind="server-error")
    await fleet.until(lambda: "stopped to report the events" in daemon.log_tail(50))
    fleet.server.control.write(phone.name, person, "stop")
    await fleet.job_is(fleet.send(phone, "second", person), "opted_out")
    await fleet.job_is(fleet.send(phone, "second", other), "sent")
    (problem,) = (await daemon.status())["problems"]
    assert f"stopped to report the events of device {phone.id}" in problem
    assert await daemon.stop() == 0
    assert [message.recipient for message in fleet.server.control.messages(text="second")] == [other]


async def test_an_opt_out_outlasts_a_database_that_is_away_and_the_death_of_its_node(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    # WhatsApp hides the number of the second one, whom the device has written to.
    person, hidden = people = fleet.stranger(), fleet.stranger()
    daemon = fleet.daemon()
    await daemon.start()
    for one in people:
        await fleet.job_is(fleet.send(phone, "first", one), "sent")
    with psycopg.connect(fleet.dsn) as nobody_can_write:
        nobody_can_write.execute("LOCK TABLE shardd.opt_outs IN EXCLUSIVE MODE")
        fleet.server.control.write(phone.name, person, "stop")
        fleet.server.control.write(phone.name, hidden, "stop", hidden=True)
        await fleet.until(lambda: daemon.log_tail(50).count("a recipient opted out") == 2)
        for one in people:
            await fleet.job_is(fleet.send(phone, "second", one), "opted_out")
        await fleet.until(lambda: "opt-outs wait for the database" in daemon.log_tail(50))
        assert fleet.rows("SELECT * FROM shardd.opt_outs") == []
        daemon.kill()
        await daemon.wait_end()
        # Or the statement that it left behind would go on.
        fleet.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shardd/test'")
    await daemon.start()
    for one in people:
        await fleet.job_is(fleet.send(phone, "third", one), "opted_out")
    listed = "SELECT 1 FROM shardd.opt_outs WHERE address = ANY(%s)"
    await fleet.until(lambda: len(fleet.rows(listed, list(people))) == len(people))
    assert await daemon.stop() == 0
    assert [message.text for message in fleet.server.control.messages()] == ["first", "first"]


async def test_what_a_producer_inserts_stops_and_only_explicit_exemptions_pass(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(opt_outs={"exempt": "service"})
    producer.add_devices(1)
    producer.execute("UPDATE shardd.devices SET paused_at = now()")
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, class) SELECT 'd1', r, r || ' ' || c, c "
        "FROM unnest('{+6281100001,+6281100002}'::text[]) r, unnest('{marketing,service,reply}'::text[]) c"
    )
    producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+62 811 00001')")
    await daemon.start()
    producer.execute("UPDATE shardd.devices SET paused_at = NULL")
    await daemon.until(lambda _: sum(producer.states()[state] for state in ("sent", "opted_out")) == 6)
    assert producer.states() == {"sent": 4, "opted_out": 2}
    bodies = {message["body"] for message in daemon.messages()}
    assert "+6281100001 service" in bodies
    assert not bodies & {"+6281100001 marketing", "+6281100001 reply"}

    # The config decides, and is read again without a restart.
    daemon.write_config(opt_outs={"exempt": None})
    daemon.kill(signum=1)
    await daemon.wait_said("reloaded")
    setting = "SELECT value FROM shardd.settings WHERE name = 'opt_outs.exempt'"
    await daemon.until(lambda _: producer.execute(setting) == [([],)])
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, class) VALUES ('d1', '+6281100001', 'late', 'service')"
    )
    assert producer.states()["opted_out"] == 3
    assert await daemon.stop() == 0


async def test_stop_at_the_cloud_api_stops_and_is_confirmed_there(
    make_daemon: Callable[..., Daemon], producer: Producer, platforms: PlatformServer
) -> None:
    webhook = {"listen": f"127.0.0.1:{free_port()}", "app_secret": SECRET, "verify_token": WORD}
    daemon = make_daemon(
        opt_outs={"confirm": BYE}, transports={"cloud_api": {"base": platforms.base, "webhook": webhook}}
    )
    producer.execute(
        "INSERT INTO shardd.devices (id, transport, settings) VALUES "
        """('p1', 'cloud_api', '{"phone_number_id": "106540352242922", "token": "some-token"}')"""
    )
    await daemon.start()
    body = json.dumps(
        notification(
            messages=[{"id": "wamid.1", "from": "6281234567890", "type": "text", "text": {"body": "Berhenti!"}}]
        )
    ).encode()
    async with aiohttp.ClientSession() as http:
        url = f"http://{webhook['listen']}/cloud_api"
        for _ in range(2):  # Meta says some things twice
            async with http.post(url, data=body, headers={"X-Hub-Signature-256": signature(body)}) as answer:
                assert answer.status == 200
    await daemon.until(lambda _: producer.states()["sent"] == 1)
    producer.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('p1', '+6281234567890', 'an offer')")
    assert producer.states() == {"sent": 1, "opted_out": 1}
    assert await daemon.stop() == 0
    assert [post.content["text"]["body"] for post in platforms.received] == [BYE]
    rows = producer.execute("SELECT address, source, device_id, words FROM shardd.opt_outs")
    assert rows == [("6281234567890", "message", "p1", "Berhenti!")]


async def test_a_producers_open_transaction_holds_up_nobody_elses_opt_out_and_is_named(
    make_daemon: Callable[..., Daemon], producer: Producer, platforms: PlatformServer, tenants: Tenants, alpha: str
) -> None:
    """Of a bound producer, which may do least of all. Nobody who wrote STOP is sent what an opt-out stops, stored or not."""
    listed = "SELECT address FROM shardd.opt_outs ORDER BY address"
    config = {"opt_outs": {"exempt": "service", "confirm": BYE}}
    async with cloud(make_daemon, producer, platforms, **config) as (daemon, stop):
        with tenants.session(alpha) as blocker:
            blocker.execute("BEGIN")
            blocker.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+491511000001')")
            for sender in ("491511000001", "491511000002", "491511000003"):
                await stop(sender)
            await daemon.until(lambda _: len(producer.execute(listed)) == 2)
            # By every device of the node, under other spellings; what is exempt goes, and so do the confirmations of two.
            producer.execute(
                "INSERT INTO shardd.jobs (device_id, recipient, body, class) SELECT d, r, r || c, c "
                "FROM unnest('{p1,d1}'::text[]) d, unnest('{marketing,service}'::text[]) c, "
                "unnest('{+491511000001,0049151 1000001,+49 (0)1511000001,+491511000002,+491511000003}'::text[]) r"
            )
            await daemon.until(
                lambda _: sum(producer.states()[state] for state in ("opted_out", "sent", "failed")) == 22
            )
            assert producer.states() == {"opted_out": 10, "sent": 12}
            status = await daemon.until(lambda status: bool(status["problem_kinds"]["opt_outs"]))
            (text,) = [problem for problem in status["problems"] if "opt-outs by message" in problem]
            assert "wait to be stored: 1, the oldest for 1" in text
            pid = blocker.info.backend_pid
            for words in (f"pid {pid}", f"user {alpha}", tenants.dbname, f"pg_terminate_backend({pid})"):
                assert words in text
            # Whoever says it now is not behind the first one, and a crash loses nobody.
            await stop("491511000004")
            await daemon.until(lambda _: len(producer.execute(listed)) == 3)
            daemon.kill()
            await daemon.wait_end()
            await daemon.start()
            producer.execute(
                "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d1', '+491511000001', 'late')"
            )
            await daemon.until(lambda _: sum(producer.states()[state] for state in ("opted_out", "sent")) == 24)
            assert producer.states() == {"opted_out": 11, "sent": 13}, "the third confirmation among them"
            blocker.execute("ROLLBACK")
        await daemon.until(lambda _: len(producer.execute(listed)) == 4)
        await daemon.until(lambda status: not status["problem_kinds"]["opt_outs"])
        assert await daemon.stop() == 0
    assert not [message for message in daemon.messages() if "service" not in message["body"]]
    texts = [post.content["text"]["body"] for post in platforms.received]
    assert not [text for text in texts if text != BYE and "service" not in text]
