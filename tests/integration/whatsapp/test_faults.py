"""Every fault of the test server: its effect on a job and on the device."""

import asyncio
import time
from typing import Any

import psycopg
import pytest

from shardd.transports.whatsapp.sessions.dsn import SCHEMA
from tests.integration.whatsapp.conftest import MakeDevice, StartHost
from tests.integration.whatsapp.host_process import HostProcess
from tests.support.facts import fact
from tests.whatsapp_server.launch import ServerProcess

NUMBER = "6281234567890"


def fault(whatsapp: ServerProcess, device: dict[str, Any], kind: str, at: str, **details: Any) -> None:
    """Inject a fault for this device."""
    whatsapp.control.fault(kind, at, device=device["session"].partition("@")[0], **details)


async def sends(host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, text: str = "after") -> None:
    """The device works again."""
    told = await host.send(device, NUMBER, text)
    assert "message_id" in told, told
    assert len(await whatsapp.async_control.wait_messages(1, recipient=NUMBER, text=text)) == 1


# ---- answers to a message


@pytest.mark.parametrize(
    ("code", "error"),
    [(479, "TransientError"), (500, "TransientError"), (429, "DeviceUnavailableError"), (403, "PermanentError")],
)
async def test_an_ack_with_an_error_is_proof_and_the_next_send_works(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, code: int, error: str
) -> None:
    fault(whatsapp, device, "error", "message", code=code)
    told = await host.send(device, NUMBER, "refused")
    assert (told["step"], told["error"]) == ("deliver", error)
    assert str(code) in told["text"]
    await sends(host, device, whatsapp)
    assert (await host.ask("counts"))["connects"] == 1


async def test_a_late_ack_is_waited_for(host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess) -> None:
    fault(whatsapp, device, "delay", "message", seconds=2)
    assert "message_id" in await host.send(device, NUMBER)


@pytest.mark.parametrize("accepted", [True, False])
async def test_an_ack_that_never_comes_is_in_doubt_and_nothing_is_sent_again(
    start_host: StartHost, device: dict[str, Any], whatsapp: ServerProcess, accepted: bool
) -> None:
    host = await start_host(answer_timeout=1)
    await sends(host, device, whatsapp, "before")
    fault(whatsapp, device, "ignore", "message", accepted=accepted)
    told = await host.send(device, NUMBER, "in doubt")
    assert (told["step"], told["error"]) == ("deliver", "InDoubtError")
    await host.until(open=0)
    await sends(host, device, whatsapp)
    seen = whatsapp.control.messages(text="in doubt", accepted_only=False)
    assert [len(message.arrivals) for message in seen] == [1]


@pytest.mark.parametrize("accepted", [True, False])
async def test_a_connection_that_dies_at_the_message_is_in_doubt_and_nothing_is_sent_again(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, accepted: bool
) -> None:
    await sends(host, device, whatsapp, "before")
    fault(whatsapp, device, "drop", "message", accepted=accepted)
    told = await host.send(device, NUMBER, "in doubt")
    assert (told["step"], told["error"]) == ("deliver", "InDoubtError")
    await sends(host, device, whatsapp)
    seen = whatsapp.control.messages(text="in doubt", accepted_only=False)
    assert [len(message.arrivals) for message in seen] == [1]


@fact(
    "The log names a device that gets no copy, and the library waits for the listener before it sends",
    "clients/library.py",
    "clients/client.py",
    "messages/copies.py",
)
async def test_a_send_that_is_late_after_its_message_was_held_back_is_no_doubt(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    fault(whatsapp, device, "error", "prekeys", code=503)
    told = await host.send(device, NUMBER, "held back", late=True)
    assert (told["step"], told["error"]) == ("deliver", "TransientError")
    await sends(host, device, whatsapp)
    assert whatsapp.control.messages(text="held back", accepted_only=False, readable_only=False) == []


@pytest.mark.parametrize("cancelled", [False, True])
@fact("A client keeps the devices of a recipient until WhatsApp reports a change", "clients/lookups.py")
async def test_a_question_after_the_message_makes_it_not_doubtful_and_does_not_end_its_client(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, cancelled: bool
) -> None:
    """The client is asked whom it encrypted for, and asks WhatsApp if they changed meanwhile; only it can encrypt again."""
    await sends(host, device, whatsapp, "before")
    name = device["session"].partition("@")[0]
    fault(whatsapp, device, "delay", "message", seconds=2)
    fault(whatsapp, device, "ignore", "usync")
    sending = asyncio.create_task(host.send(device, NUMBER, "acknowledged"))
    (message,) = await whatsapp.async_control.wait_messages(1, text="acknowledged")
    whatsapp.control.change_devices(name, NUMBER)
    await whatsapp.async_control.wait_events("fault", 1, device=name)
    if cancelled:
        await host.ask("cancel")
    assert await sending == {"message_id": message.id}
    whatsapp.control.receipt(name, NUMBER, message.id, read=True)
    await host.event("receipt", device["id"], ids=[message.id], kind="read")
    assert (await host.ask("counts"))["connects"] == 1


async def test_463_restricts_the_device_to_those_it_knows(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    number = device["session"].partition(":")[0]
    await sends(host, device, whatsapp, "a first message, to a friend from now on")
    whatsapp.control.restrict(number, 600)
    whatsapp.control.add_contacts(number, NUMBER)
    told = await host.send(device, "6281234567892", "to a stranger")
    assert (told["step"], told["error"], told["state"]) == ("deliver", "DeviceUnavailableError", "restricted")
    assert 5 * 3600 < told["until"] - time.time() < 7 * 3600
    again = await host.send(device, "6281234567891", "to another stranger")
    assert (again["step"], again["state"], again["until"]) == ("prepare", "restricted", told["until"])
    await sends(host, device, whatsapp, "a friend is still written to")
    assert len(whatsapp.control.messages(accepted_only=False)) == 3


async def test_463_for_a_contact_of_the_store_is_the_jobs_failure_and_leaves_the_device_alone(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, store: str
) -> None:
    await sends(host, device, whatsapp, "before")
    whatsapp.control.write(device["session"].partition("@")[0], NUMBER, "yes please")
    query = "SELECT FROM whatsmeow_contacts WHERE our_jid = %s"
    async with await psycopg.AsyncConnection.connect(store, autocommit=True) as connection, asyncio.timeout(30):
        while not (await (await connection.execute(query, [device["session"]])).fetchall()):  # noqa: ASYNC110 - another process's rows
            await asyncio.sleep(0.05)
    fault(whatsapp, device, "error", "message", code=463)
    told = await host.send(device, NUMBER, "refused")
    assert (told["step"], told["error"]) == ("deliver", "PermanentError")
    assert "463" in told["text"]
    assert "message_id" in await host.send(device, "6281234567892", "to a stranger")
    await sends(host, device, whatsapp)


async def test_463_for_somebody_who_never_replied_restricts_the_device_for_them_too(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    """One message makes nobody a contact: only the store says who is one."""
    await sends(host, device, whatsapp, "before")
    fault(whatsapp, device, "error", "message", code=463)
    told = await host.send(device, NUMBER, "refused")
    assert (told["step"], told["error"], told["state"]) == ("deliver", "DeviceUnavailableError", "restricted")
    again = await host.send(device, NUMBER, "not tried")
    assert (again["step"], again["state"], again["until"]) == ("prepare", "restricted", told["until"])
    assert len(whatsapp.control.messages(accepted_only=False)) == 2


async def test_a_number_without_an_account_fails_for_good_and_is_remembered(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    whatsapp.control.not_on_whatsapp("6281234567899")
    told = await host.send(device, "6281234567899")
    assert (told["step"], told["error"], told["text"]) == (
        "prepare",
        "PermanentError",
        "+6281234567899 is not on WhatsApp",
    )
    told = await host.send(device, "+6281234567899")
    assert (told["step"], told["error"]) == ("prepare", "PermanentError")


async def test_a_business_scoped_id_is_refused_with_what_can_be_sent_to(
    host: HostProcess, device: dict[str, Any]
) -> None:
    told = await host.send(device, "US.13491208655302741918@bsuid")
    assert (told["step"], told["error"]) == ("prepare", "PermanentError")
    assert "sends to phone numbers, LIDs (ID@lid) and groups (ID@g.us)" in told["text"]
    assert (await host.ask("counts"))["connects"] == 0


async def test_too_many_questions_rest_the_device(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    fault(whatsapp, device, "error", "usync", code=429)
    told = await host.send(device, NUMBER)
    assert (told["error"], told["state"], told["retry_after"]) == ("DeviceUnavailableError", None, 60)
    await sends(host, device, whatsapp)


# ---- ends of a session


@pytest.mark.parametrize(
    ("fault_kind", "state"),
    [
        (("login", "failure", {"code": 401}), "logged_out"),
        (("login", "failure", {"code": 403}), "logged_out"),
        (("login", "failure", {"code": 405}), "client_outdated"),
        (("login", "failure", {"code": 402, "expire": 3600}), "banned"),
        (("online", "stream_error", {"code": 401, "conflict": "device_removed"}), "logged_out"),
        (("online", "stream_error", {"conflict": "replaced"}), "replaced"),
        (("login", "failure", {"code": 400}), None),
        (("login", "failure", {"code": 503, "times": None}), None),
        (("login", "drop", {"times": None}), None),
    ],
)
async def test_a_login_that_fails_says_what_became_of_the_device(
    host: HostProcess,
    device: dict[str, Any],
    whatsapp: ServerProcess,
    fault_kind: tuple[str, str, dict[str, Any]],
    state: str | None,
) -> None:
    at, kind, details = fault_kind
    fault(whatsapp, device, kind, at, **details)
    told = await host.send(device, NUMBER)
    assert (told["step"], told["error"], told["state"]) == ("prepare", "DeviceUnavailableError", state), told
    if state == "banned":
        assert abs(told["until"] - time.time() - 3600) < 60
    await host.until(open=0)
    assert not whatsapp.control.messages(accepted_only=False)
    if state == "logged_out":
        again = await host.send(device, NUMBER)
        assert (again["step"], again["state"]) == ("prepare", "logged_out")
    else:
        whatsapp.control.clear_faults()
        await sends(host, device, whatsapp)


async def test_a_missing_session_is_told_before_it_can_do_harm(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    told = await host.send({**device, "session": "6281111111111:7@s.whatsapp.net"}, NUMBER)
    assert (told["step"], told["error"], told["state"]) == ("prepare", "DeviceUnavailableError", "unpaired")
    assert SCHEMA not in told["text"]
    told = await host.send({**device, "session": None}, NUMBER)
    assert (told["step"], told["state"]) == ("prepare", "unpaired")
    await sends(host, device, whatsapp)


@pytest.mark.parametrize(("act", "state"), [("remove_device", "logged_out"), ("replace", "replaced")])
async def test_an_open_client_that_is_thrown_out_is_reported_and_closed(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess, act: str, state: str
) -> None:
    await sends(host, device, whatsapp, "before")
    getattr(whatsapp.control, act)(device["session"].partition("@")[0])
    event = await host.event("device_changed", device["id"])
    assert event["state"] == state
    await host.until(open=0)


# ---- nobody there


@pytest.mark.parametrize("at", ["connect", "tls", "upgrade", "login", "online"])
@fact(
    "A client that hangs in the library ends when its sockets are cut",
    "clients/client.py",
    "shardd/transports/egress/gate.py",
)
async def test_a_hang_on_the_way_in_costs_its_device_the_deadline_and_others_nothing(
    start_host: StartHost, make_device: MakeDevice, whatsapp: ServerProcess, fresh_number: str, at: str
) -> None:
    host = await start_host(connect_timeout=2)
    hung, well = make_device(fresh_number), make_device(str(int(fresh_number) + 500_000))
    fault(whatsapp, hung, "mute", at)
    sending = asyncio.create_task(host.send(hung, NUMBER))
    await sends(host, well, whatsapp, "not delayed")
    assert not sending.done()
    told = await sending
    assert (told["step"], told["error"], told["state"]) == ("prepare", "DeviceUnavailableError", None)
    assert "2 seconds" in told["text"]
    await host.until(open=1)
    await sends(host, hung, whatsapp)


@fact("set_passive is one round trip", "clients/client.py")
async def test_a_mute_connection_is_found_out_by_a_probe_and_replaced(
    start_host: StartHost, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    # Below zero: the loop's clock has milliseconds, and a receipt may be as young as the mute.
    host = await start_host(probe_after=-1.0, probe_timeout=2.0)
    await sends(host, device, whatsapp, "before")
    whatsapp.control.mute(device["session"].partition("@")[0])
    await sends(host, device, whatsapp)
    assert (await host.ask("counts"))["connects"] == 2


async def test_a_refused_proxy_is_told_and_without_its_password(host: HostProcess, device: dict[str, Any]) -> None:
    told = await host.send({**device, "proxy": "http://me:hidden@127.0.0.1:1"}, NUMBER)
    assert (told["step"], told["error"]) == ("prepare", "DeviceUnavailableError")
    assert "cannot be reached" in told["text"]
    assert "hidden" not in told["text"]


@fact(
    "The debug log has each stanza that is received, with the reports of restrictions",
    "clients/library.py",
    "messages/failures.py",
)
async def test_a_restriction_that_an_earlier_process_learned_of_is_respected_and_ends(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    told = await host.send({**device, "restricted_until": time.time() + 3600}, NUMBER, "too early")
    assert (told["step"], told["error"], told["state"]) == ("prepare", "DeviceUnavailableError", "restricted")
    # The row is read anew some time after the process has heard of the end.
    assert await host.ask("visit", device=device) is None
    name = device["session"].partition("@")[0]
    whatsapp.control.report_restriction(name, active=False)
    await host.event("device_changed", device["id"], state="restricted")
    told = await host.send({**device, "restricted_until": time.time() + 3600}, NUMBER, "in time")
    assert "message_id" in told, told
    assert [message.text for message in whatsapp.control.messages(recipient=NUMBER)] == ["in time"]
