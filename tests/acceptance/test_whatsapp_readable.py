"""`sent` means that somebody can read it: readable copies are counted by WhatsApp, and rows called `sent` by the database."""

from __future__ import annotations

import signal

import pytest

from shardd.transports.whatsapp.sessions.dsn import SCHEMA
from tests.fixtures.postgres import Cluster
from tests.fixtures.whatsapp_fleet import Fleet


@pytest.mark.timeout(400)
async def test_a_storm_ends_with_as_many_readable_copies_as_rows_called_sent(
    fleet: Fleet, fleet_cluster: tuple[Cluster, str]
) -> None:
    """PostgreSQL restarts, also together with the daemon; keys are limited, refused and missing; clients are closed and cut."""
    cluster, _ = fleet_cluster
    control = fleet.server.control
    control.fault("delay", "message", seconds=0.1, times=None)
    control.fault("error", "prekeys", code=429, times=2)
    control.fault("error", "prekeys", code=503, times=None, probability=0.06)
    control.fault("omit", "prekeys", times=None, probability=0.03)
    control.fault("omit", "usync", times=None, probability=0.02)
    phones = fleet.add(22)
    daemon = fleet.daemon(
        database={"dsn": fleet.dsn, "connect_timeout": "2s", "statement_timeout": "2s"},
        transports={
            "whatsapp": {"connect_timeout": "10s", "answer_timeout": "8s", "max_open_clients": 7, "max_connecting": 4}
        },
    )
    await daemon.start()
    jobs = fleet.send_many(phones, 7)
    for round_ in range(3):
        await daemon.until(lambda s, goal=20 * (round_ + 1): s["totals"]["sent"] >= goal)  # type: ignore[misc]
        if round_ == 1:
            control.cut()
        await cluster.restart()
        fleet.reconnect()
    daemon.kill(signal.SIGKILL)
    await daemon.wait_end()
    await cluster.restart()
    fleet.reconnect()
    await daemon.start()
    await fleet.finished(jobs, patience=200.0)
    assert await daemon.stop() == 0

    states = fleet.check_deliveries()
    assert states["sent"] + states["in_doubt"] == jobs, states
    assert control.stats()["counts"].get("unreadable", 0) == 0
    known = {row["message_id"] for row in fleet.rows("SELECT message_id FROM shardd.archive WHERE state = 'sent'")}
    copies = {message.id: message.copies for message in control.messages(accepted_only=False) if message.id in known}
    assert (len(known), copies) == (states["sent"], dict.fromkeys(known, 1))
    struck = {(event.details["fault"], event.details["at"]) for event in control.events("fault")}
    assert struck >= {("error", "prekeys"), ("omit", "prekeys"), ("omit", "usync")}
    fleet.check_one_client_each()


async def test_a_session_store_that_fails_before_the_encryption_makes_the_job_wait_for_it(fleet: Fleet) -> None:
    """The library finds a recipient, cannot store their identity, and would send a message without any copy."""
    phone, member = fleet.add(2)
    group = f"{fleet.server.control.create_group('friends', [member.number, fleet.stranger()])}@g.us"
    daemon = fleet.daemon()
    await daemon.start()
    await fleet.finished(fleet.send_many([phone, member], 1))
    tables = ("whatsmeow_identity_keys", "whatsmeow_sender_keys")
    for table in tables:
        fleet.rows(f"ALTER TABLE {SCHEMA}.{table} RENAME TO {table}_out_of_reach")
    jobs = fleet.send(phone, "to a stranger"), fleet.send(member, "to a group", group)
    for job, table in zip(jobs, tables, strict=True):
        await fleet.until(lambda job=job: fleet.job(job)["error"])  # type: ignore[misc] # called at once
        row = fleet.job(job)
        assert "the session store failed" in row["error"]
        assert table in row["error"]
        assert (row["state"], row["failures"], row["error_class"]) == ("queued", 0, "device")
    for table in tables:
        fleet.rows(f"ALTER TABLE {SCHEMA}.{table}_out_of_reach RENAME TO {table}")
    for job in jobs:
        await fleet.job_is(job, "sent")
    assert await daemon.stop() == 0
    assert fleet.check_deliveries() == {"sent": 4}
    assert fleet.server.control.messages(readable_only=False, accepted_only=False) == fleet.server.control.messages()
