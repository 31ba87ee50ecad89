"""Retry receipts: a phone that cannot decrypt a message asks its sender to encrypt it again, and what the sender answers.

The stanzas are those of whatsmeow's retry.go: a receipt of type ``retry`` with ``<retry count id t v>`` and the phone's
registration, from the second one on with fresh keys; the answer is a message with the same id and one copy for this phone alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..state.network import Network
from ..wire.nodes import GROUP_SERVER, JID, Attributes, Node, lid_jid
from .directory import prekey_bundle

if TYPE_CHECKING:
    from ..state.accounts import LinkedDevice

MOST = 5
"""Retry receipts of a phone for one message."""


def ask_again(network: Network, device: LinkedDevice, to: JID, message_id: str, reader: str) -> None:
    """The phone ``reader`` could not decrypt a message of the device to ``to``; an offline device is asked at its next login."""
    phone = network.phone(reader)
    phone.retries[message_id] += 1
    count = phone.retries[message_id]
    if count > MOST:
        return
    addresses: Attributes = {"from": to}
    if to.server == GROUP_SERVER:
        addresses["participant"] = lid_jid(reader)
    elif reader == device.number:
        addresses = {"from": lid_jid(reader), "recipient": to}
    network.record.note("retry_receipt", device.name, id=message_id, reader=reader, count=count)
    device.deliver(retry_receipt(network, message_id, reader, addresses, count=count))


def retry_receipt(network: Network, message_id: str, reader: str, addresses: Attributes, *, count: int = 1) -> Node:
    """The stanza; ``addresses``: its attributes ``from``, ``participant`` and ``recipient``."""
    now = int(time.time())
    bundle = prekey_bundle(network, lid_jid(reader))
    content = [Node("retry", {"count": count, "id": message_id, "t": now, "v": 1}), bundle.need("registration")]
    if count > 1:
        keys = [bundle.need("type"), bundle.need("identity"), bundle.need("key"), bundle.need("skey")]
        content.append(Node("keys", None, keys))
    return Node("receipt", {**addresses, "id": message_id, "t": now, "type": "retry"}, content)
