"""The message that a job answers, as WhatsApp shows it above the answer."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import ContextInfo, ImageMessage, Message, VideoMessage

from shardd.ipc import JobSpec
from shardd.persons import USER_SERVER
from shardd.transports.details import read_quote

_FIELDS: Final = MappingProxyType(
    {
        "image": "imageMessage",
        "video": "videoMessage",
        "audio": "audioMessage",
        "voice": "audioMessage",
        "document": "documentMessage",
        "sticker": "stickerMessage",
        "location": "locationMessage",
        "contact": "contactMessage",
    }
)
"""Of messages other than texts; what is quoted of them is their kind and caption."""


def add_quote(message: Message, job: JobSpec) -> Message:
    """The message with the quote of its job, if that has one."""
    quote = read_quote(job)
    if quote is None:
        return message
    sender = quote.sender if "@" in quote.sender else f"{quote.sender.removeprefix('+')}@{USER_SERVER}"
    context = ContextInfo(stanzaID=quote.id, participant=sender, quotedMessage=_quoted(quote.kind, quote.text))
    if message.conversation:
        text = message.conversation
        message.ClearField("conversation")
        message.extendedTextMessage.text = text
        message.extendedTextMessage.contextInfo.CopyFrom(context)
        return message
    for field, value in message.ListFields():
        if field.message_type is not None and "contextInfo" in field.message_type.fields_by_name:
            value.contextInfo.CopyFrom(context)
    return message


def _quoted(kind: str, text: str) -> Message:
    name = _FIELDS.get(kind)
    if name is None:
        return Message(conversation=text)
    quoted = Message()
    part: Any = getattr(quoted, name)
    part.SetInParent()
    if isinstance(part, ImageMessage | VideoMessage) and text:
        part.caption = text
    return quoted
