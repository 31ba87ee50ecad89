"""What people write to a device, as far as it is looked at: the text of a message in a chat of two, and who wrote it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from shardd.transports.whatsapp.messages.recipients import HIDDEN_SERVER, USER_SERVER

_WRAPPERS: Final = ("ephemeralMessage", "viewOnceMessage", "viewOnceMessageV2", "editedMessage")
"""Messages around a message (waE2E.proto)."""
_DEPTH: Final = 4
"""Wrappers in wrappers; real ones have two."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A text that somebody wrote to a device."""

    text: str
    number: str | None
    """Digits of the sender's phone number; None: WhatsApp did not say it."""
    hidden: str | None
    """The JID by which WhatsApp hides the number: `…@lid`."""
    at: float
    """POSIX seconds."""


def read_incoming(event: Any) -> Incoming | None:
    """A message event of the library; None: nothing that a person wrote to this device alone."""
    source = event.Info.MessageSource
    if source.IsFromMe or source.IsGroup or source.Chat.Server not in (USER_SERVER, HIDDEN_SERVER):
        return None
    text = text_of(event.Message)
    if not text:
        return None
    jids = {jid.Server: jid.User for jid in (source.SenderAlt, source.Sender) if jid.User}
    hidden = jids.get(HIDDEN_SERVER)
    return Incoming(
        text=text,
        number=jids.get(USER_SERVER),
        hidden=None if hidden is None else f"{hidden}@{HIDDEN_SERVER}",
        # Milliseconds, unlike a receipt's.
        at=event.Info.Timestamp / 1000 or time.time(),
    )


def text_of(message: Any) -> str:
    """What a message says, or which button was pressed; empty: neither."""
    for _ in range(_DEPTH):
        inner = next((name for name in _WRAPPERS if message.HasField(name)), None)
        if inner is not None:
            message = getattr(message, inner).message
        elif message.protocolMessage.HasField("editedMessage"):
            message = message.protocolMessage.editedMessage
        else:
            break
    return str(
        message.conversation
        or message.extendedTextMessage.text
        or message.buttonsResponseMessage.selectedDisplayText
        or message.templateButtonReplyMessage.selectedDisplayText
        or message.listResponseMessage.title
        or message.interactiveResponseMessage.body.text
    )
