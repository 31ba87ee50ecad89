"""What a phone sends of its earlier messages to a device that was just paired, as `Incoming`.

The phone decides how much it sends, in some parts within minutes after the pairing, and sends it once. The library downloads
each part, passes it to whoever is connected then and deletes it at WhatsApp (whatsmeow, message.go:
handleHistorySyncNotificationLoop), so a part is lost with the process that has it in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from shardd.incoming import Incoming
from shardd.persons import GROUP_SERVER, HIDDEN_SERVER, USER_SERVER
from shardd.transports.whatsapp.messages.incoming import content_of, text_of


def read_history(event: Any, device_id: str) -> list[Incoming]:
    """The messages of a HistorySync event in chats of two and in groups, oldest first. Raises nothing for what senders claim."""
    found = (
        message
        for conversation in event.Data.conversations
        for one in conversation.messages
        if (message := _read(one.message, conversation, device_id)) is not None
    )
    return sorted(found, key=lambda message: message.at)


def _read(message: Any, conversation: Any, device_id: str) -> Incoming | None:
    chat, key = text_of(conversation.ID), message.key
    server = chat.rpartition("@")[2]
    if server not in (USER_SERVER, HIDDEN_SERVER, GROUP_SERVER) or not key.ID:
        return None
    content = content_of(message.message)
    if content is None:
        return None
    group = chat if server == GROUP_SERVER else None
    if group is None:
        jids = [chat, text_of(conversation.pnJID), text_of(conversation.lidJID)]
    else:
        jids = [text_of(message.participant), text_of(key.participant)]
    return Incoming(
        device_id=device_id,
        message_id=text_of(key.ID),
        addresses=tuple(_addresses(jids)),
        at=float(message.messageTimestamp),
        name=text_of(message.pushName) or None,
        group=group,
        own=bool(key.fromMe),
        history=True,
        **content,
    )


def _addresses(jids: Sequence[str]) -> Iterator[str]:
    """The number first."""
    users = {server: user.partition(":")[0] for user, _, server in (jid.rpartition("@") for jid in jids) if user}
    if number := users.get(USER_SERVER):
        yield f"+{number}"
    if hidden := users.get(HIDDEN_SERVER):
        yield f"{hidden}@{HIDDEN_SERVER}"
