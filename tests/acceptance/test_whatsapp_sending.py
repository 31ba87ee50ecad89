"""From a row to a phone and back: what WhatsApp received, and what the row contains."""

from __future__ import annotations

import asyncio
import resource
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from shardd.transports.whatsapp.clients.connecting import AHEAD
from tests.fixtures.whatsapp_fleet import Fleet

TEXT = "selamat pagi ☀ \n *bold* — 'quoted' \\n"


async def test_a_row_becomes_a_message_and_its_receipts_come_back(fleet: Fleet) -> None:
    fleet.server.control.settings(receipts="read")
    (phone,) = fleet.add(1)
    daemon = fleet.daemon()
    await daemon.start()
    job = fleet.send(phone, TEXT, "6281234567890")
    await fleet.until(lambda: fleet.job(job)["read_at"])
    (message,) = fleet.server.control.messages()
    assert (message.sender_device, message.recipient, message.text) == (phone.name, "6281234567890", TEXT)
    assert not message.bot_tag
    row = fleet.job(job)
    assert (row["state"], row["message_id"], row["failures"]) == ("sent", message.id, 0)
    assert row["delivered_at"] <= row["read_at"]
    assert (fleet.device(phone)["state"], fleet.device(phone)["reason"]) == ("ready", None)
    assert await daemon.stop() == 0
    assert fleet.server.control.stats()["online"] == 0


async def test_what_the_dsn_leaves_to_the_environment_reaches_the_library(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    parts = conninfo_to_dict(fleet.dsn)
    daemon = fleet.daemon(database={"dsn": f"dbname={parts['dbname']}"})
    daemon.environ |= {"PGHOST": str(parts["host"]), "PGUSER": str(parts["user"]), "PGSSLMODE": "disable"}
    # What libpq knows, and the library refuses to start with; and what would change how rows are written.
    daemon.environ |= {
        "PGCHANNELBINDING": "disable",
        "PGGSSENCMODE": "disable",
        "PGDATESTYLE": "German",
        "PGTZ": "Asia/Tokyo",
    }
    daemon.environ |= {"PGCLIENTENCODING": "LATIN1", "PGOPTIONS": "-c search_path=public -c statement_timeout=500"}
    await daemon.start()
    await fleet.job_is(fleet.send(phone, TEXT), "sent")
    assert await daemon.stop() == 0


async def test_receipts_that_come_while_the_client_is_closed_come_with_its_next_login(fleet: Fleet) -> None:
    fleet.server.control.settings(receipt_delay=4)
    (phone,) = fleet.add(1)
    daemon = fleet.daemon(transports={"whatsapp": {"idle_close": "1s", "probe_after": "1s", "linger": "0"}})
    await daemon.start()
    first = fleet.send(phone, "first")
    await fleet.job_is(first, "sent")
    await fleet.asleep(daemon)
    assert fleet.job(first)["delivered_at"] is None
    settled = fleet.job(first)["settled_at"]
    await fleet.until(lambda: (datetime.now(UTC) - settled).total_seconds() > 5)
    assert fleet.job(first)["delivered_at"] is None, "a client was open without work"
    await fleet.job_is(fleet.send(phone, "second"), "sent")
    await fleet.until(lambda: fleet.job(first)["delivered_at"])
    assert len(fleet.logins()) == 2


async def test_three_hundred_devices_wake_at_once(fleet: Fleet) -> None:
    phones = fleet.add(300)
    daemon = fleet.daemon(transports={"whatsapp": {"max_connecting": 4}})
    await daemon.start()
    jobs = fleet.send_many(phones, 1)
    most = ahead = 0
    while sum((states := fleet.states())[state] for state in ("queued", "sending", "scheduled")):
        stats = await fleet.control.stats()
        most, ahead = max(most, stats["connections"] - stats["online"]), max(ahead, states["sending"] - stats["online"])
    assert await daemon.stop() == 0
    assert fleet.check_deliveries() == {"sent": jobs}
    assert len(fleet.logins()) == 300
    # Of two shards. A connect that takes longer than CONNECT_COST, on a busy machine, does not count any more.
    assert 0 < most <= 2 * 4 * 5, "logins in progress"
    assert ahead <= 2 * (4 * 5 + AHEAD), "jobs that were claimed have to wait for a turn to connect"
    assert fleet.rows("SELECT max(failures) AS most, max(attempt) AS claims FROM shardd.archive") == [
        {"most": 0, "claims": 1}
    ]


async def test_more_devices_than_clients_may_be_open_take_turns_without_claims_that_wait(fleet: Fleet) -> None:
    phones = fleet.add(40)
    daemon = fleet.daemon(shards=1, transports={"whatsapp": {"max_connecting": 4, "max_open_clients": 5}})
    await daemon.start()
    jobs, claimed = fleet.send_many(phones, 2), 0
    while sum((states := fleet.states())[state] for state in ("queued", "sending", "scheduled")):
        claimed = max(claimed, states["sending"])
        await asyncio.sleep(0.02)
    assert await daemon.stop() == 0
    assert fleet.check_deliveries() == {"sent": jobs}
    assert claimed <= 2 * 5
    assert fleet.rows("SELECT max(failures) AS most, max(attempt) AS claims FROM shardd.archive") == [
        {"most": 0, "claims": 1}
    ]


async def test_devices_that_are_short_of_room_all_send_and_the_status_says_so(fleet: Fleet) -> None:
    phones = fleet.add(20)
    whatsapp = {"max_connecting": 4, "max_open_clients": 10}
    daemon = fleet.daemon(shards=1, pacing={"gap_min": "3s", "gap_max": "3s"}, transports={"whatsapp": whatsapp})
    await daemon.start()
    jobs = fleet.send_many(phones, 4)
    status = await daemon.until(lambda s: any("to make room" in note for note in s["notes"]))
    (note,) = (note for note in status["notes"] if "to make room" in note)
    assert note.startswith("shard 0: ")
    assert note.endswith("a worker may have 10 open, because of max_open_clients")
    await fleet.until(lambda: fleet.states() == {"sent": jobs})
    assert await daemon.stop() == 0
    assert fleet.check_deliveries() == {"sent": jobs}


@pytest.mark.parametrize(
    ("limits", "clients", "limit"),
    [
        ("--nofile=240:240", 40, "the limit of file descriptors (LimitNOFILE)"),
        ("--nofile=1024:4096", 682, "the limit of file descriptors (LimitNOFILE)"),
    ],
)
async def test_the_room_for_clients_follows_from_what_the_service_is_given(
    fleet: Fleet, limits: str, clients: int, limit: str
) -> None:
    (phone,) = fleet.add(1)
    daemon = fleet.daemon(shards=1)
    daemon.inside = ("prlimit", limits)
    await daemon.start()
    job = fleet.send(phone, "hello")
    await fleet.until(lambda: fleet.job(job)["state"] == "sent")
    status = await daemon.status()
    assert status["sessions"].endswith(f"; each worker may have {clients} clients open, because of {limit}")
    # It has raised its own limit as far as it may.
    (soft, hard) = resource.prlimit(status["shards"][0]["pid"], resource.RLIMIT_NOFILE)
    assert soft == hard
    assert await daemon.stop() == 0


async def test_sessions_are_the_daemons_alone(fleet: Fleet) -> None:
    fleet.add(1)
    with psycopg.connect(fleet.dsn.replace("//shardd@", "//producer@"), autocommit=True) as producer:
        assert producer.execute("SELECT pg_has_role('producer', 'shardd_producer', 'member')").fetchone() == (True,)
        for statement in (
            "SELECT * FROM shardd_sessions.whatsmeow_device",
            "SELECT noise_key FROM shardd_sessions.whatsmeow_device",
            "DELETE FROM shardd_sessions.whatsmeow_sessions",
            "CREATE TABLE shardd_sessions.mine (id int)",
            "SELECT session FROM shardd.devices",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                producer.execute(statement)
