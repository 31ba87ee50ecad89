"""Faults of logins and open clients, and their effect on the rows of devices and jobs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from tests.fixtures.whatsapp_faults import CONNECT_TIMEOUT, PROBE_AFTER, Cases, Faults, Running
from tests.fixtures.whatsapp_fleet import Phone
from tests.support.command import Command
from tests.whatsapp_server.seed import seed_postgres

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

CASES = Cases()
BANNED_FOR = 15


# ---- the login


def refused_login(
    code: int, state: str, why: str, to_do: str, **details: object
) -> Callable[[Faults, Phone], Awaitable[None]]:
    async def refused(f: Faults, phone: Phone) -> None:
        f.strike(phone, "failure", "login", code=code, times=None, **details)
        job, body = f.send(phone)
        await f.waits(phone, job, why)
        row = await f.fleet.device_is(phone, state)
        if state != "ready":
            assert why in row["reason"]
        f.expected[phone.id] = state, to_do
        assert f.arrivals(body) == []

    return refused


CASES["failure_401_needs_a_pairing"] = refused_login(401, "logged_out", "401", "device pair")
CASES["failure_403_needs_a_pairing"] = refused_login(403, "logged_out", "403", "device pair")
CASES["failure_405_needs_an_upgrade"] = refused_login(405, "client_outdated", "405", "upgrade")
CASES["failure_400_rests_the_device"] = refused_login(400, "ready", "400", "nothing")
CASES["failure_402_bans_for_a_time"] = refused_login(402, "banned", "banned", "wait", expire=3600)


@CASES.add
async def an_outdated_library_is_tried_again_later(f: Faults, phone: Phone) -> None:
    """What an upgrade needs: nobody has to touch the devices that an old version left behind."""
    f.strike(phone, "failure", "login", code=405)
    job, body = f.send(phone)
    row = await f.fleet.device_is(phone, "client_outdated")
    assert 3000 < (row["state_until"] - row["state_since"]).total_seconds() <= 3600 + 2
    f.fleet.rows("UPDATE shardd.devices SET state_until = now() WHERE id = %s RETURNING id", phone.id)
    await f.fleet.job_is(job, "sent")
    assert f.arrivals(body) == ["ack"]


@CASES.add
async def a_ban_ends_by_itself(f: Faults, phone: Phone) -> None:
    await f.works(phone)
    await f.fleet.control.ban(phone.number, BANNED_FOR)
    job, body = f.send(phone)
    row = await f.fleet.device_is(phone, "banned")
    assert 0 < (row["state_until"] - row["state_since"]).total_seconds() <= BANNED_FOR + 2
    # The worker reports the ban before it gives the job back.
    assert (await f.fleet.job_is(job, "queued"))["waits_for"].startswith("its device: banned")
    await f.fleet.job_is(job, "sent")
    assert f.fleet.job(job)["failures"] == 0
    row = await f.fleet.device_is(phone, "ready")
    assert (row["reason"], row["state_until"]) == (None, None)
    assert f.arrivals(body) == ["ack"]


@CASES.add
async def failure_503_is_over_soon(f: Faults, phone: Phone) -> None:
    f.strike(phone, "failure", "login", code=503)
    await f.works(phone)


@CASES.add
async def error_503_after_the_login_is_over_soon(f: Faults, phone: Phone) -> None:
    f.strike(phone, "stream_error", "online", code=503)
    await f.works(phone)


@CASES.add
async def error_515_after_the_login_is_another_login(f: Faults, phone: Phone) -> None:
    f.strike(phone, "stream_error", "online", code=515)
    await f.works(phone)
    assert len(f.fleet.logins(phone)) == 2


@CASES.add
async def a_login_that_is_dropped_is_tried_again(f: Faults, phone: Phone) -> None:
    f.strike(phone, "drop", "login")
    await f.works(phone)


@CASES.add
async def a_login_that_is_not_answered_is_tried_again(f: Faults, phone: Phone) -> None:
    f.strike(phone, "mute", "login")
    await f.works(phone)


@CASES.add
async def a_server_out_of_reach_is_told_and_tried_again(f: Faults, phone: Phone) -> None:
    # Until the error was seen: the job keeps it only until its next attempt.
    fault = f.strike(phone, "error", "connect", times=None)
    job, _ = f.send(phone)
    await f.fleet.until(lambda: "cannot be reached" in (f.fleet.job(job)["error"] or ""))
    assert f.control.remove_fault(fault)
    await f.fleet.job_is(job, "sent")


@CASES.add
async def an_upgrade_that_is_never_answered_is_given_up(f: Faults, phone: Phone) -> None:
    f.strike(phone, "mute", "upgrade")
    job, _ = f.send(phone)
    await f.fleet.until(lambda: f"{CONNECT_TIMEOUT:g} seconds" in (f.fleet.job(job)["error"] or ""))
    await f.fleet.job_is(job, "sent")
    assert len(f.fleet.logins(phone)) == 1


@CASES.add
async def slow_tls_is_waited_for(f: Faults, phone: Phone) -> None:
    f.strike(phone, "delay", "tls", seconds=2)
    await f.works(phone)
    assert len(f.fleet.logins(phone)) == 1


@CASES.add
async def a_job_whose_time_runs_out_while_its_device_connects_never_leaves(f: Faults, phone: Phone) -> None:
    f.strike(phone, "delay", "tls", seconds=6)
    body = f"{phone.id} in time"
    (row,) = f.fleet.rows(
        "INSERT INTO shardd.jobs (device_id, recipient, body, expires_at) "
        "VALUES (%s, '+628123456789', %s, now() + interval '3 seconds') RETURNING id",
        *(phone.id, body),
    )
    ended = await f.fleet.job_is(row["id"], "expired")
    assert (ended["failures"], ended["error_class"]) == (0, "expired")
    await f.works(phone)
    assert f.arrivals(body) == []


# ---- an open client


@CASES.add
async def replaced_at_the_login_needs_a_person(f: Faults, phone: Phone) -> None:
    f.strike(phone, "stream_error", "online", conflict="replaced")
    await _needs_a_person(f, phone, f.send(phone), "replaced")


@CASES.add
async def replaced_while_open_is_known_without_any_job(f: Faults, phone: Phone) -> None:
    await f.works(phone)
    await f.fleet.control.replace(phone.name)
    await f.fleet.device_is(phone, "replaced")
    await _needs_a_person(f, phone, f.send(phone), "replaced")


@CASES.add
async def removed_at_the_login_needs_a_pairing(f: Faults, phone: Phone) -> None:
    f.strike(phone, "stream_error", "online", code=401, conflict="device_removed")
    await _needs_a_person(f, phone, f.send(phone), "logged_out")


@CASES.add
async def removed_while_open_is_known_without_any_job(f: Faults, phone: Phone) -> None:
    await f.works(phone)
    await f.fleet.control.remove_device(phone.name)
    await f.fleet.device_is(phone, "logged_out")
    await _needs_a_person(f, phone, f.send(phone), "logged_out")


@CASES.add
async def paired_again_under_the_same_jid_it_works_at_once(f: Faults, phone: Phone) -> None:
    """WhatsApp may give a new linked device the number of one that was removed."""
    await f.works(phone)
    await f.fleet.control.remove_device(phone.name)
    await f.fleet.device_is(phone, "logged_out")
    stored = "SELECT 1 AS found FROM shardd_sessions.whatsmeow_device WHERE jid = %s"
    session = f"{phone.name}@s.whatsapp.net"
    await f.fleet.until(lambda: not f.fleet.rows(stored, session))  # the library deletes it a moment later
    job, body = f.send(phone)
    await f.fleet.control.link_again(phone.name)
    f.fleet.rows("DELETE FROM shardd_sessions.whatsmeow_lid_map WHERE pn = %s", phone.number)
    seed_postgres(sessions_dsn(f.fleet.dsn), [phone.number])
    f.fleet.rows("UPDATE shardd_sessions.whatsmeow_device SET noise_key = %s WHERE jid = %s", os.urandom(32), session)
    f.fleet.rows(
        "UPDATE shardd.devices SET session = %s, state = 'ready', reason = NULL, state_since = now() WHERE id = %s",
        *(session, phone.id),
    )
    await f.fleet.job_is(job, "sent")
    assert f.arrivals(body) == ["ack"]
    assert f.fleet.device(phone)["state"] == "ready"


@CASES.add
async def a_session_that_is_deleted_while_it_is_open_is_called_unpaired(f: Faults, phone: Phone) -> None:
    known = f.fleet.stranger()
    await f.works(phone, known)
    f.fleet.rows("DELETE FROM shardd_sessions.whatsmeow_device WHERE jid = %s", f"{phone.name}@s.whatsapp.net")
    await _needs_a_person(f, phone, f.send(phone, known), "unpaired")
    assert "is not in the session store" in f.fleet.device(phone)["reason"]


@CASES.add
async def a_mute_connection_is_found_out_and_rebuilt(f: Faults, phone: Phone) -> None:
    await f.works(phone)
    f.control.mute(phone.name)
    await asyncio.sleep(PROBE_AFTER * 1.5)  # silence has to last before anybody doubts
    job, body = f.send(phone)
    assert (await f.fleet.job_is(job, "sent"))["failures"] == 0
    assert f.arrivals(body) == ["ack"]
    assert len(f.fleet.logins(phone)) == 2


@CASES.add
async def a_session_that_is_not_stored_is_called_unpaired(f: Faults, phone: Phone) -> None:
    lost = Phone(f"{phone.id}-lost", f"{phone.number}0")
    f.fleet.rows(
        "INSERT INTO shardd.devices (id, transport, session) VALUES (%s, 'whatsapp', %s)",
        *(lost.id, f"{lost.name}@s.whatsapp.net"),
    )
    await _needs_a_person(f, lost, f.send(lost), "unpaired")


async def _needs_a_person(f: Faults, phone: Phone, sent: tuple[int, str], state: str) -> None:
    job, body = sent
    row = await f.fleet.device_is(phone, state)
    assert row["reason"]
    assert row["state_until"] is None
    before = len(f.fleet.logins(phone))
    assert before <= 1
    await f.works(f.witness)
    assert len(f.fleet.logins(phone)) == before, "it came back by itself"
    waiting = f.fleet.job(job)
    assert (waiting["state"], waiting["failures"]) == ("queued", 0)
    assert waiting["waits_for"] == f"its device: {state}, {row['reason']}"
    assert f.arrivals(body) == []
    f.expected[phone.id] = state, "device pair"
    if state == "replaced":
        ran = await Command(f.fleet.daemons[0].config_file)("device", "take-over", phone.id, "--yes")
        assert ran.code == 0, ran.err
        f.expected[phone.id] = "ready", "nothing"
        await f.fleet.job_is(job, "sent")
        assert f.arrivals(body) == ["ack"]


@pytest.mark.parametrize("name", CASES)
async def test_fault(running: Running, name: str) -> None:
    await running.tasks[name]


async def test_all_of_them_left_nothing_behind(running: Running) -> None:
    await running.end()
