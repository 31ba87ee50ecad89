"""What people write to a device: the text of a message in a one-to-one chat, its sender, and the backlog after a login."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from shardd.phone_numbers import HIDDEN_SERVER, USER_SERVER
from shardd.tasks import wait_for_event

ANNOUNCED: Final = 3.0
"""Seconds that announced messages may take to arrive."""
UNANNOUNCED: Final = 0.5
"""Seconds that the announcement may take, or the report that nothing waited."""
_WRAPPERS: Final = ("ephemeralMessage", "viewOnceMessage", "viewOnceMessageV2", "editedMessage")
"""Messages around a message (waE2E.proto)."""
_DEPTH: Final = 4
"""Nested wrappers; real messages have two."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A text that somebody wrote to a device."""

    text: str
    number: str | None
    """Digits of the sender's phone number; None: WhatsApp did not send it."""
    hidden: str | None
    """The JID by which WhatsApp hides the number: `…@lid`."""
    at: float
    """POSIX seconds."""


def read_incoming(event: Any) -> Incoming | None:
    """A message event of the library; None unless it is a text that a person wrote to this device alone."""
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
    """The text of a message, or of the button that was pressed; empty when it has neither."""
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


class Backlog:
    """The messages that waited at WhatsApp while the device of one client was not logged in.

    They arrive right after the login, between an announcement of their number and a report that these were all. One of them may
    be an opt-out, so the first send of a client waits for them.
    """

    def __init__(self) -> None:
        self._messages = 0
        self._over = asyncio.Event()

    def announced(self, event: Any) -> None:
        """OfflineSyncPreview: how many messages wait."""
        self._messages = event.Message

    def finish(self, _: Any = None) -> None:
        """OfflineSyncCompleted, or the connection is gone: nothing more comes."""
        self._over.set()

    async def wait(self) -> None:
        """Wait until all have arrived or the time for it is up; returns at once when called again."""
        if not await wait_for_event(self._over, UNANNOUNCED) and self._messages:
            await wait_for_event(self._over, ANNOUNCED - UNANNOUNCED)
        self._over.set()
