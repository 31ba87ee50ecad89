"""Incoming messages: an opt-out is reported and applies at once, and no other text leaves the worker."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.integration.whatsapp.conftest import MakeDevice, StartHost
from tests.integration.whatsapp.host_process import HostProcess
from tests.whatsapp_server.launch import ServerProcess
from tests.whatsapp_server.wire.nodes import lid_jid

NUMBER = "6281234567001"
RECIPIENT = f"+{NUMBER}"
OTHER = "6281234567002"
HIDDEN = str(lid_jid(NUMBER))
REFUSED = {"step": "prepare", "error": "OptedOutError", "text": "the recipient opted out"}


@pytest.fixture
async def host(start_host: StartHost) -> HostProcess:
    return await start_host(opt_out_words=["stop", "berhenti"])


def name_of(device: dict[str, Any]) -> str:
    return str(device["session"]).partition("@")[0]


async def leave(host: HostProcess, device: dict[str, Any]) -> None:
    """The device was there once, and is offline now."""
    assert "message_id" in await host.send(device, f"+{OTHER}", "first")
    await host.ask("close_device", device=device["id"])


def heard(host: HostProcess) -> list[dict[str, Any]]:
    return [event for event in host.events if event["event"] == "opted_out"]


async def test_an_opt_out_is_told_and_holds_at_once(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    assert "message_id" in await host.send(device, RECIPIENT, "hello")
    whatsapp.control.write(name_of(device), NUMBER, "Tolong berhenti!")
    event = await host.event("opted_out", device["id"])
    assert (event["recipients"], event["words"]) == ([RECIPIENT, HIDDEN], "Tolong berhenti!")
    assert abs(event["at"] - time.time()) < 3600
    for recipient in (RECIPIENT, HIDDEN):
        assert await host.send(device, recipient, "again") == REFUSED
    assert "message_id" in await host.send(device, RECIPIENT, "You get no more.", heeds_opt_outs=False)
    assert "message_id" in await host.send(device, f"+{OTHER}", "hello")
    texts = [message.text for message in whatsapp.control.messages()]
    assert texts == ["hello", "You get no more.", "hello"]


async def test_what_waited_at_whatsapp_is_heard_before_the_first_send(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    await leave(host, device)
    # Neither its announcement nor the messages come with the login.
    whatsapp.control.settings(announce_delay=1.0, backlog_delay=0.5)
    whatsapp.control.write(name_of(device), NUMBER, "hi there")
    whatsapp.control.write(name_of(device), NUMBER, "STOP")
    assert await host.send(device, RECIPIENT, "an offer") == REFUSED
    assert whatsapp.control.messages(recipient=NUMBER) == []
    # The same client serves all others, and keeps nobody waiting a second time.
    assert "message_id" in await host.send(device, f"+{OTHER}", "hello")
    assert (await host.ask("counts"))["connects"] == 2


async def test_a_backlog_that_never_comes_holds_nobody_up_for_long(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    await leave(host, device)
    whatsapp.control.settings(backlog_delay=3600)
    whatsapp.control.write(name_of(device), NUMBER, "STOP")
    async with asyncio.timeout(30):
        assert "message_id" in await host.send(device, f"+{OTHER}", "hello")


async def test_only_an_opt_out_in_a_chat_of_two_leaves_the_worker(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    assert "message_id" in await host.send(device, RECIPIENT, "hello")
    group = whatsapp.control.create_group("us", [name_of(device).partition(":")[0], NUMBER])
    whatsapp.control.write(name_of(device), NUMBER, "stop", group=group)
    for text in ("please don't stop", "stop?", "when do you stop", "hello"):
        whatsapp.control.write(name_of(device), NUMBER, text)
    whatsapp.control.write(name_of(device), OTHER, "stop")
    # It was written last, so all others have been looked at.
    event = await host.event("opted_out", device["id"])
    assert event["recipients"][0] == f"+{OTHER}"
    assert len(heard(host)) == 1
    assert "message_id" in await host.send(device, RECIPIENT, "hello")


async def test_who_hides_the_number_is_heard_too(
    host: HostProcess, make_device: MakeDevice, fresh_number: str, whatsapp: ServerProcess
) -> None:
    device = make_device(str(int(fresh_number) + 800_000))
    assert "message_id" in await host.send(device, HIDDEN, "hello")
    whatsapp.control.write(name_of(device), NUMBER, "stop", hidden=True)
    event = await host.event("opted_out", device["id"])
    assert event["recipients"] == [HIDDEN]
    for recipient in (HIDDEN, RECIPIENT):
        assert await host.send(device, recipient, "again") == REFUSED


async def test_without_words_nobody_opts_out(
    start_host: StartHost, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    host = await start_host()
    assert "message_id" in await host.send(device, RECIPIENT, "hello")
    whatsapp.control.write(name_of(device), NUMBER, "stop")
    await host.ask("close_device", device=device["id"])
    assert "message_id" in await host.send(device, RECIPIENT, "again")
    assert heard(host) == []
