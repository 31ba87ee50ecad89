"""The close of a client with the real library: what WhatsApp was told to have arrived is on the disk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from shardd.incoming_spool import IncomingSpool
from tests.integration.whatsapp.conftest import StartHost
from tests.integration.whatsapp.test_opt_outs import name_of
from tests.support.facts import fact
from tests.whatsapp_server.launch import ServerProcess

PERSON = "6281234567003"
RECIPIENT = f"+{PERSON}"


def spooled(state_dir: Path) -> list[str]:
    """The ids of the messages on the disk, in the order of their arrival."""
    spool = IncomingSpool(state_dir)
    found = [spool.read(name) for name in spool.names()]
    return [message.message_id for message in found if message is not None]


@fact(
    "Events of a client come one after the other, and are forgotten when it is stopped",
    "clients/draining.py",
    "clients/client.py",
    "messages/arrivals.py",
)
async def test_a_client_that_is_closed_in_a_burst_loses_no_message(
    start_host: StartHost, device: dict[str, Any], whatsapp: ServerProcess, tmp_path: Path
) -> None:
    # A disk that is slower than the library: its queue fills with messages that it has confirmed to WhatsApp.
    host = await start_host(state_dir=str(tmp_path), inbox=[], slow_disk=0.02)
    assert "message_id" in await host.send(device, RECIPIENT)
    await host.ask("close_device", device=device["id"])
    written = [whatsapp.control.write(name_of(device), PERSON, f"message {number}") for number in range(150)]

    # All of them come at the login, and the client is closed in the middle of them.
    assert await host.ask("visit", device=device) is None
    await host.until_events(5, "incoming", device["id"])
    await host.ask("close_device", device=device["id"])
    confirmed = [event.details["id"] for event in whatsapp.control.events("client_receipt", device=name_of(device))]
    kept = spooled(tmp_path)
    assert len(confirmed) > 10
    assert [message for message in written if message in confirmed and message not in kept] == []
    assert [event for event in host.events if event["event"] == "defect"] == []

    # What was not confirmed comes again, once: the library has used up the keys of what it had decrypted.
    assert await host.ask("visit", device=device) is None
    await host.until_events(2, "visited", device["id"])
    async with asyncio.timeout(60):
        while len(kept := spooled(tmp_path)) < len(written):  # noqa: ASYNC110 - the disk of another process
            await asyncio.sleep(0.05)
    assert kept == written
