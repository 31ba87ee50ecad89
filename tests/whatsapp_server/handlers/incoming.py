"""Messages from the simulated phones to the devices under test: text or a file, directly or in a group."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from ..state.accounts import LinkedDevice
from ..state.media import seal_file
from ..state.network import Network
from ..state.phones import GROUP_KIND, Phone, e2e
from ..wire.nodes import GROUP_SERVER, JID, Attributes, Node, lid_jid, number_jid

STATUS = JID("status", "broadcast")
_FIELDS = {
    "image": "imageMessage",
    "video": "videoMessage",
    "audio": "audioMessage",
    "document": "documentMessage",
}


class CannotWriteError(Exception):
    """The phone cannot write to the device; the text contains the reason."""


def text_message(text: str) -> e2e.Message:
    """A plain text."""
    return e2e.Message(conversation=text)


def claim(message: e2e.Message, fields: Mapping[str, Any]) -> None:
    """Set fields of a message with a file to something else."""
    for _, content in message.ListFields():
        for name, value in fields.items():
            setattr(content, name, value)


def media_message(network: Network, kind: str, data: bytes, mime_type: str, caption: str) -> e2e.Message:
    """A message with a file, which is stored first."""
    if kind not in _FIELDS:
        raise CannotWriteError(f"kind must be one of {', '.join(_FIELDS)}, not {kind!r}")
    sealed = seal_file(data, kind)
    path = network.media.put(sealed.blob)
    message = e2e.Message()
    part = getattr(message, _FIELDS[kind])
    part.URL, part.directPath, part.mediaKey = f"https://mmg.whatsapp.net{path}", path, sealed.key
    part.fileSHA256, part.fileEncSHA256, part.fileLength = sealed.plain_sha256, sealed.sealed_sha256, len(data)
    part.mimetype = mime_type
    if caption and kind != "audio":
        part.caption = caption
    return message


def write_to_device(
    network: Network,
    device: LinkedDevice,
    sender: str,
    message: e2e.Message | bytes,
    group_id: str = "",
    *,
    hidden: bool = False,
) -> str:
    """The phone ``sender`` writes to the device, in a group if one is given; returns the message id.

    A device that is offline gets it at its next login. ``hidden``: the stanza omits the sender's number.

    Raises:
        CannotWriteError: The device's keys are not known, so nothing can be encrypted for it.
    """
    phone = network.phone(sender)
    message_id = "3A" + os.urandom(8).hex().upper()
    kind = "text" if isinstance(message, bytes) or message.conversation else "media"
    content = message if isinstance(message, bytes) else message.SerializeToString()
    attributes: Attributes = {"id": message_id, "type": kind, "t": int(time.time())}
    attributes |= {"notify": f"Phone {sender}", "addressing_mode": "lid"}
    if group_id:
        copies = _group_copies(phone, JID(network.groups.find(group_id).id, GROUP_SERVER), device, content)
        participant = {"participant": lid_jid(sender), "participant_pn": number_jid(sender)}
        attributes |= {"from": JID(group_id, GROUP_SERVER), **participant}
    else:
        copies = [_copy(phone, device, content)]
        attributes |= {"from": lid_jid(sender), "sender_pn": None if hidden else number_jid(sender)}
    device.deliver(Node("message", attributes, copies))
    return message_id


def post_status(network: Network, device: LinkedDevice, sender: str, message: e2e.Message) -> str:
    """The phone ``sender`` posts a status for its contacts, of which the device is one; returns the message id."""
    message_id = "3A" + os.urandom(8).hex().upper()
    participant = {"participant": lid_jid(sender), "participant_pn": number_jid(sender)}
    attributes: Attributes = {"id": message_id, "type": "text", "t": int(time.time()), "from": STATUS}
    attributes |= {"notify": f"Phone {sender}", "addressing_mode": "lid", **participant}
    copies = _group_copies(network.phone(sender), STATUS, device, message.SerializeToString())
    device.deliver(Node("message", attributes, copies))
    return message_id


def write_from_owner(network: Network, device: LinkedDevice, recipient: str, message: e2e.Message) -> str:
    """The device's own phone writes to a person, or to itself: the device gets a copy. Returns the message id."""
    message_id = "3A" + os.urandom(8).hex().upper()
    own = device.number
    copy = e2e.Message()
    copy.deviceSentMessage.destinationJID = str(lid_jid(recipient))
    copy.deviceSentMessage.message.CopyFrom(message)
    attributes: Attributes = {"id": message_id, "type": "text", "t": int(time.time()), "from": lid_jid(own)}
    attributes |= {
        "addressing_mode": "lid",
        "recipient": lid_jid(recipient),
        "peer_recipient_pn": number_jid(recipient),
    }
    device.deliver(Node("message", attributes, [_copy(network.phone(own), device, copy.SerializeToString())]))
    return message_id


def _copy(phone: Phone, device: LinkedDevice, content: bytes) -> Node:
    if not phone.signal.knows(device.name):
        bundle = device.take_bundle()
        if bundle is None:
            raise CannotWriteError(f"the keys of {device.name} are not known: it was neither paired here nor seeded")
        phone.signal.open_session(device.name, bundle)
    kind, sealed = phone.signal.encrypt(device.name, content)
    return Node("enc", {"v": 2, "type": kind}, sealed)


def _group_copies(phone: Phone, group: JID, device: LinkedDevice, content: bytes) -> list[Node]:
    """The message under the phone's sender key, and that key for this device alone."""
    sender_key = phone.own_sender_key(group.user)
    introduction = e2e.Message()
    introduction.senderKeyDistributionMessage.groupID = str(group)
    introduction.senderKeyDistributionMessage.axolotlSenderKeyDistributionMessage = sender_key.distribution()
    sealed = sender_key.encrypt(content)
    return [_copy(phone, device, introduction.SerializeToString()), Node("enc", {"v": 2, "type": GROUP_KIND}, sealed)]
