"""Linking a device to a phone: the phone scans a QR code, or its owner types a code.

In both cases the phone gets the device's identity key and a shared secret and signs the identity; the server sends the
signature to the device in ``pair-success``. The device counter-signs, is asked to reconnect (515), and logs in.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..crypto import link_code
from ..crypto.keys import signature_is_valid
from ..state.accounts import PublicKeys
from ..wire.neonize_library import load_neonize
from ..wire.nodes import JID, SERVER, Attributes, MalformedStanzaError, Node, lid_jid, number_jid

load_neonize()
from neonize.proto.waAdv import WAAdv_pb2 as adv  # noqa: E402 - after the library is loaded with logging kept

if TYPE_CHECKING:
    from ..state.network import Network
    from .connection import ChatConnection

QR_REFERENCES = 6
RESTART = 515
_ACCOUNT_SIGNATURE_PREFIX = b"\x06\x00"
_DEVICE_SIGNATURE_PREFIX = b"\x06\x01"


class PairingRefusedError(Exception):
    """The phone could not link the device; the text contains the reason."""


@dataclass(eq=False)
class PairingOffer:
    """A client that is waiting to be linked: its keys and the references in its QR codes."""

    connection: ChatConnection
    keys: PublicKeys
    references: list[str]
    link_code: link_code.LinkCodeExchange | None = None
    number: str = ""
    index: int = 0
    account_signature_key: bytes = b""
    details: bytes = b""


def offer(connection: ChatConnection, registration: Any) -> None:
    """Send a new client the references for its QR codes; each is valid until the client hangs up."""
    keys = PublicKeys(
        registration.eRegid,
        registration.eIdent,
        int.from_bytes(registration.eSkeyID, "big"),
        registration.eSkeyVal,
        registration.eSkeySig,
    )
    references = [base64.urlsafe_b64encode(os.urandom(18)).decode() for _ in range(QR_REFERENCES)]
    connection.pairing = PairingOffer(connection, keys, references)
    for reference in references:
        connection.network.pairing_offers[reference] = connection.pairing
    nodes = [Node("ref", None, reference.encode()) for reference in references]
    attributes: Attributes = {"from": SERVER, "type": "set", "id": os.urandom(4).hex(), "xmlns": "md"}
    connection.send(Node("iq", attributes, [Node("pair-device", None, nodes)]))
    connection.network.record.note("pairing_offered", connection.proxy_user)


def withdraw(network: Network, offered: PairingOffer) -> None:
    """Invalidate the codes of a client that hung up."""
    for reference in offered.references:
        network.pairing_offers.pop(reference, None)


def scan(network: Network, qr_text: str, number: str) -> JID:
    """The owner of ``number`` scans a QR code; returns the address that the device gets.

    Raises:
        PairingRefusedError: The text is not such a code, or no client is waiting with it.
    """
    try:
        reference, _noise, identity, secret = qr_text.rpartition("#")[2].split(",")[:4]
        identity_key, adv_secret = base64.b64decode(identity), base64.b64decode(secret)
    except (ValueError, binascii.Error) as error:
        raise PairingRefusedError(f"not a QR code for linking a device: {qr_text!r}") from error
    waiting = network.pairing_offers.get(reference.removeprefix("2@"))
    if waiting is None:
        raise PairingRefusedError("no client is waiting with this QR code")
    if identity_key != waiting.keys.identity:
        raise PairingRefusedError("the QR code contains another identity key than the client registered")
    return _link(network, waiting, number, adv_secret)


def code_stage(connection: ChatConnection, request: Node, registration: Node) -> None:
    """Answer the client's steps of linking by code."""
    offered = connection.pairing
    if offered is None:
        raise MalformedStanzaError("only a client that is not linked can link by code")
    stage = registration.text("stage")
    if stage == "companion_hello":
        wrapped = registration.need("link_code_pairing_wrapped_companion_ephemeral_pub").data
        offered.link_code = link_code.LinkCodeExchange(registration.jid("jid").number, wrapped)
        reference = Node("link_code_pairing_ref", None, offered.link_code.reference.encode())
        connection.answer(request, Node("link_code_companion_reg", {"stage": stage}, [reference]))
        connection.network.record.note("code_requested", offered.link_code.number)
    elif stage == "companion_finish" and offered.link_code is not None:
        connection.answer(request)
        _finish_code(connection.network, offered, registration)
    else:
        raise MalformedStanzaError(f"unexpected stage {stage} of linking by code")


def enter_code(network: Network, number: str, code: str) -> None:
    """The owner of ``number`` types a code; the outcome is recorded as an event, ``paired`` or ``wrong_code``.

    Raises:
        PairingRefusedError: No client is waiting for a code of this number.
    """
    for waiting in set(network.pairing_offers.values()):
        exchange = waiting.link_code
        if exchange is not None and exchange.number == number:
            hello = [
                Node("link_code_pairing_ref", None, exchange.reference.encode()),
                Node("link_code_pairing_wrapped_primary_ephemeral_pub", None, exchange.type_code(code)),
                Node("primary_identity_pub", None, network.phone(number).signal.identity.public),
            ]
            attributes: Attributes = {"from": SERVER, "id": os.urandom(4).hex(), "type": "link_code_companion_reg"}
            registration = Node("link_code_companion_reg", {"stage": "primary_hello"}, hello)
            waiting.connection.send(Node("notification", attributes | {"t": int(time.time())}, [registration]))
            return
    raise PairingRefusedError(f"no client is waiting for a code of {number}")


async def device_signed(connection: ChatConnection, node: Node) -> None:
    """The device counter-signed: link it, and ask it to reconnect."""
    offered, network = connection.pairing, connection.network
    if offered is None or not offered.number:
        raise MalformedStanzaError("pair-device-sign without pair-success")
    signed = adv.ADVSignedDeviceIdentity.FromString(node.need("pair-device-sign", "device-identity").data)
    statement = _DEVICE_SIGNATURE_PREFIX + offered.details + offered.keys.identity + offered.account_signature_key
    if not signature_is_valid(offered.keys.identity, statement, signed.deviceSignature):
        raise MalformedStanzaError("the device's signature is not valid")
    device = network.accounts.link(offered.number, offered.index, connection.noise_key, offered.keys)
    network.record.note("paired", device.name)
    await connection.stream_error(RESTART)


def _finish_code(network: Network, offered: PairingOffer, registration: Node) -> None:
    exchange = offered.link_code
    assert exchange is not None  # the caller checked
    identity = network.phone(exchange.number).signal.identity
    try:
        bundle = registration.need("link_code_pairing_wrapped_key_bundle").data
        adv_secret = exchange.open_bundle(bundle, identity, offered.keys.identity)
    except link_code.WrongCodeError:
        network.record.note("wrong_code", exchange.number)
        return
    _link(network, offered, exchange.number, adv_secret)


def _link(network: Network, offered: PairingOffer, number: str, adv_secret: bytes) -> JID:
    """Sign the device's identity with the phone's key, and send the signature to the device."""
    identity = network.phone(number).signal.identity
    offered.number, offered.index = number, network.accounts.account(number).next_index()
    offered.account_signature_key = identity.public
    offered.details = adv.ADVDeviceIdentity(
        rawID=int.from_bytes(os.urandom(3), "big"), timestamp=int(time.time()), keyIndex=offered.index
    ).SerializeToString()
    signature = identity.sign(_ACCOUNT_SIGNATURE_PREFIX + offered.details + offered.keys.identity)
    signed = adv.ADVSignedDeviceIdentity(
        details=offered.details, accountSignatureKey=identity.public, accountSignature=signature
    ).SerializeToString()
    sealed = adv.ADVSignedDeviceIdentityHMAC(details=signed, HMAC=hmac.digest(adv_secret, signed, "sha256"))
    jid = number_jid(number, offered.index)
    success = [
        Node("device-identity", None, sealed.SerializeToString()),
        Node("biz"),
        Node("device", {"jid": jid, "lid": lid_jid(number, offered.index)}),
        Node("platform", {"name": "android"}),
    ]
    attributes: Attributes = {"from": SERVER, "type": "set", "id": os.urandom(4).hex(), "xmlns": "md"}
    offered.connection.send(Node("iq", attributes | {"t": int(time.time())}, [Node("pair-success", None, success)]))
    return jid
