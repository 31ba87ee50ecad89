"""Pairing and unlinking, each in its own process, with the test server as the phone."""

import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shardd.errors import SharddError
from shardd.transports.whatsapp.linking.hearing import Hearing
from shardd.transports.whatsapp.linking.pairing import PairingEvent, pair
from shardd.transports.whatsapp.linking.unlinking import unlink
from shardd.transports.whatsapp.sessions.store import SessionStore
from tests.integration.whatsapp.conftest import MakeDevice
from tests.integration.whatsapp.host_process import HostProcess
from tests.integration.whatsapp.test_closing import spooled
from tests.whatsapp_server.launch import ServerProcess
from tests.whatsapp_server.state.phones import e2e

NUMBER = "6281234567890"


@pytest.fixture
def trusting(whatsapp: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that this test starts trust the test server."""
    for name, value in whatsapp.client_environment().items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)


@pytest.fixture
def hearing(tmp_path: Path) -> Hearing:
    """What people write meanwhile is kept here."""
    return Hearing(device_id="dev", state_dir=str(tmp_path), opt_out_words=["stop"], include=())


async def stored(store: str, number: str) -> list[str]:
    sessions = SessionStore(store)
    try:
        return [session.jid for session in await sessions.list_sessions() if session.number == number]
    finally:
        await sessions.close()


async def next_of(events: AsyncIterator[PairingEvent], kind: str) -> PairingEvent:
    """The next event of a kind; whatever ends the pairing before is a failure."""
    async for event in events:
        if event.kind == kind:
            return event
        assert event.kind not in {"failed", "timeout", "paired"}, event
    raise AssertionError(f"the pairing ended without {kind}")


@pytest.mark.usefixtures("trusting")
async def test_a_scanned_qr_becomes_a_session_that_sends(
    store: str, whatsapp: ServerProcess, fresh_number: str, host: HostProcess, hearing: Hearing
) -> None:
    events = pair(store, hearing, proxy=whatsapp.proxy_url(), expected=f"+{fresh_number}", settle=1.0)
    qr = await next_of(events, "qr")
    await whatsapp.async_control.scan(qr.code, fresh_number)
    # A phone that is linked gets what waits for it at once, and WhatsApp does not send it to the worker again.
    await whatsapp.async_control.wait_events("paired", device=fresh_number)
    written = [whatsapp.control.write(f"{fresh_number}:1", NUMBER, text) for text in ("hello", "STOP")]
    paired = await next_of(events, "paired")
    assert paired == PairingEvent("paired", jid=f"{fresh_number}:1@s.whatsapp.net", lid=paired.lid, number=fresh_number)
    assert paired.lid is not None
    assert paired.lid.endswith(":1@lid")
    assert [event async for event in events] == []
    assert spooled(Path(hearing.state_dir)) == written
    told = await host.send({"id": "new", "session": paired.jid, "proxy": whatsapp.proxy_url()}, NUMBER, "first words")
    (message,) = await whatsapp.async_control.wait_messages(1, sender=fresh_number)
    assert (told, message.text) == ({"message_id": message.id}, "first words")


@pytest.mark.usefixtures("trusting")
async def test_a_message_that_cannot_be_read_meanwhile_is_a_remark_of_the_pairing(
    store: str, whatsapp: ServerProcess, fresh_number: str, hearing: Hearing
) -> None:
    """Python's protobuf refuses what is nested in more than 100 levels, Go's accepts 10,000: WhatsApp does not send it again."""
    nested = e2e.Message(conversation="STOP")
    for _ in range(60):
        outer = e2e.Message()
        outer.ephemeralMessage.message.CopyFrom(nested)
        nested = outer
    events = pair(store, hearing, proxy=whatsapp.proxy_url(), expected=f"+{fresh_number}", settle=1.0)
    qr = await next_of(events, "qr")
    await whatsapp.async_control.scan(qr.code, fresh_number)
    await whatsapp.async_control.wait_events("paired", device=fresh_number)
    whatsapp.control.write_raw(f"{fresh_number}:1", NUMBER, nested.SerializeToString())
    paired = await next_of(events, "paired")
    assert str(paired.reason).startswith("an event of the device cannot be read: DecodeError")


@pytest.mark.usefixtures("trusting")
async def test_a_typed_code_becomes_a_session(
    store: str, whatsapp: ServerProcess, fresh_number: str, hearing: Hearing
) -> None:
    proxy = whatsapp.proxy_url(scheme="socks5")
    async with aclosing(pair(store, hearing, proxy=proxy, phone=f"+{fresh_number}", settle=0)) as events:
        typed = await next_of(events, "code")
        assert await whatsapp.async_control.enter_code(fresh_number, typed.code) == "paired"
        assert (await next_of(events, "paired")).number == fresh_number
    assert await stored(store, fresh_number) == [f"{fresh_number}:1@s.whatsapp.net"]


@pytest.mark.usefixtures("trusting")
async def test_the_wrong_phone_is_unlinked_again(
    store: str, whatsapp: ServerProcess, fresh_number: str, hearing: Hearing
) -> None:
    events = pair(store, hearing, proxy=whatsapp.proxy_url(), expected="6280000000000", settle=0)
    qr = await next_of(events, "qr")
    await whatsapp.async_control.scan(qr.code, fresh_number)
    await whatsapp.async_control.wait_events("paired", device=fresh_number)
    whatsapp.control.write(f"{fresh_number}:1", NUMBER, "not to this device")
    assert (await next_of(events, "scanned")).number == fresh_number
    (failed,) = [event async for event in events]
    assert (failed.kind, failed.reason) == (
        "failed",
        f"the phone that was linked is +{fresh_number}, not +6280000000000: it has been unlinked again",
    )
    assert await stored(store, fresh_number) == []
    await whatsapp.async_control.wait_events("logout", device=fresh_number)
    assert spooled(Path(hearing.state_dir)) == []


@pytest.mark.usefixtures("trusting")
async def test_a_phone_that_never_comes_is_a_timeout(store: str, whatsapp: ServerProcess, hearing: Hearing) -> None:
    events = [event async for event in pair(store, hearing, proxy=whatsapp.proxy_url(), timeout=2)]
    assert [event.kind for event in events] == ["qr", "timeout"]
    assert events[-1].reason == "no phone was linked within 2 seconds"


@pytest.mark.usefixtures("trusting")
async def test_an_unreachable_server_fails_at_once(store: str, hearing: Hearing) -> None:
    (failed,) = [event async for event in pair(store, hearing, proxy="http://127.0.0.1:1")]
    assert failed.kind == "failed"
    assert str(failed.reason).startswith("WhatsApp could not be reached: ")


async def test_a_proxy_that_cannot_be_is_told_before_anything_starts(store: str, hearing: Hearing) -> None:
    with pytest.raises(SharddError, match="the proxy is not the URL of an http or socks5 proxy"):
        await anext(pair(store, hearing, proxy="ftp://x"))


@pytest.mark.usefixtures("trusting")
async def test_unlinking_tells_whatsapp_and_forgets_the_session(
    store: str, whatsapp: ServerProcess, device: dict[str, Any], hearing: Hearing
) -> None:
    await unlink(store, device["session"], hearing, proxy=device["proxy"])
    number = device["session"].partition(":")[0]
    assert await stored(store, number) == []
    await whatsapp.async_control.wait_events("logout", device=number)
    await unlink(store, device["session"], hearing, proxy=device["proxy"])  # nothing is left to do


@pytest.mark.usefixtures("trusting")
async def test_a_session_that_cannot_be_unlinked_is_kept(store: str, device: dict[str, Any], hearing: Hearing) -> None:
    with pytest.raises(SharddError, match=r"could not be logged out: .*cannot be reached"):
        await unlink(store, device["session"], hearing, proxy="http://127.0.0.1:1")
    assert await stored(store, device["session"].partition(":")[0]) == [device["session"]]


@pytest.mark.usefixtures("trusting")
async def test_a_session_is_kept_until_all_that_waited_for_it_is_there(
    store: str, whatsapp: ServerProcess, device: dict[str, Any], hearing: Hearing
) -> None:
    whatsapp.control.settings(backlog_delay=3600)
    number = device["session"].partition(":")[0]
    with pytest.raises(SharddError, match=r"did not all arrive within 0\.5 seconds; what did is kept, so try again"):
        await unlink(store, device["session"], hearing, proxy=device["proxy"], patience=0.5)
    assert await stored(store, number) == [device["session"]]
    assert whatsapp.control.events("logout", device=number) == []
    whatsapp.control.settings(backlog_delay=0)
    assert await unlink(store, device["session"], hearing, proxy=device["proxy"]) is None
    assert await stored(store, number) == []


@pytest.mark.usefixtures("trusting")
async def test_a_session_whose_messages_could_not_be_kept_is_not_opened(
    store: str, whatsapp: ServerProcess, device: dict[str, Any], hearing: Hearing
) -> None:
    nowhere = replace(hearing, state_dir=f"{hearing.state_dir}/missing")
    with pytest.raises(SharddError, match=r"could not be kept: state_dir .*/missing: No such file"):
        await unlink(store, device["session"], nowhere, proxy=device["proxy"])
    number = device["session"].partition(":")[0]
    assert await stored(store, number) == [device["session"]]
    assert whatsapp.control.events("login", device=f"{number}:1") == []


async def test_session_keys_are_the_daemons_alone(store: str, make_device: MakeDevice, cluster: Any) -> None:
    name = psycopg.conninfo.conninfo_to_dict(store)["dbname"]
    with (
        psycopg.connect(cluster.dsn(name, "producer"), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT noise_key FROM shardd_sessions.whatsmeow_device")
