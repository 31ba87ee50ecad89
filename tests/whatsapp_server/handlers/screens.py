"""What the simulated phones show: each message that they decrypted, until its sender deletes it for everyone.

A phone believes a revocation only if everything about it fits: the attribute ``edit`` of its stanza, and a key that names, as the
sender's own, a message in this chat which the phone has had from the same account. Otherwise it goes on showing the message.
"""

from __future__ import annotations

from typing import Any

from ..record import Message
from ..state.network import Network
from ..state.phones import Phone, e2e
from ..wire.nodes import GROUP_SERVER, JID, LID_SERVER, USER_SERVER
from .content import is_revocation, unwrap

SENDER_REVOKE = "7"
_SERVERS = (USER_SERVER, LID_SERVER, GROUP_SERVER)


def show(network: Network, reader: str, opened: Message, plain: e2e.Message) -> None:
    """The phone ``reader`` has decrypted a message: it shows it, or what the message says about an earlier one."""
    phone, content = network.phone(reader), unwrap(plain)
    if not is_revocation(content):
        phone.screen[opened.recipient, opened.sender, opened.id] = content.conversation or opened.kind
        return
    why = _doubt(phone, opened, content.protocolMessage.key)
    network.record.note(
        "revocation",
        opened.sender_device,
        id=opened.id,
        reader=reader,
        revokes=content.protocolMessage.key.ID,
        ignored=why,
    )
    if why:
        return
    revoked = content.protocolMessage.key.ID
    del phone.screen[opened.recipient, opened.sender, revoked]
    known = network.record.known(opened.sender, revoked)
    if known is not None:
        known.deleted_by.append(reader)


def _doubt(phone: Phone, opened: Message, key: Any) -> str:
    """Why the phone ignores a revocation; empty: it does not."""
    if opened.edit != SENDER_REVOKE:
        return f"the stanza has edit={opened.edit!r}"
    if not key.fromMe:
        return "the key is not that of a message of its sender"
    user, _, server = key.remoteJID.partition("@")
    if server not in _SERVERS or JID(user, server).number != opened.recipient:
        return f"the key is of another chat: {key.remoteJID}"
    if (opened.recipient, opened.sender, key.ID) not in phone.screen:
        return f"no message {key.ID} of this sender is shown"
    return ""
