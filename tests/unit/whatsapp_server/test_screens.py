"""What the simulated phones show, and which revocations they believe."""

from __future__ import annotations

from typing import Any

import pytest
from neonize.proto.waCommon.WACommon_pb2 import MessageKey

from tests.whatsapp_server.crypto.keys import KeyPair
from tests.whatsapp_server.handlers.screens import show
from tests.whatsapp_server.record import Message
from tests.whatsapp_server.state.network import Network
from tests.whatsapp_server.state.phones import e2e
from tests.whatsapp_server.wire.nodes import lid_jid
from tests.whatsapp_server.wire.noise import ServerIdentity

SENDER, READER = "62811", "62822"


@pytest.fixture
def network() -> Network:
    """The reader's phone shows one message."""
    network = Network(ServerIdentity(KeyPair()))
    message = network.record.arrive(Message(SENDER, f"{SENDER}:1", READER, "M1"), "ack", accepted=True)
    show(network, READER, message, e2e.Message(conversation="only 1 EUR"))
    return network


def revoke(network: Network, *, edit: str = "7", sender: str = SENDER, wrapped: bool = False, **key: Any) -> None:
    fields = {"remoteJID": f"{READER}@s.whatsapp.net", "fromMe": True, "ID": "M1", **key}
    protocol = e2e.ProtocolMessage(type=e2e.ProtocolMessage.REVOKE, key=MessageKey(**fields))
    plain = e2e.Message(protocolMessage=protocol)
    if wrapped:
        plain = e2e.Message(deviceSentMessage=e2e.DeviceSentMessage(message=plain))
    # Another device of the account may have sent it.
    show(network, READER, Message(sender, f"{sender}:2", READER, "M2", edit=edit), plain)


def screen(network: Network) -> list[str]:
    return list(network.phone(READER).screen.values())


@pytest.mark.parametrize("change", [{}, {"remoteJID": str(lid_jid(READER))}, {"wrapped": True}])
def test_a_phone_does_not_show_what_its_sender_deleted(network: Network, change: dict[str, Any]) -> None:
    assert screen(network) == ["only 1 EUR"]
    revoke(network, **change)
    assert screen(network) == []
    message = network.record.known(SENDER, "M1")
    assert message is not None
    assert message.deleted_by == [READER]


@pytest.mark.parametrize(
    "change",
    [
        {"edit": ""},
        {"edit": "8"},
        {"fromMe": False},
        {"ID": "M9"},
        {"remoteJID": "62833@s.whatsapp.net"},
        {"remoteJID": f"{READER}@g.us.example"},
        {"sender": "62833"},
    ],
)
def test_a_phone_ignores_a_revocation_that_does_not_fit(network: Network, change: dict[str, Any]) -> None:
    revoke(network, **change)
    assert screen(network) == ["only 1 EUR"]
    (event,) = network.record._events
    assert event.details["ignored"]


def test_nothing_is_shown_any_more_after_a_reset(network: Network) -> None:
    network.reset()
    assert screen(network) == []
