"""Visits beside sends, with the real library: a visit never takes what a send needs."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from tests.integration.whatsapp.conftest import MakeDevice, StartHost
from tests.integration.whatsapp.host_process import HostProcess
from tests.whatsapp_server.launch import ServerProcess

RECIPIENT = "+6281234567890"


async def test_a_visit_hears_what_waited_however_long_that_takes_and_shows_presence(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, store: str
) -> None:
    # Longer than a send would wait for it.
    whatsapp.control.settings(backlog_delay=4.0)
    assert await host.ask("visit", device=device) is None
    seen = await host.event("visited", device["id"])
    assert (seen["online"], seen["presence"], seen["note"]) == (True, True, None)
    shown = await whatsapp.async_control.wait_events("presence", 2, device=device["session"].partition("@")[0])
    assert [event.details["type"] for event in shown] == ["available", "unavailable"]
    await host.until(open=0)
    # A visit of an open client neither logs in again nor closes it, and the presence is not shown again so soon.
    assert "message_id" in await host.send(device, RECIPIENT)
    await host.until_events(2, "visited", device["id"])
    assert await host.ask("visit", device=device) is None
    await host.until_events(3, "visited", device["id"])
    counts = await host.ask("counts")
    assert (counts["connects"], counts["open"]) == (2, 1)
    assert len(whatsapp.control.events("presence")) == 2
    # Nor does it trust a client whose session was deleted meanwhile.
    with psycopg.connect(store) as connection:
        connection.execute("DELETE FROM whatsmeow_device WHERE jid = %s", [device["session"]])
    assert "is not in the session store" in await host.ask("visit", device=device)
    assert (await host.event("device_changed", device["id"]))["state"] == "unpaired"
    await host.until(open=0)


async def test_a_visit_that_connects_gives_way_to_a_send(
    start_host: StartHost, make_device: MakeDevice, whatsapp: ServerProcess, fresh_number: str
) -> None:
    host = await start_host(max_open_clients=1, max_connecting=1, connect_timeout=60.0)
    idle, busy = (make_device(str(int(fresh_number) + 900_000 + n)) for n in range(2))
    whatsapp.control.fault("mute", "login", device=idle["session"].partition("@")[0])
    visit = asyncio.create_task(host.ask("visit", device=idle))
    await whatsapp.async_control.wait_events("fault", 1)
    # The only place is taken by a login that hangs for a minute.
    assert "message_id" in await host.send(busy, RECIPIENT)
    assert "gave way" in await visit


async def test_a_visit_closes_no_client_that_is_in_use(
    start_host: StartHost, make_device: MakeDevice, whatsapp: ServerProcess, fresh_number: str
) -> None:
    host = await start_host(max_open_clients=1, max_connecting=1, answer_timeout=5.0)
    idle, busy = (make_device(str(int(fresh_number) + 950_000 + n)) for n in range(2))
    whatsapp.control.fault("ignore", "message", device=busy["session"].partition("@")[0], accepted=True)
    sending = asyncio.create_task(host.send(busy, RECIPIENT))
    await whatsapp.async_control.wait_messages(1)
    assert "gave way" in await host.ask("visit", device=idle)
    assert not sending.done()
    assert (await sending)["error"] == "InDoubtError"
    assert await host.ask("visit", device=idle) is None


async def test_a_visit_that_waits_for_its_turn_keeps_no_send_of_its_device_waiting(
    start_host: StartHost, make_device: MakeDevice, whatsapp: ServerProcess, fresh_number: str
) -> None:
    host = await start_host(max_connecting=2, connect_timeout=60.0)
    dead, healthy = (make_device(str(int(fresh_number) + 960_000 + n)) for n in range(2))
    whatsapp.control.fault("mute", "login", device=dead["session"].partition("@")[0])
    visits = [asyncio.create_task(host.ask("visit", device=dead))]
    await whatsapp.async_control.wait_events("fault", 1)
    visits.append(asyncio.create_task(host.ask("visit", device=healthy)))
    assert "message_id" in await host.send(healthy, RECIPIENT)
    assert not any(visit.done() for visit in visits)
    for visit in visits:
        visit.cancel()


async def test_a_visit_closes_no_client_that_a_phone_may_need_and_a_login_that_makes_room_was_online(
    start_host: StartHost, make_device: MakeDevice, whatsapp: ServerProcess, fresh_number: str
) -> None:
    host = await start_host(max_open_clients=1)
    first, second, idle = (make_device(str(int(fresh_number) + 970_000 + n)) for n in range(3))
    whatsapp.control.settings(backlog_delay=30.0, receipts="off")
    assert "message_id" in await host.send(first, RECIPIENT)
    # It still hears what waited when it is closed for another device's message.
    whatsapp.control.settings(backlog_delay=0.0)
    assert "message_id" in await host.send(second, RECIPIENT)
    await host.until_events(2, "visited", first["id"])  # the other one is reported at the login
    *_, seen = (seen for seen in host.events if (seen["event"], seen.get("device")) == ("visited", first["id"]))
    assert (seen["online"], seen["presence"]) == (True, False)
    assert "before it had heard all" in seen["note"]
    # The message of the second is not delivered: only its client can encrypt it again.
    await host.event("visited", second["id"], presence=True)
    assert "gave way" in await host.ask("visit", device=idle)
    assert (await host.ask("counts"))["open"] == 1
    # Unless the visit would become late, and messages to the other device would wait for longer than promised.
    assert await host.ask("visit", device=idle, late=True) is None
    assert (await host.event("visited", idle["id"]))["presence"]


async def test_a_probe_closes_no_other_client_which_could_not_be_replaced(
    start_host: StartHost, make_device: MakeDevice, fresh_number: str
) -> None:
    """Otherwise each probe of a refused version would cost one of the devices that are still connected."""
    host = await start_host(max_open_clients=1)
    connected, asked = (make_device(str(int(fresh_number) + 980_000 + n)) for n in range(2))
    assert "message_id" in await host.send(connected, RECIPIENT)
    await host.ask("hold_logins")
    assert await host.ask("visit", device=asked, late=True, probe=True) is None
    assert (await host.ask("counts"))["open"] == 2
    assert "message_id" in await host.send(connected, RECIPIENT)
    assert (await host.ask("counts"))["connects"] == 2
