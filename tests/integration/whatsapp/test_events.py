"""Stanzas that the library cannot report: its encoder does not know their numbers or types (goneonize/utils/encoder.go)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.whatsapp.conftest import StartHost
from tests.integration.whatsapp.host_process import HostProcess
from tests.integration.whatsapp.test_opt_outs import NUMBER, OTHER, RECIPIENT, REFUSED, heard, leave, name_of
from tests.support.facts import fact
from tests.whatsapp_server.launch import ServerProcess


@pytest.fixture
async def host(start_host: StartHost) -> HostProcess:
    return await start_host(opt_out_words=["stop"])


def defects(host: HostProcess) -> list[str]:
    return [event["text"] for event in host.events if event["event"] == "defect"]


# whatsmeow knows `server-error` and passes every other type on as it is (types/presence.go: ReceiptType).
@pytest.mark.parametrize("kind", ["server-error", "view"])
@fact(
    "An event that the library cannot encode ends the reports of its client",
    "clients/client.py",
    "messages/failures.py",
)
async def test_a_receipt_of_an_unknown_type_costs_the_client_and_no_later_message(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, kind: str
) -> None:
    sent = await host.send(device, RECIPIENT, "hello")
    whatsapp.control.receipt(name_of(device), NUMBER, sent["message_id"], kind=kind)
    await host.until(open=0)
    (defect,) = defects(host)
    assert device["id"] in defect
    assert "neonize.Receipt.Type not set" in defect
    whatsapp.control.write(name_of(device), NUMBER, "stop")
    assert await host.send(device, RECIPIENT, "an offer") == REFUSED
    assert [event["recipients"][0] for event in heard(host)] == [RECIPIENT]
    # WhatsApp was told that the receipt has arrived: it does not come again, and the new client stays.
    assert "message_id" in await host.send(device, f"+{OTHER}", "hello")
    assert (await host.ask("counts"))["connects"] == 2
    assert defects(host) == [defect]


async def test_a_receipt_of_an_unknown_type_behind_an_opt_out_does_not_hide_it(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    await leave(host, device)
    whatsapp.control.write(name_of(device), NUMBER, "stop")
    whatsapp.control.receipt(name_of(device), OTHER, "3EB0000000000000000000", kind="view")
    results = [await host.send(device, RECIPIENT, "an offer") for _ in range(2)]
    assert results[-1] == REFUSED
    assert whatsapp.control.messages(recipient=NUMBER) == []
    assert len(defects(host)) == 1


@fact(
    "A refusal with an unknown number is only in the log, with its stanza", "messages/failures.py", "clients/client.py"
)
async def test_a_ban_and_a_refusal_with_unknown_numbers_are_what_they_are(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    number = name_of(device).partition(":")[0]
    whatsapp.control.ban(number, 600, code=105)
    result = await host.send(device, RECIPIENT)
    assert (result["state"], result["text"]) == ("banned", "WhatsApp banned this account for a time: code 105")
    assert 0 < result["until"] - time.time() < 700
    whatsapp.control.forgive(number)
    whatsapp.control.fault("failure", "login", device=name_of(device), code=418)
    result = await host.send(device, RECIPIENT)
    assert (result["state"], result["text"]) == (None, "WhatsApp refused the login (418)")
    assert "message_id" in await host.send(device, RECIPIENT)
    assert defects(host) == []
