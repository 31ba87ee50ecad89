"""The server's answers that need no client: directory, groups, content, receipts, and the control protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.whatsapp_server.control import Commands, ControlServer
from tests.whatsapp_server.control_client import AsyncControlClient, ControlClient, ControlError
from tests.whatsapp_server.crypto.keys import DJB_TYPE, KeyPair, signature_is_valid
from tests.whatsapp_server.handlers.content import describe
from tests.whatsapp_server.handlers.directory import answer_usync, prekey_bundle
from tests.whatsapp_server.handlers.messages import receipt
from tests.whatsapp_server.record import Message
from tests.whatsapp_server.state.network import Network
from tests.whatsapp_server.state.phones import e2e
from tests.whatsapp_server.wire.neonize_library import DICTIONARIES, DICTIONARY_SIZE, SINGLE_BYTE_TOKENS, read_tokens
from tests.whatsapp_server.wire.nodes import MalformedStanzaError, Node, lid_jid, number_jid
from tests.whatsapp_server.wire.noise import ServerIdentity


@pytest.fixture
def network() -> Network:
    return Network(ServerIdentity(KeyPair()))


def usync(*users: Node, query: tuple[str, ...] = ("contact", "lid", "devices")) -> Node:
    parts = [Node("query", None, [Node(part) for part in query]), Node("list", None, list(users))]
    return Node("usync", {"sid": "7", "mode": "full"}, parts)


def test_the_tokens_are_those_of_the_library() -> None:
    tokens = read_tokens()
    assert len(tokens.single) == SINGLE_BYTE_TOKENS
    assert [len(dictionary) for dictionary in tokens.double] == [DICTIONARY_SIZE] * DICTIONARIES
    assert tokens.single[3] == "s.whatsapp.net"
    assert {"message", "receipt", "success", "iq"} <= tokens.code_of.keys()


def test_a_number_on_whatsapp_has_a_lid_and_devices(network: Network) -> None:
    network.accounts.link("62811", 4, b"", None)
    answer = answer_usync(network, usync(Node("user", {"jid": number_jid("62811")})))

    [user] = answer.need("list").children
    assert user.need("lid").jid("val") == lid_jid("62811")
    assert [device.text("id") for device in user.need("devices", "device-list").children] == ["0", "4"]
    assert user.need("contact").text("type") == "in"
    assert answer.text("sid") == "7"


def test_a_number_not_on_whatsapp_has_nothing(network: Network) -> None:
    network.not_on_whatsapp.add("62811")
    [user] = answer_usync(network, usync(Node("user", {"jid": number_jid("62811")}))).need("list").children
    assert user.find("lid") is None
    assert user.need("contact").text("type") == "out"


def test_a_typed_number_is_looked_up(network: Network) -> None:
    network.not_on_whatsapp.add("62812")
    typed = [Node("user", None, [Node("contact", None, f"+{number}".encode())]) for number in ("62811", "62812")]
    answer = answer_usync(network, usync(*typed, query=("contact",)))

    known, unknown = answer.need("list").children
    assert (known.jid("jid"), known.need("contact").text("type")) == (lid_jid("62811"), "in")
    assert (unknown.jid("pn_jid"), unknown.need("contact").text("type")) == (number_jid("62812"), "out")
    with pytest.raises(MalformedStanzaError):
        answer_usync(network, usync(Node("user", None, [Node("contact", None, b"+abc")]), query=("contact",)))


def test_a_phones_bundle_is_signed_by_its_identity(network: Network) -> None:
    bundle = prekey_bundle(network, lid_jid("62811"))
    signed = bundle.need("skey")
    statement = DJB_TYPE + signed.need("value").data
    assert signature_is_valid(bundle.need("identity").data, statement, signed.need("signature").data)
    assert bundle.jid("jid") == lid_jid("62811")


def test_a_linked_device_without_known_keys_has_no_bundle(network: Network) -> None:
    network.accounts.link("62811", 1, b"", None)
    assert prekey_bundle(network, lid_jid("62811", 1)).need("error").text("code") == "404"


def test_a_group_is_described_by_its_bare_id(network: Network) -> None:
    group = network.groups.create("Friends", ["62811", "62812"])
    description = group.description()
    assert description.text("id") == group.id
    assert [member.jid("phone_number").user for member in description.children] == ["62811", "62812"]


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (e2e.Message(conversation="plain"), "text", "plain"),
        (e2e.Message(extendedTextMessage=e2e.ExtendedTextMessage(text="extended")), "text", "extended"),
        (e2e.Message(contactMessage=e2e.ContactMessage(vcard="BEGIN:VCARD")), "contact", "BEGIN:VCARD"),
        (
            e2e.Message(
                locationMessage=e2e.LocationMessage(degreesLatitude=-6.5, degreesLongitude=106.0, name="Monas")
            ),
            "location",
            "-6.5,106.0 Monas",
        ),
        (
            e2e.Message(viewOnceMessage=e2e.FutureProofMessage(message=e2e.Message(conversation="wrapped"))),
            "text",
            "wrapped",
        ),
        (e2e.Message(audioMessage=e2e.AudioMessage(PTT=True, directPath="/none")), "voice", ""),
        (e2e.Message(), "empty", ""),
    ],
)
def test_a_message_is_described_by_kind_and_text(network: Network, message: Any, kind: str, text: str) -> None:
    record = Message("62811", "62811:1", "62899", "A")
    describe(message, network.media, record)
    assert (record.kind, record.text) == (kind, text)
    assert (record.media is not None) is (kind == "voice")


def test_a_receipt_names_its_kind_and_reader() -> None:
    read = receipt(lid_jid("62811"), "A", "read", lid_jid("62812"))
    assert (read.text("type"), read.jid("participant")) == ("read", lid_jid("62812"))
    assert "type" not in repr(receipt(lid_jid("62811"), "A")).replace("type=''", "")


@pytest_asyncio.fixture
async def control(network: Network) -> AsyncIterator[int]:
    server = ControlServer(network)
    await server.start()
    yield server.port


async def test_the_control_port_answers_in_json(control: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", control)
    for request in (
        b'{"do": "events"}',
        b'{"do": "nonsense"}',
        b"[]",
        b"no json",
        b'{"do": "scan", "qr": "x", "number": "1"}',
    ):
        writer.write(request + b"\n")
    answers = [json.loads(await reader.readline()) for _ in range(5)]
    assert [answer["ok"] for answer in answers] == [True, False, False, False, False]
    assert "nonsense" in answers[1]["error"]
    assert "not a QR code" in answers[4]["error"]
    writer.close()


async def test_the_client_raises_what_the_server_refuses(control: int) -> None:
    server = AsyncControlClient(control)
    with pytest.raises(ControlError, match="0 of 2 messages"):
        await server.wait_messages(2, timeout=0.01)
    with pytest.raises(ControlError, match="no device 62811"):
        await server.mute("62811")
    with pytest.raises(ControlError, match="cannot apply"):
        await server.fault("failure", "tls")
    with pytest.raises(ControlError, match="sometimes"):
        await server.settings(receipts="sometimes")


async def test_starting_over_forgets_devices_and_phones_too(network: Network, control: int) -> None:
    before = network.phone("62811")
    network.accounts.link("62811", 1, b"", None)
    await AsyncControlClient(control).start_over()
    assert network.phone("62811") is not before
    assert network.accounts.account("62811").next_index() == 1


async def test_reset_forgets_what_tests_left(network: Network, control: int) -> None:
    server = AsyncControlClient(control)
    await server.fault("error", "message", code=1, times=None)
    await server.create_group("Friends", ["62811"])
    await server.restrict("62811", 60)
    await server.not_on_whatsapp("62812")
    await server.reset()
    assert (await server.stats())["faults"] == 0
    assert not network.not_on_whatsapp
    assert not network.accounts.account("62811").is_restricted
    assert network.groups.of_member("62811") == []


def test_every_request_of_the_client_is_one_of_the_server() -> None:
    requests = {name for name in vars(ControlClient) if not name.startswith("_")}
    local = {"call", "fault", "resent", "doubled"}
    assert requests - local <= {name for name in vars(Commands) if not name.startswith("_")}
