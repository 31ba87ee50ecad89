"""Messages from clients: decrypted by the simulated phones, recorded, acknowledged, forwarded, and confirmed by receipts."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ..crypto.protobuf_fields import WireFormatError
from ..crypto.ratchet import AlreadyDecryptedError, CannotDecryptError
from ..faults import Fault, Kind, Occasion, Stage
from ..record import Message
from ..state.groups import UnknownGroupError
from ..state.network import Network, Receipts
from ..state.phones import GROUP_KIND, e2e
from ..wire.nodes import GROUP_SERVER, JID, Attributes, Node, lid_jid
from .content import describe
from .retries import ask_again
from .screens import show

if TYPE_CHECKING:
    from ..state.accounts import LinkedDevice
    from .connection import ChatConnection

RESTRICTED = 463
_REFUSING = frozenset({Kind.ERROR, Kind.STREAM_ERROR})
_MAYBE_ACCEPTING = frozenset({Kind.MUTE, Kind.IGNORE, Kind.DROP})


async def receive(connection: ChatConnection, node: Node) -> None:
    """Handle one message stanza; a fault decides whether it is accepted and how it is answered."""
    network, device = connection.network, connection.device
    if device is None:
        return
    to = node.jid("to")
    account = network.accounts.account(device.number)
    stranger = to.server != GROUP_SERVER and account.is_stranger(to.number)
    fault = network.faults.strike(Occasion(Stage.MESSAGE, device.name, (to.number,), stranger=stranger))
    error = fault.code if fault is not None and fault.kind is Kind.ERROR else None
    if fault is None and stranger and account.is_restricted:
        error = RESTRICTED
    accepted = error is None and (fault is None or _counts(fault))
    known = network.record.known(device.number, node.text("id"))
    is_new = known is None or not known.accepted
    phone = network.phone(to.number) if to.server != GROUP_SERVER else None
    waits = phone is not None and not phone.online
    opened = _open(network, device, node, read=not waits)
    message = network.record.arrive(opened, _outcome(fault, error), accepted=accepted, answers_retry=_is_retry(node))
    if accepted and is_new:
        account.contacts.add(to.number)
        _pass_on(network, device, node)
    if accepted and (is_new or _is_retry(node)):
        if waits and phone is not None:
            phone.waiting.append(lambda: _open_late(network, device, node, message))
        else:
            _confirm(network, device, to, opened)
    acknowledgement = _ack(node, error)
    if fault is None or fault.kind is Kind.ERROR:
        connection.send(acknowledgement)
    elif fault.kind is Kind.DELAY:
        connection.later(fault.seconds, acknowledgement)
    else:
        await connection.strike(fault)


def receipt(to: JID, message_id: str, kind: str = "", participant: JID | None = None) -> Node:
    """The receipt that a recipient's phone sends: delivered (no kind) or ``read``."""
    now = int(time.time())
    return Node("receipt", {"from": to, "id": message_id, "t": now, "type": kind, "participant": participant})


def _open_late(network: Network, device: LinkedDevice, node: Node, message: Message) -> None:
    """A phone that was off decrypts a message that waited for it."""
    opened = _open(network, device, node)
    message.opened_as(opened)
    _confirm(network, device, node.jid("to"), opened)


def _confirm(network: Network, device: LinkedDevice, to: JID, opened: Message) -> None:
    """The phones confirm a message that they have just decrypted, or ask for it again."""
    if network.settings.receipts is not Receipts.OFF and opened.readable:
        network.start(_send_receipts(network, device, to, opened))
    if network.settings.retry_receipts:
        for reader in opened.failed:
            ask_again(network, device, to, opened.id, reader)


def _is_retry(node: Node) -> bool:
    """Whether it answers a retry receipt: one copy, for one device, outside of ``<participants>``."""
    copy = node.find("enc")
    return copy is not None and copy.text("type") != GROUP_KIND


def _counts(fault: Fault) -> bool:
    return fault.kind is Kind.DELAY or (fault.kind in _MAYBE_ACCEPTING and fault.accepted)


def _outcome(fault: Fault | None, error: int | None) -> str:
    if error is not None:
        return f"error {error}"
    if fault is None:
        return "ack"
    return f"late ack {fault.seconds:g} s" if fault.kind is Kind.DELAY else str(fault.kind)


def _ack(node: Node, error: int | None) -> Node:
    attributes: Attributes = {"class": "message", "id": node.text("id"), "from": node.jid("to"), "t": int(time.time())}
    return Node("ack", attributes | {"error": error})


def _open(network: Network, device: LinkedDevice, node: Node, *, read: bool = True) -> Message:
    """The message as far as the phones that it was encrypted for can read it; not ``read``: by nobody yet."""
    to = node.jid("to")
    message = Message(device.number, device.name, to.number, node.text("id"), bot_tag=node.find("bot") is not None)
    message.edit = node.text("edit", "")
    for copy in (node.find("participants") or node).children:
        if copy.tag != "to" or copy.find("enc") is None:
            continue
        recipient = copy.jid("jid")
        if recipient.number == to.number or (to.server == GROUP_SERVER and recipient.number != device.number):
            message.copies_for.append(f"{recipient.number}:{recipient.device}")
        if recipient.device == 0 and network.settings.decrypt and read:
            _read_copy(network, device, message, recipient.number, copy.need("enc"))
    if not network.settings.decrypt or not read:
        return message
    if _is_retry(node):
        reader = node.jid("participant") if to.server == GROUP_SERVER else to
        message.copies_for.append(f"{reader.number}:{reader.device}")
        if reader.device == 0:
            _read_copy(network, device, message, reader.number, node.need("enc"))
    elif node.find("enc") is not None:
        _read_for_group(network, device, message, node.need("enc").data)
    return message


def _read_copy(network: Network, device: LinkedDevice, message: Message, number: str, sealed: Node) -> None:
    try:
        plain = network.phone(number).read(device.name, sealed.text("type"), sealed.data)
    except AlreadyDecryptedError:
        _remember_plain(network, message)
    except (CannotDecryptError, WireFormatError, KeyError, IndexError) as error:
        message.error = f"{number}: {error}"
        message.failed.append(number)
        network.record.note("undecryptable", device.name, id=message.id, reader=number, error=str(error))
        return
    else:
        if plain.ListFields() and not _is_only_a_key(plain):
            if message.kind == "unreadable":
                describe(plain, network.media, message)
            show(network, number, message, plain)
    if number != device.number or number == message.recipient:
        message.read_by.append(number)


def _is_only_a_key(plain: e2e.Message) -> bool:
    """Whether it contains the sender key of a group, and nothing for a person."""
    fields = {field.name for field, _ in plain.ListFields()}
    return fields <= {"senderKeyDistributionMessage", "messageContextInfo"}


def _read_for_group(network: Network, device: LinkedDevice, message: Message, sealed: bytes) -> None:
    message.read_by.clear()  # the copies for single members contained only the sender key
    message.failed.clear()
    try:
        members = network.groups.find(message.recipient).members
    except UnknownGroupError:
        message.error = f"no group {message.recipient}"
        return
    for number in members:
        if number == device.number:
            continue
        try:
            plain = network.phone(number).read_group(f"{message.recipient}@{GROUP_SERVER}", device.name, sealed)
        except AlreadyDecryptedError:
            _remember_plain(network, message)
        except (CannotDecryptError, WireFormatError) as error:
            message.error = str(error)
            message.failed.append(number)
            continue
        else:
            if message.kind == "unreadable":
                describe(plain, network.media, message)
            show(network, number, message, plain)
        message.read_by.append(number)


def _remember_plain(network: Network, message: Message) -> None:
    """The same ciphertext arrived before: take the content from that arrival."""
    known = network.record.known(message.sender, message.id)
    if known is not None:
        message.kind, message.text, message.media = known.kind, known.text, known.media


async def _send_receipts(network: Network, device: LinkedDevice, to: JID, message: Message) -> None:
    """Send the receipts of the readers' phones; a device that is offline by then gets them at its next login."""
    settings = network.settings
    readers: list[JID | None] = [lid_jid(number) for number in message.read_by] if to.server == GROUP_SERVER else [None]
    for kind in ("", "read") if settings.receipts is Receipts.READ else ("",):
        await asyncio.sleep(settings.receipt_delay)
        for reader in readers:
            device.deliver(receipt(to, message.id, kind, reader))


def _pass_on(network: Network, sender: LinkedDevice, node: Node) -> None:
    """Forward the copies for linked devices to those devices."""
    for copy in (node.find("participants") or node).children:
        if copy.tag != "to" or copy.jid("jid").device == 0 or copy.find("enc") is None:
            continue
        recipient = copy.jid("jid")
        device = network.accounts.account(recipient.number).devices.get(recipient.device)
        if device is None:
            continue
        attributes: Attributes = {
            "from": sender.lid,
            "id": node.text("id"),
            "type": node.text("type"),
            "t": int(time.time()),
        }
        identity = [child for child in node.children if child.tag == "device-identity"]
        device.deliver(
            Node(
                "message",
                attributes | {"sender_pn": sender.jid, "notify": "test", "addressing_mode": "lid"},
                [copy.need("enc"), *identity],
            )
        )
